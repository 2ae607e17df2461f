"""Writing crystals as CIF files, with their symmetry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pandas as pd
import spglib
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter

from model.crystals.crystal import Crystal
from model.symmetry.space_group import REPORTED, SpaceGroup, refine
from search.storage.rows import unpack_or_raise


@dataclass(frozen=True, eq=False, kw_only=True)
class ConventionalCell:
    """A crystal moved onto a space group, in the group's conventional cell, with what a CIF says of its symmetry.

    Attributes:
        crystal: in that cell; the atoms obey the group exactly.
        space_group: the group.
        operations: of the conventional cell, as in ``-x,y+1/2,-z``.
        independent: atoms of which symmetry makes all others, and how many each stands for.
    """

    crystal: Crystal
    space_group: SpaceGroup
    operations: tuple[str, ...]
    independent: dict[int, int]

    @classmethod
    def of(cls, crystal: Crystal, symprec: float = REPORTED, angle_tolerance: float = -1.0) -> ConventionalCell | None:
        """With the group that a crystal has at this tolerance (Å, degrees); None if it has none."""
        refined = refine(crystal, symprec, angle_tolerance)
        if refined is None:
            return None
        data = refined.dataset
        orbit = np.empty(data.mapping_to_primitive.max() + 1, dtype=int)  # of each atom of the primitive cell
        orbit[data.mapping_to_primitive] = data.crystallographic_orbits
        places = data.std_positions.round(10) % 1.0  # 0.999… is 0
        conventional = Crystal(data.std_lattice, places, data.std_types)
        # Of equivalent atoms the one nearest to the origin, as other programs do it: its coordinates are the simplest.
        nearest = np.lexsort(places.round(6).T[::-1])
        orbits = orbit[data.std_mapping_to_primitive][nearest]
        _, first, counts = np.unique(orbits, return_index=True, return_counts=True)
        return cls(
            crystal=conventional,
            space_group=refined.space_group,
            operations=_operations(data.hall_number),
            independent=dict(sorted(zip(nearest[first].tolist(), counts.tolist(), strict=True))),
        )

    @property
    def cif(self) -> str:
        """As the text of a CIF."""
        crystal, document = self.crystal, gemmi.cif.Document()
        composition = crystal.to_pymatgen().composition
        block = document.add_new_block(composition.reduced_formula)
        lengths_and_angles = crystal.to_ase().cell.cellpar()
        names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
        values: dict[str, Any] = {
            "_symmetry_space_group_name_H-M": self.space_group.symbol,
            **{f"_cell_{name}": f"{value:.8f}" for name, value in zip(names, lengths_and_angles, strict=True)},
            "_symmetry_Int_Tables_number": self.space_group.number,
            "_chemical_formula_structural": composition.reduced_formula,
            "_chemical_formula_sum": composition.formula,
            "_cell_volume": f"{crystal.volume:.8f}",
            "_cell_formula_units_Z": round(composition.get_reduced_formula_and_factor()[1]),
        }
        for name, value in values.items():
            block.set_pair(name, gemmi.cif.quote(str(value)))
        operations = block.init_loop("_symmetry_equiv_pos_", ["site_id", "as_xyz"])
        for number, text in enumerate(self.operations, start=1):
            operations.add_row([str(number), gemmi.cif.quote(text)])
        columns = ("type_symbol", "label", "symmetry_multiplicity", "fract_x", "fract_y", "fract_z", "occupancy")
        sites = block.init_loop("_atom_site_", list(columns))
        for index, (atom, count) in enumerate(self.independent.items()):
            symbol, place = crystal.symbols[atom], (f"{x:.8f}" for x in crystal.fractional[atom])
            sites.add_row([symbol, f"{symbol}{index}", str(count), *place, "1"])
        return str(document.as_string())


@lru_cache(maxsize=530)
def _operations(hall_number: int) -> tuple[str, ...]:
    """Operations of a setting of a space group."""
    found: Any = spglib.get_symmetry_from_database(hall_number)
    texts = []
    for rotation, translation in zip(found["rotations"], found["translations"], strict=True):
        operation = gemmi.Op()
        operation.rot = (operation.DEN * rotation).tolist()
        operation.tran = np.rint(operation.DEN * translation).astype(int).tolist()
        texts.append(operation.triplet())
    return tuple(texts)


def conventional_cell(crystal: Crystal, symprec: float = REPORTED, angle_tolerance: float = -1.0) -> Structure:
    """The conventional cell of the space group that a crystal has at this tolerance (Å, degrees)."""
    cell = ConventionalCell.of(crystal, symprec, angle_tolerance)
    return (crystal if cell is None else cell.crystal).to_pymatgen()


def cif_text(crystal: Crystal, symprec: float = REPORTED, angle_tolerance: float = -1.0) -> str:
    """A crystal as CIF with the symmetry that it has at this tolerance; the atoms are moved to satisfy it exactly."""
    cell = ConventionalCell.of(crystal, symprec, angle_tolerance)
    return cell.cif if cell is not None else plain_cif(crystal)


def plain_cif(crystal: Crystal) -> str:
    """A crystal as CIF with all its atoms where they are, without symmetry."""
    return str(CifWriter(crystal.to_pymatgen()))


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
