"""Ranking of results, tables for the terminal, CIF files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from rich.table import Table

from model.composition import CellFormula, parse_system
from model.crystal import Crystal
from model.distinct import DistinctCrystals, DistinctSettings
from model.reference import packaged_reference
from model.stability import Stability
from model.symmetry import EXACT, refine
from search.results import required


def rank(
    frame: pd.DataFrame, *, top: int, formula: str | None = None, stage: str | None = None, distinct: bool = True,
    e_d_below: float | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The ``top`` relaxed candidates of lowest E_d (eV/atom); of equal crystals only the best if ``distinct``."""
    chosen = frame[(frame["status"] == "relaxed") & frame["e_d"].notna()]
    if formula is not None:
        wanted = CellFormula.parse(formula).reduced
        chosen = chosen[chosen["formula"] == wanted]
    if stage is not None:
        chosen = chosen[chosen["stage"] == stage]
    if e_d_below is not None:
        chosen = chosen[chosen["e_d"] <= e_d_below]
    if not distinct:
        return chosen.head(top)
    known, keep = DistinctCrystals(DistinctSettings(same_space_group=True)), []
    for index, row in chosen.iterrows():
        number = row["space_group_number"]
        if known.add(required(row["final"]), None if pd.isna(number) else int(number)) is None:
            keep.append(index)
        if len(keep) == top:
            break
    return chosen.loc[keep]


def results_table(best: pd.DataFrame) -> Table:
    """Ranked candidates for the terminal."""
    table = Table(title="Lowest decomposition energies (CHGNet)", title_justify="left")
    for name in ("#", "formula", "atoms", "space group", "E_d meV/atom", "stage", "host group", "decomposes into"):
        table.add_column(name, justify="right" if name in ("#", "atoms", "E_d meV/atom") else "left")
    for position, row in enumerate(best.to_dict("records"), start=1):
        table.add_row(
            str(position),
            row["formula"],
            str(row["n_atoms"]),
            _text(row["space_group"]),
            f"{round(1e3 * row['e_d'], 1) + 0.0:.1f}",
            row["stage"],
            _text(row["framework_space_group"]),
            " + ".join(f"{share:.2f} {name}" for name, share in row["products"].items()),
        )
    return table


def _text(value: object) -> str:
    """A string column's value; pandas has NaN where there is none."""
    return value if isinstance(value, str) else ""


def conventional_cell(crystal: Crystal) -> Structure:
    """What people know a crystal by: the conventional cell of its space group at the paper's tolerance."""
    refined = refine(crystal)
    structure = (refined.parent if refined else crystal).to_pymatgen()
    return SpacegroupAnalyzer(structure, symprec=EXACT).get_conventional_standard_structure()


def cif_text(crystal: Crystal) -> str:
    """A crystal as CIF with the symmetry that it has at the paper's tolerance, its atoms moved onto it exactly."""
    refined = refine(crystal)
    structure = (refined.parent if refined else crystal).to_pymatgen()
    return str(CifWriter(structure, symprec=EXACT if refined else None))


def write_cif(crystal: Crystal, path: Path) -> None:
    """Write `cif_text`."""
    path.write_text(cif_text(crystal))


def crystal_name(row: Mapping[str, Any]) -> str:
    """File name that tells formula, space group, E_d and candidate; never one that leads to another folder."""
    group = _text(row["space_group"]) or "P1"
    name = f"{row['formula']}_{group}_{round(1e3 * row['e_d']):+d}meV_{row['candidate']}"
    return re.sub(r"[^\w.+-]", "_", name)


def write_cifs(best: pd.DataFrame, folder: Path) -> list[Path]:
    """Write one CIF a row, with symmetry where there is any; the name tells rank, formula, space group and E_d."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9][0-9][0-9]*_*meV_*.cif"):
        old.unlink()
    paths = []
    for position, row in enumerate(best.to_dict("records"), start=1):
        path = folder / f"{position:03d}_{crystal_name(row)}.cif"
        write_cif(required(row["final"]), path)
        paths.append(path)
    return paths


def reference_table(system: str) -> Table:
    """Phases of a system in the packaged reference with their distance from its hull."""
    reference = packaged_reference()
    stability = Stability(reference, system)
    table = Table(title=f"{'-'.join(parse_system(system))} in {reference.name}", title_justify="left")
    for name in ("material", "formula", "E eV/atom", "above hull meV/atom", "V Å³/atom", "relaxed"):
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
        )
    return table
