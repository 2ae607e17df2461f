"""`hostguide second-opinion` as a person sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from search.storage.paths import RunPath
from search.studies.second_opinion import FILE, take_second_opinion


def give_second_opinion(console: Console, run: RunPath, *, top: int, structures: Path | None, tolerance: float) -> None:
    """Judge the best candidates of a run with CHGNet's r2SCAN model; print and store the answer.

    Raises:
        ValueError: bad input, or the competing phases are not known.
    """
    torch.set_num_threads(1)
    if tolerance <= 0:
        raise ValueError(f"--tolerance must be positive, got {tolerance}")
    if structures is not None and not structures.is_file():
        raise ValueError(f"{structures} does not exist")
    rows = take_second_opinion(run, top=top, structures=structures, tolerance=tolerance)
    console.print(_table(rows))
    disagree = sum(row["disagrees"] for row in rows)
    console.print(f"{disagree} of {len(rows)} differ by more than {1e3 * tolerance:.0f} meV/atom.")
    if rows[0]["missing"]:
        console.print(
            f"No r2SCAN energy is known of {', '.join(rows[0]['missing'])}: left out of both hulls, so E_d may be too "
            "low. Both columns are on the same phases and compare with each other.",
            soft_wrap=True,
        )
    console.print(f"Stored in {run / FILE}", soft_wrap=True)


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Decomposition energies, meV/atom", title_justify="left")
    for name in ("formula", "space group", "CHGNet 0.3.0", "CHGNet r2SCAN", "difference", "", "candidate"):
        table.add_column(name, justify="right" if name[:3] in ("CHG", "dif") else "left")
    for row in rows:
        table.add_row(
            row["formula"],
            row["space_group"] if isinstance(row["space_group"], str) else "",
            f"{1e3 * row['e_d_first']:.1f}",
            f"{1e3 * row['e_d']:.1f}",
            f"{1e3 * row['difference']:+.1f}",
            "disagrees" if row["disagrees"] else "",
            row["candidate"],
        )
    return table
