"""How the operations of space groups permute the atoms of a crystal, periodic images included, in whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.crystals.crystal import Crystal

CELLS = 1 << 9  # cells to either side that a bond's key can tell apart
ATOMS = 1 << 16  # atoms that it can tell apart


@dataclass(frozen=True, eq=False, kw_only=True)
class SymmetryAction:
    """How symmetry operations permute the atoms of one crystal, or of several (`joined`), periodic images included.

    ``targets`` and ``cells`` are tables with one row for each pair of an operation g and an atom i of the same crystal.

    Attributes:
        rotations: (G, 3, 3) int64, of cell indices: cell c becomes cell ``c @ rotations[g]``.
        row: (G,) the row of operation g and atom i is ``row[g] + i``.
        targets: (rows,) the atom that the operation maps the atom to.
        cells: (rows, 3) by how many cells it moves the atom further than it moves the crystal's first atom.
        first: (n,) lowest atom of each atom's orbit, the orbit's representative.
        order: (n,) number of operations of each atom's crystal.
        to_representative, begin: ``to_representative[begin[i] : begin[i + 1]]`` are the operations that map atom i to
            the representative of its orbit.
    """

    rotations: np.ndarray
    row: np.ndarray
    targets: np.ndarray
    cells: np.ndarray
    first: np.ndarray
    order: np.ndarray
    to_representative: np.ndarray
    begin: np.ndarray

    @classmethod
    def of(cls, crystal: Crystal, rotations: np.ndarray, targets: np.ndarray) -> SymmetryAction | None:
        """The action of rotations (G, 3, 3) of Cartesian rows that map atoms to the atoms ``targets`` (G, n).

        None where an atom lies so far outside the cell that the keys of bonds would run out.
        """
        if np.abs(crystal.fractional).max() > CELLS / 16:
            return None
        order, atoms = targets.shape
        whole = np.rint(crystal.lattice @ rotations @ np.linalg.inv(crystal.lattice))
        step = crystal.fractional @ whole - crystal.fractional[targets]
        cells = np.rint(step - step[:, :1]).astype(np.int64)
        first = targets.min(0)
        atom, to_representative = np.nonzero((targets == first).T)
        return cls(
            rotations=whole.astype(np.int64),
            row=np.arange(order) * atoms,
            targets=targets.ravel(),
            cells=cells.reshape(-1, 3),
            first=first,
            order=np.full(atoms, order),
            to_representative=to_representative,
            begin=np.searchsorted(atom, np.arange(atoms + 1)),
        )

    @classmethod
    def joined(cls, actions: Sequence[SymmetryAction]) -> SymmetryAction:
        """The action on a batch of crystals, with atoms, operations and rows numbered through."""
        sizes = [(len(a.first), len(a.rotations), len(a.targets), len(a.to_representative)) for a in actions]
        before = np.concatenate([np.zeros((1, 4), dtype=np.int64), np.cumsum(sizes, 0)])
        parts = [(action, *row) for action, row in zip(actions, before.tolist(), strict=False)]
        return cls(
            rotations=np.concatenate([a.rotations for a in actions]),
            row=np.concatenate([a.row + row - atom for a, atom, _, row, _ in parts]),
            targets=np.concatenate([a.targets + atom for a, atom, _, _, _ in parts]),
            cells=np.concatenate([a.cells for a in actions]),
            first=np.concatenate([a.first + atom for a, atom, _, _, _ in parts]),
            order=np.concatenate([a.order for a in actions]),
            to_representative=np.concatenate([a.to_representative + operation for a, _, operation, _, _ in parts]),
            begin=np.concatenate([*(a.begin[:-1] + start for a, _, _, _, start in parts), before[-1:, 3]]),
        )

    def seen(self, center: np.ndarray, neighbor: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Directed bonds, moved by every operation that maps their center to the representative of its orbit.

        Args:
            center, neighbor, cell: (E,), (E,), (E, 3); the neighbour's cell relative to the center's.

        Returns:
            where the keys of each bond begin (E,), and the `bond_key` of every bond that it is moved to.
        """
        begin, many = self.begin[center], np.diff(self.begin)[center]
        start = np.cumsum(many) - many
        bond = np.repeat(np.arange(len(center)), many)
        operation = self.to_representative[np.arange(len(bond)) + (begin - start)[bond]]
        here, there = self.row[operation] + center[bond], self.row[operation] + neighbor[bond]
        image = np.einsum("ei,eij->ej", cell[bond], self.rotations[operation]) + self.cells[there] - self.cells[here]
        return start, bond_key(self.targets[here], self.targets[there], image)


def bond_key(center: np.ndarray, neighbor: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """(E,) one number for center, neighbor (E,) and the neighbour's cell (E, 3) relative to the center's."""
    x, y, z = (cell + CELLS).T
    key: np.ndarray = (((center * ATOMS + neighbor) * (2 * CELLS) + x) * (2 * CELLS) + y) * (2 * CELLS) + z
    return key
