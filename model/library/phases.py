"""Reading the library of known phases.

The packaged file holds the phases of the Materials Project (version 2025.02.12, CC BY 4.0, A. Jain et al., APL
Materials 1, 011002 (2013)) within 10 meV/atom of the hull of single points, with the database's own geometry. What is
small of every phase is read when it is first needed, geometries when the first crystal is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pymatgen.core import Composition, Lattice

from model.crystals.crystal import Crystal, reduced_formula
from model.crystals.matching import KNOWN, DistinctCrystals, distance_fingerprints
from model.files import DATA
from model.symmetry.space_group import REPORTED, SYMPREC, space_group, symmetrised

PACKAGED = DATA / "known-phases.parquet"
ABOUT = b"library"  # the key of the file's metadata
SCALE = 65520  # steps per cell vector of stored coordinates, so that 1/2, 1/3, 1/4, 1/5, 1/7 and 1/8 are exact
LISTED = ("material_id", "formula", "system", "anonymous", "n_atoms", "space_group", "e_above_hull")
GEOMETRY = ("cell", "atomic_numbers", "frac_coords")


@dataclass(frozen=True)
class Phase:
    """A known phase.

    Attributes:
        material_id: identifier, such as ``mp-20361``.
        formula: reduced.
        n_atoms: in its cell.
        space_group: its number, at 0.01 Å.
        e_above_hull: eV/atom, of single points with CHGNet 0.3.0.
    """

    material_id: str
    formula: str
    n_atoms: int
    space_group: int
    e_above_hull: float
    _row: int = field(repr=False)
    _geometry: Geometry = field(repr=False, compare=False)

    @cached_property
    def crystal(self) -> Crystal:
        """The phase in the database's cell, moved onto its space group (by less than 0.01 Å)."""
        return self._geometry.crystal(self._row)


class PhaseLibrary:
    """Known phases with their crystals; `packaged_library` is the one that comes with hostguide.

    Opening reads nothing. A phase is decoded when its crystal is asked for.

    Example:
        >>> library = packaged_library()
        >>> library.crystal("mp-149").formula, [phase.formula for phase in library.phases(["Na", "Cl"])][:3]
        ('Si', ['Cl2', 'Na', 'NaCl'])
    """

    def __init__(self, path: str | Path = PACKAGED) -> None:
        self.path = Path(path)

    def __len__(self) -> int:
        return int(self._listed.num_rows)

    def __contains__(self, material_id: str) -> bool:
        return bool(pc.any(pc.equal(self._listed["material_id"], material_id)).as_py())

    @cached_property
    def about(self) -> dict[str, str | float]:
        """``source`` (with licence), ``version`` of the database, ``within`` (eV/atom above the hull), and others.

        Raises:
            ValueError: the file is not a library.
        """
        try:
            metadata = pq.read_schema(self.path).metadata or {}
        except (FileNotFoundError, pa.ArrowInvalid) as error:
            raise ValueError(f"{self.path} is not a library of known phases: {error}") from error
        if ABOUT not in metadata:
            raise ValueError(f"{self.path} is not a library of known phases: `hostguide reference library` makes one")
        found: dict[str, str | float] = json.loads(metadata[ABOUT])
        return found

    def phase(self, material_id: str) -> Phase:
        """The phase with this identifier.

        Raises:
            ValueError: there is none.
        """
        found = self._where("material_id", [material_id])
        if not found:
            raise ValueError(
                f"{material_id} is not in the library of known phases, which has those within "
                f"{1e3 * float(self.about['within']):g} meV/atom of the hull (Materials Project "
                f"{self.about['version']}): give its crystal as a file"
            )
        return found[0]

    def crystal(self, material_id: str) -> Crystal:
        """The crystal of a phase; errors as `phase`."""
        return self.phase(material_id).crystal

    def phases(self, elements: Iterable[str]) -> list[Phase]:
        """All phases made of these elements only: the lowest above the hull first, then by formula and identifier.

        Args:
            elements: symbols.
        """
        found = self._where("system", subsystems(elements))
        return sorted(found, key=lambda phase: (phase.e_above_hull, phase.formula, phase.material_id))

    def find(self, formula: str) -> list[Phase]:
        """The phases of a formula (reduced or not), the lowest above the hull first."""
        return self._where("formula", [reduced_formula(formula)])

    def of_stoichiometry(self, anonymous: str, n_atoms: int | None = None) -> list[Phase]:
        """The phases whose reduced formula has these counts, such as ``ABC3``, whatever their elements.

        Args:
            anonymous: as pymatgen's ``Composition.anonymized_formula`` writes it; any formula of this kind, such as
                ``SrTiO3``, does as well.
            n_atoms: in the cell; None for any number.
        """
        found = self._where("anonymous", [Composition(anonymous).anonymized_formula])
        return [phase for phase in found if n_atoms is None or phase.n_atoms == n_atoms]

    def known(self, crystal: Crystal) -> str | None:
        """The identifier of the phase that a crystal is, whatever its cell and origin; None if it is none of these.

        Crystals are equal within `KNOWN`, which allows for a relaxation with another method than the database's, and
        if they have the same space group within 0.01 or 0.1 Å. Of several equal phases it is the most similar one.
        """
        family = self.find(crystal.formula)
        if not family:
            return None
        if crystal.formula not in self._families:
            self._families[crystal.formula] = _distinct(family)
        for symprec, distinct in self._families[crystal.formula].items():
            found = distinct.find(crystal, _group_number(crystal, symprec))
            if found is not None:
                return family[found].material_id
        return None

    def without(self, systems: Iterable[Iterable[str]] = (), formulas: Iterable[str] = ()) -> PhaseLibrary:
        """The library as a blind search sees it: without some phases.

        Args:
            systems: chemical systems, each a collection of symbols; their sub-systems are left out, too.
            formulas: further formulas to leave out.
        """
        hidden = [name for system in systems for name in subsystems(system)]
        reduced = [reduced_formula(formula) for formula in formulas]
        leave = pc.or_(_is_in(self._listed["system"], hidden), _is_in(self._listed["formula"], reduced))
        other = PhaseLibrary(self.path)
        other.__dict__.update(_listed=self._listed.filter(pc.invert(leave)), _geometry=self._geometry)
        return other

    def _where(self, column: str, values: list[str]) -> list[Phase]:
        found = self._listed.filter(_is_in(self._listed[column], values)).drop_columns(["system", "anonymous"])
        return [Phase(**row, _geometry=self._geometry) for row in found.to_pylist()]

    @cached_property
    def material_ids(self) -> frozenset[str]:
        """The identifiers of all its phases."""
        return frozenset(self._listed["material_id"].to_pylist())

    @cached_property
    def _listed(self) -> pa.Table:
        assert self.about  # complains about other files
        table = pq.ParquetFile(self.path).read(list(LISTED))
        return table.append_column("_row", pa.array(np.arange(table.num_rows)))

    @cached_property
    def _families(self) -> dict[str, dict[float, DistinctCrystals]]:
        """The phases of formulas that `known` was asked about."""
        return {}

    @cached_property
    def _geometry(self) -> Geometry:
        return Geometry(self.path)


class Geometry:
    """The cells and atoms of all phases as arrays; read when the first crystal is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(phases, 6) cells, (atoms,) atomic numbers, (atoms, 3) coordinates in steps, (phases + 1,) first atoms."""
        table = pq.ParquetFile(self._path).read(list(GEOMETRY)).combine_chunks()
        cell, numbers, steps = (table[name].chunk(0) for name in GEOMETRY)
        flat = [column.flatten().to_numpy() for column in (cell, numbers, steps)]
        return flat[0].reshape(-1, 6), flat[1], flat[2].reshape(-1, 3), numbers.offsets.to_numpy()

    def crystal(self, row: int) -> Crystal:
        """One crystal, moved onto its space group: stored coordinates are off by up to 2e-4 Å."""
        cells, numbers, steps, first = self._arrays
        atoms = slice(first[row], first[row + 1])
        stored = Crystal(
            Lattice.from_parameters(*cells[row].astype(float)).matrix, steps[atoms] / SCALE, numbers[atoms]
        )
        return symmetrised(stored, REPORTED) or stored


@cache
def packaged_library() -> PhaseLibrary:
    """The library that comes with the package, opened once."""
    return PhaseLibrary()


def subsystems(elements: Iterable[str]) -> list[str]:
    """The chemical system of these elements and all its sub-systems: elements in alphabetical order, with hyphens.

    >>> subsystems(["Si", "Li"])
    ['Li', 'Si', 'Li-Si']
    """
    names = sorted(set(elements))
    return ["-".join(part) for size in range(1, len(names) + 1) for part in combinations(names, size)]


def _distinct(family: list[Phase]) -> dict[float, DistinctCrystals]:
    """The phases of one formula to compare with, by the tolerance (Å) of their space groups."""
    crystals = [phase.crystal for phase in family]
    fingerprints, sets = distance_fingerprints(crystals), {}
    for symprec in (REPORTED, SYMPREC):
        sets[symprec] = DistinctCrystals(KNOWN)
        for crystal, fingerprint in zip(crystals, fingerprints, strict=True):
            sets[symprec].keep(crystal, _group_number(crystal, symprec), fingerprint=fingerprint)
    return sets


def _group_number(crystal: Crystal, symprec: float) -> int | None:
    group = space_group(crystal, symprec, -1.0)
    return None if group is None else group.number


def _is_in(column: pa.ChunkedArray, values: list[str]) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=pa.array(values, pa.string()))
