"""The one crystal type of the project.

Conventions everywhere: lattice rows are the cell vectors (Å), positions are fractional unless a name says
``cartesian``, and ``cartesian = fractional @ lattice``.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as _replace
from functools import lru_cache
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from pymatgen.core import Composition, Structure


@dataclass(frozen=True, eq=False)
class Crystal:
    """A periodic crystal; it is never changed in place, `replace` makes a new one.

    Attributes:
        lattice: (3, 3) float64, rows are cell vectors in Å.
        fractional: (n, 3) float64 fractional coordinates, not necessarily wrapped to [0, 1).
        numbers: (n,) int64 atomic numbers.

    Example:
        >>> salt = Crystal(2.82 * (1 - np.eye(3)), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
        >>> salt.formula, len(salt), round(salt.volume, 2)
        ('NaCl', 2, 44.85)
    """

    lattice: np.ndarray
    fractional: np.ndarray
    numbers: np.ndarray

    def __post_init__(self) -> None:
        for name, kind, shape in (
            ("lattice", float, (3, 3)),
            ("fractional", float, (-1, 3)),
            ("numbers", np.int64, (-1,)),
        ):
            array = np.array(getattr(self, name), dtype=kind).reshape(shape)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if len(self.numbers) != len(self.fractional):
            raise ValueError(f"{len(self.numbers)} atomic numbers for {len(self.fractional)} positions")
        if len(self.numbers) and not (self.numbers.min() >= 1 and self.numbers.max() <= 118):
            raise ValueError(f"atomic numbers must lie in 1..118, got {self.numbers.min()}..{self.numbers.max()}")

    def __len__(self) -> int:
        return len(self.numbers)

    def replace(self, **changes: Any) -> Crystal:
        """Return a copy with the named fields changed."""
        return _replace(self, **changes)

    @property
    def cartesian(self) -> np.ndarray:
        """(n, 3) Cartesian positions in Å."""
        return self.fractional @ self.lattice

    @property
    def volume(self) -> float:
        """Cell volume in Å³ (always positive)."""
        return float(abs(np.linalg.det(self.lattice)))

    @property
    def symbols(self) -> list[str]:
        """Element symbol of each atom."""
        return [chemical_symbols[z] for z in self.numbers]

    @property
    def composition(self) -> Composition:
        """The cell's content as a pymatgen Composition."""
        return Composition("".join(self.symbols)) if len(self) else Composition()

    @property
    def formula(self) -> str:
        """Reduced formula, for example ``Li5Si2``."""
        return reduced_formula("".join(self.symbols))

    def wrapped(self) -> Crystal:
        """Return the same crystal with fractional coordinates in [0, 1)."""
        return self.replace(fractional=self.fractional - np.floor(self.fractional))

    def select(self, mask: np.ndarray) -> Crystal:
        """Return the atoms where the boolean ``mask`` (n,) is true, in the same cell."""
        return self.replace(fractional=self.fractional[mask], numbers=self.numbers[mask])

    def join(self, other: Crystal) -> Crystal:
        """Return this crystal with the atoms of ``other`` appended, in this crystal's cell."""
        return self.replace(
            fractional=np.concatenate([self.fractional, other.fractional]),
            numbers=np.concatenate([self.numbers, other.numbers]),
        )

    @property
    def identity(self) -> str:
        """16 hexadecimal digits that depend on the exact numbers stored (not on symmetry or origin)."""
        digest = hashlib.blake2b(digest_size=8)
        for array in (self.lattice, self.fractional, self.numbers):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def to_bytes(self) -> bytes:
        """The exact numbers, in 25 bytes per atom and 72 for the lattice."""
        places = np.concatenate([self.lattice.ravel(), self.fractional.ravel()])
        return places.tobytes() + self.numbers.astype(np.uint8).tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> Crystal:
        """Inverse of `to_bytes`."""
        n = (len(content) - 72) // 25
        lattice, fractional = np.frombuffer(content, count=9), np.frombuffer(content, count=3 * n, offset=72)
        return cls(lattice, fractional, np.frombuffer(content, np.uint8, offset=72 + 24 * n))

    @classmethod
    def from_pymatgen(cls, structure: Structure) -> Crystal:
        """Convert an ordered pymatgen Structure; raises ValueError if a site is partially occupied.

        >>> from pymatgen.core import Lattice
        >>> structure = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
        >>> Crystal.from_pymatgen(structure).symbols
        ['Cs', 'Cl']
        """
        if not structure.is_ordered:
            sites = [
                f"{s.species_string} at {np.round(s.frac_coords, 3).tolist()}" for s in structure if not s.is_ordered
            ]
            raise ValueError(
                f"partially occupied sites are not supported: {'; '.join(sites[:3])}. Order the structure first."
            )
        return cls(structure.lattice.matrix, structure.frac_coords, np.array([site.specie.Z for site in structure]))

    def to_pymatgen(self) -> Structure:
        """Convert to a pymatgen Structure."""
        return Structure(self.lattice, self.symbols, self.fractional)

    @classmethod
    def from_ase(cls, atoms: Atoms) -> Crystal:
        """Convert a fully periodic ASE Atoms object."""
        return cls(atoms.cell.array, atoms.cell.scaled_positions(atoms.positions), atoms.numbers)

    def to_ase(self) -> Atoms:
        """Convert to ASE Atoms."""
        return Atoms(numbers=self.numbers, cell=self.lattice, scaled_positions=self.fractional, pbc=True)


def cells(crystals: Sequence[Crystal]) -> np.ndarray:
    """Stack the lattices of several crystals: (B, 3, 3) in Å."""
    return np.stack([crystal.lattice for crystal in crystals])


@lru_cache(maxsize=10_000)
def reduced_formula(formula: str) -> str:
    """The reduced formula as pymatgen writes it, for example ``Li5Si2`` for ``Li10Si4``; molecules stay: ``O2``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No Pauling electronegativity")  # pymatgen sorts He, Ne and Ar by it
        return (Composition(formula) if formula else Composition()).reduced_formula
