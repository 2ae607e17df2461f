"""Sites of one element that two others share in an ordered way, such as the two metals of a double perovskite."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from model.crystals.crystal import Crystal
from model.crystals.periodic_images import reduced_cell
from model.generation.disorder import Disordered, most_symmetric
from model.symmetry.space_group import SYMPREC, symmetry_dataset

SUPERCELLS = 3  # of one size, the most compact ones
COMPARED = 12  # arrangements in a supercell whose space groups are compared
KEPT = 4  # arrangements on the sites of a phase, the most symmetric ones


@dataclass(frozen=True)
class Split:
    """Sites of one element that are given to two others.

    Attributes:
        element: atomic number of the element whose sites they are.
        content: (atomic number, atoms in the cell that is made) of the two others.
        cells: cells of the phase in the one that is made.
        rank: which arrangement, 0 for the most symmetric one.
    """

    element: int
    content: tuple[tuple[int, int], tuple[int, int]]
    cells: int
    rank: int


def divided(crystal: Crystal, split: Split) -> tuple[Crystal, np.ndarray]:
    """The crystal in the cell that is made, and (n,) the atomic numbers on the sites that are shared, 0 elsewhere.

    Beyond the last arrangement, they are taken in turn again.

    Raises:
        ValueError: the element has not as many sites as there are atoms.
    """
    choices = _arrangements(crystal.to_bytes(), split.element, split.content, split.cells)
    cell, numbers = choices[split.rank % len(choices)]
    return Crystal.from_bytes(cell), numbers


@lru_cache(maxsize=256)
def _arrangements(
    content: bytes, element: int, shared: tuple[tuple[int, int], ...], cells: int
) -> list[tuple[bytes, np.ndarray]]:
    found: list[tuple[bool, int, bytes, np.ndarray]] = []
    for cell in supercells(Crystal.from_bytes(content), cells):
        mine = cell.numbers == element
        if mine.sum() != sum(count for _, count in shared):
            raise ValueError(f"{mine.sum()} sites cannot be shared by {dict(shared)}")
        disordered = Disordered(
            lattice=cell.lattice,
            fractional=cell.fractional,
            fixed=np.where(mine, 0, cell.numbers),
            groups=[(np.flatnonzero(mine), dict(shared))],
            occupancy={},
        )
        for numbers in most_symmetric(disordered, COMPARED):
            on_sites = np.where(mine, numbers, 0)
            found.append((*_symmetry(cell, on_sites), cell.to_bytes(), on_sites))
    found.sort(key=lambda one: one[:2], reverse=True)
    return [(cell, numbers) for _, _, cell, numbers in found[:KEPT]]


def _symmetry(cell: Crystal, shared: np.ndarray) -> tuple[bool, int]:
    """Whether no smaller cell holds the arrangement, and its number of operations."""
    kinds = np.unique(shared, return_inverse=True)[1]
    labelled = cell.replace(numbers=np.where(shared > 0, 110 + kinds, cell.numbers))  # no element of the rest
    dataset = symmetry_dataset(labelled, SYMPREC, -1.0)
    if dataset is None:
        return True, 1
    return len(np.unique(dataset.mapping_to_primitive)) == len(cell), len(dataset.rotations)


def supercells(crystal: Crystal, cells: int) -> list[Crystal]:
    """Supercells of so many cells, the most compact ones, at most `SUPERCELLS` of different shape."""
    if cells == 1:
        return [crystal]
    shapes: dict[tuple[float, ...], tuple[float, np.ndarray]] = {}
    for matrix in _hermite(cells):
        reduced, change = reduced_cell(matrix @ crystal.lattice)
        lengths = np.sort(np.linalg.norm(reduced, axis=1))
        shapes.setdefault(tuple(lengths.round(2)), (float(lengths.sum()), np.rint(change @ matrix).astype(int)))
    compact = sorted(shapes.values(), key=lambda one: one[0])[:SUPERCELLS]
    return [_repeated(crystal, matrix) for _, matrix in compact]


def _hermite(index: int) -> list[np.ndarray]:
    """The (3, 3) whole matrices in Hermite normal form of a determinant: one for each sublattice."""
    return [
        np.array([[a, 0, 0], [b, c, 0], [d, e, index // (a * c)]])
        for a in range(1, index + 1)
        if index % a == 0
        for c in range(1, index // a + 1)
        if (index // a) % c == 0
        for b in range(a)
        for d in range(a)
        for e in range(c)
    ]


def _repeated(crystal: Crystal, matrix: np.ndarray) -> Crystal:
    """The crystal in the cell whose vectors are ``matrix`` times its own."""
    made = crystal.to_pymatgen().make_supercell(matrix, in_place=False)
    return Crystal.from_pymatgen(made)
