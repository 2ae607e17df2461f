"""Writing crystals as CIF files, with their symmetry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from model.crystals.crystal import Crystal
from model.symmetry.space_group import EXACT, REPORTED, refine
from search.storage.rows import unpack_or_raise


def conventional_cell(crystal: Crystal, symprec: float = REPORTED, angle_tolerance: float = -1.0) -> Structure:
    """The conventional cell of the space group that a crystal has at this tolerance (Å, degrees)."""
    refined = refine(crystal, symprec, angle_tolerance)
    structure = (refined.parent if refined else crystal).to_pymatgen()
    return SpacegroupAnalyzer(structure, symprec=EXACT, angle_tolerance=-1).get_conventional_standard_structure()


def cif_text(crystal: Crystal, symprec: float = REPORTED, angle_tolerance: float = -1.0) -> str:
    """A crystal as CIF with the symmetry that it has at this tolerance; the atoms are moved to satisfy it exactly."""
    refined = refine(crystal, symprec, angle_tolerance)
    structure = (refined.parent if refined else crystal).to_pymatgen()
    return str(CifWriter(structure, symprec=EXACT if refined else None, angle_tolerance=-1))


def write_cif(crystal: Crystal, path: Path, symprec: float = REPORTED, angle_tolerance: float = -1.0) -> None:
    """Write a crystal as a CIF file, see `cif_text`."""
    path.write_text(cif_text(crystal, symprec, angle_tolerance))


def tolerances(row: Mapping[str, Any]) -> tuple[float, float]:
    """Å and degrees at which the space group of a candidate was found."""
    return (row["symprec"], row["angle_tolerance"]) if isinstance(row["space_group"], str) else (REPORTED, -1.0)


def crystal_name(row: Mapping[str, Any]) -> str:
    """File name made of formula, space group, E_d and candidate; safe, without slashes."""
    group = row["space_group"] if isinstance(row["space_group"], str) else "P1"  # pandas gives NaN if there is none
    name = f"{row['formula']}_{group}_{round(1e3 * row['e_d']):+d}meV_{row['candidate']}"
    return re.sub(r"[^\w.+-]", "_", name)


def write_cifs(best: pd.DataFrame, folder: Path) -> list[Path]:
    """Write one CIF per row, named by rank, formula, space group, E_d and candidate; replaces earlier ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9][0-9][0-9]*_*meV_*.cif"):
        old.unlink()
    paths = []
    for position, row in enumerate(best.to_dict("records"), start=1):
        path = folder / f"{position:03d}_{crystal_name(row)}.cif"
        write_cif(unpack_or_raise(row["final"]), path, *tolerances(row))
        paths.append(path)
    return paths
