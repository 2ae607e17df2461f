"""Tables for the terminal: ranked candidates and reference phases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.table import Table

from search.storage.ranking import products_text, remark

if TYPE_CHECKING:
    from model.thermodynamics.reference import Reference

SINGLE_POINTS = "* not relaxed by the potential: E_d may be some meV/atom too low"


def results_table(best: pd.DataFrame, verdicts: Mapping[str, str] | None = None) -> Table:
    """Table of ranked candidates for the terminal.

    Args:
        best: from `search.storage.ranking.rank`.
        verdicts: candidate -> grade, of those that were verified.
    """
    verdicts = verdicts or {}
    potentials = ", ".join(sorted(set(best["potential"])))
    judges = list(dict.fromkeys(name for said in best["judges"] for name in said))
    table = Table(title=f"Lowest decomposition energies ({potentials})", title_justify="left")
    numbers = ("#", "atoms", "E_d meV/atom", *(f"by {name}" for name in judges))
    for name in (
        "#",
        "formula",
        "atoms",
        "space group",
        *numbers[2:],
        "role",
        "host group",
        "decomposes into",
        "remark",
        *(["verdict"] if verdicts else []),
    ):
        whole = name in ("formula", "space group", *numbers)  # also in a narrow terminal, where the others are wrapped
        table.add_column(name, justify="right" if name in numbers else "left", no_wrap=whole)
    for position, row in enumerate(best.to_dict("records"), start=1):
        table.add_row(
            str(position),
            row["formula"],
            str(row["n_atoms"]),
            _text(row["space_group"]),
            f"{round(1e3 * row['e_d'], 1) + 0.0:.1f}",
            *(f"{1e3 * row['judges'][name]:.1f}" if name in row["judges"] else "" for name in judges),
            row["role"],
            _text(row["framework_space_group"]),
            products_text(row["products"], row["single_points"]),
            remark(row),
            *([verdicts.get(row["candidate"], "")] if verdicts else []),
        )
    if any(len(given) for given in best["single_points"]):
        table.caption, table.caption_justify = SINGLE_POINTS, "left"
    return table


def _text(value: object) -> str:
    """Value of a string column; pandas gives NaN if there is none."""
    return value if isinstance(value, str) else ""


def phases(system: str, reference: Reference | None = None) -> list[dict[str, Any]]:
    """Phases of a system in a reference (default: the packaged one), the stable ones first.

    Returns:
        the reference's columns, and ``above_hull`` in eV/atom.
    """
    from model.thermodynamics.reference import packaged_reference
    from model.thermodynamics.stability import Stability

    reference = reference or packaged_reference()
    stability = Stability(reference, system)
    rows = [
        row | {"above_hull": float(stability.decomposition(row["formula"], row["energy_per_atom"]).e_d)}
        for row in reference.of_system(stability.elements).to_dict("records")
    ]
    return sorted(rows, key=lambda row: row["above_hull"])


def reference_table(system: str, reference: Reference | None = None) -> Table:
    """Table of the `phases` of a system; its last column says whether the library has the crystal of a phase."""
    from model.crystals.composition import parse_system
    from model.library.phases import packaged_library
    from model.thermodynamics.reference import packaged_reference

    reference, library = reference or packaged_reference(), packaged_library()
    rows = phases(system, reference)
    title = f"{'-'.join(parse_system(system))} in {reference.name} ({reference.potential})"
    table = Table(title=title, title_justify="left")
    for name in ("material", "formula", "E eV/atom", "above hull meV/atom", "V Å³/atom", "relaxed", "crystal"):
        table.add_column(name, justify="left" if name in ("material", "formula") else "right")
    for row in rows:
        table.add_row(
            row["material_id"],
            row["formula"],
            f"{row['energy_per_atom']:.4f}",
            f"{round(1e3 * row['above_hull'], 1) + 0.0:.1f}",
            f"{row['volume_per_atom']:.2f}",
            "yes" if row["relaxed"] else "no",
            "yes" if row["material_id"] in library else "no",
        )
    return table
