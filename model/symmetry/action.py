"""What the operations of space groups do to atoms, image by image, in whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.crystals.crystal import Crystal

CELLS = 1 << 9  # cells in either direction that a key can tell apart
ATOMS = 1 << 16  # atoms that it can tell apart


@dataclass(frozen=True, eq=False)
class Action:
    """What the operations of space groups do to the atoms of one crystal, or of several (`joined`), image by image.

    Attributes:
        turns: (G, 3, 3) whole numbers; cell c is carried to cell ``c @ turn`` and as far as its atom is.
        row: (G,) ``row[g] + i`` is where the two tables say what operation g does to atom i.
        targets: the atom that it is carried to.
        cells: (..., 3) how many cells further than the first atom of its crystal it is carried.
        first: (n,) lowest atom of each atom's orbit.
        order: (n,) operations of each atom's crystal.
        carriers, begin: ``carriers[begin[i] : begin[i + 1]]`` are the operations that carry atom i to the first one.
    """

    turns: np.ndarray
    row: np.ndarray
    targets: np.ndarray
    cells: np.ndarray
    first: np.ndarray
    order: np.ndarray
    carriers: np.ndarray
    begin: np.ndarray

    @classmethod
    def of(cls, crystal: Crystal, turns: np.ndarray, targets: np.ndarray) -> Action | None:
        """The action of rotations (G, 3, 3) of Cartesian rows, and (G, n) the atoms that atoms are carried to.

        None where an atom lies so far outside the cell that bonds could not be told apart.
        """
        if np.abs(crystal.fractional).max() > CELLS / 16:
            return None
        order, atoms = targets.shape
        whole = np.rint(crystal.lattice @ turns @ np.linalg.inv(crystal.lattice))
        step = crystal.fractional @ whole - crystal.fractional[targets]
        cells = np.rint(step - step[:, :1]).astype(np.int64)
        first = targets.min(0)
        atom, carriers = np.nonzero((targets == first).T)
        return cls(
            whole.astype(np.int64),
            np.arange(order) * atoms,
            targets.ravel(),
            cells.reshape(-1, 3),
            first,
            np.full(atoms, order),
            carriers,
            np.searchsorted(atom, np.arange(atoms + 1)),
        )

    @classmethod
    def joined(cls, actions: Sequence[Action]) -> Action:
        """The action on a batch, its atoms and operations counted through."""
        sizes = [(len(a.first), len(a.turns), len(a.targets), len(a.carriers)) for a in actions]
        before = np.concatenate([np.zeros((1, 4), dtype=np.int64), np.cumsum(sizes, 0)])
        parts = [(action, *row) for action, row in zip(actions, before.tolist(), strict=False)]
        return cls(
            turns=np.concatenate([a.turns for a in actions]),
            row=np.concatenate([a.row + table - atom for a, atom, _, table, _ in parts]),
            targets=np.concatenate([a.targets + atom for a, atom, _, _, _ in parts]),
            cells=np.concatenate([a.cells for a in actions]),
            first=np.concatenate([a.first + atom for a, atom, _, _, _ in parts]),
            order=np.concatenate([a.order for a in actions]),
            carriers=np.concatenate([a.carriers + turn for a, _, turn, _, _ in parts]),
            begin=np.concatenate([*(a.begin[:-1] + start for a, _, _, _, start in parts), before[-1:, 3]]),
        )

    def seen(self, center: np.ndarray, neighbor: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Directed bonds, carried by every operation that brings their center to the first atom of its orbit.

        Args:
            center, neighbor, cell: (E,), (E,), (E, 3); the neighbour's cell relative to the center's.

        Returns:
            where each bond's keys begin (E,), and a key of whatever a bond becomes.
        """
        begin, many = self.begin[center], np.diff(self.begin)[center]
        start = np.cumsum(many) - many
        bond = np.repeat(np.arange(len(center)), many)
        operation = self.carriers[np.arange(len(bond)) + (begin - start)[bond]]
        here, there = self.row[operation] + center[bond], self.row[operation] + neighbor[bond]
        image = np.einsum("ei,eij->ej", cell[bond], self.turns[operation]) + self.cells[there] - self.cells[here]
        return start, bond_key(self.targets[here], self.targets[there], image)


def bond_key(center: np.ndarray, neighbor: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """(E,) one number for center, neighbor (E,) and the neighbour's cell (E, 3) relative to the center's."""
    x, y, z = (cell + CELLS).T
    key: np.ndarray = (((center * ATOMS + neighbor) * (2 * CELLS) + x) * (2 * CELLS) + y) * (2 * CELLS) + z
    return key
