"""`hostguide second-opinion`: evaluate the best crystals of a run with another potential."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from search.commands.common import RunArgument, console, in_catalogue, use_threads
from search.storage.paths import run_path


def second_opinion(
    run: RunArgument,
    top: Annotated[int, typer.Option(min=1, help="Number of crystals to evaluate")] = 20,
    potential: Annotated[
        str | None,
        typer.Option(help="The other potential (default: one with a packaged reference)", callback=in_catalogue),
    ] = None,
    structures: Annotated[
        Path | None,
        typer.Option(help="Parquet of structures from which to compute competing phases (default: packaged table)"),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Difference above which the potentials disagree, eV/atom")] = 0.03,
) -> None:
    """Evaluate the best crystals of a run with another potential and compare the decomposition energies."""
    from search.studies.second_opinion import FILE, take_second_opinion

    use_threads()
    if tolerance <= 0:
        raise ValueError(f"--tolerance must be positive, got {tolerance}")
    if structures is not None and not structures.is_file():
        raise ValueError(f"{structures} does not exist")
    place = run_path(run)
    rows = take_second_opinion(place, top=top, potential=potential, structures=structures, tolerance=tolerance)
    console.print(_table(rows))
    disagree = sum(row["disagrees"] for row in rows)
    console.print(f"{disagree} of {len(rows)} differ by more than {1e3 * tolerance:.0f} meV/atom.")
    if rows[0]["missing"]:
        console.print(
            f"{rows[0]['potential']} has no energy for {', '.join(rows[0]['missing'])}: left out of both hulls, so E_d "
            "may be too low. Both columns use the same phases and can be compared.",
            soft_wrap=True,
        )
    console.print(f"Stored in {place / FILE}", soft_wrap=True)


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Decomposition energies, meV/atom", title_justify="left")
    energies = (rows[0]["potential_first"], rows[0]["potential"], "difference")
    for name in ("formula", "space group", *energies, "", "candidate"):
        table.add_column(name, justify="right" if name in energies else "left")
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
