"""Tables for the terminal: ranked candidates and reference phases."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from rich.table import Table

from model.crystals.composition import parse_system
from model.library.phases import packaged_library
from model.thermodynamics.reference import Reference, packaged_reference
from model.thermodynamics.stability import Stability
from search.storage.ranking import remark


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
        table.add_column(name, justify="right" if name in numbers else "left")
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
            " + ".join(f"{share:.2f} {name}" for name, share in row["products"].items()),
            remark(row),
            *([verdicts.get(row["candidate"], "")] if verdicts else []),
        )
    return table


def _text(value: object) -> str:
    """Value of a string column; pandas gives NaN if there is none."""
    return value if isinstance(value, str) else ""


def reference_table(system: str) -> Table:
    """Table of the phases of a system in the packaged reference, with their energies above its hull."""
    return phases_table(packaged_reference(), system)


def phases_table(reference: Reference, system: str) -> Table:
    """Table of the phases of a system in a reference, with their energies above its hull.

    Its last column says whether the library has the crystal of a phase.
    """
    stability, library = Stability(reference, system), packaged_library()
    title = f"{'-'.join(parse_system(system))} in {reference.name} ({reference.potential})"
    table = Table(title=title, title_justify="left")
    for name in ("material", "formula", "E eV/atom", "above hull meV/atom", "V Å³/atom", "relaxed", "crystal"):
        table.add_column(name, justify="left" if name in ("material", "formula") else "right")
    rows = [
        (stability.decomposition(phase.formula, phase.energy_per_atom).e_d, phase)
        for phase in reference.of_system(stability.elements).itertuples()
    ]
    for above, phase in sorted(rows, key=lambda pair: pair[0]):
        table.add_row(
            phase.material_id,
            phase.formula,
            f"{phase.energy_per_atom:.4f}",
            f"{round(1e3 * above, 1) + 0.0:.1f}",
            f"{phase.volume_per_atom:.2f}",
            "yes" if phase.relaxed else "no",
            "yes" if phase.material_id in library else "no",
        )
    return table
