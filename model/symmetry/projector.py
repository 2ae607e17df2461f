"""Keep the space group of a crystal while it relaxes: average what moves it over the group's operations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.crystals.crystal import Crystal
from model.symmetry.action import Action
from model.symmetry.space_group import onto_group


@dataclass(frozen=True, eq=False)
class Projector:
    """Projects displacements and strains of one crystal onto those that keep its space group.

    Attributes:
        turns: (G, 3, 3) the operations' rotations of Cartesian rows, ``v' = v @ turn``.
        targets: (G, n) atom that each atom is carried to.
        action: the same image by image, where known.
    """

    turns: Tensor
    targets: Tensor
    action: Action | None = None

    @property
    def orbits(self) -> int:
        """Orbits of atoms that a potential has to look at."""
        return self.targets.shape[1] if self.action is None else len(np.unique(self.action.first))

    def atoms(self, vectors: Tensor) -> Tensor:
        """(n, 3) average of the vectors of the atoms over the operations."""
        turned = torch.einsum("ni,gij->gnj", vectors, self.turns).flatten(0, 1)
        return torch.zeros_like(vectors).index_add_(0, self.targets.flatten(), turned) / len(self.turns)

    def to(self, like: Tensor) -> Projector:
        """The same with the device and dtype of ``like``."""
        return Projector(self.turns.to(like), self.targets.to(like.device), self.action)

    def cell(self, tensor: Tensor) -> Tensor:
        """(3, 3) average of a tensor over the operations."""
        return (self.turns.mT @ tensor @ self.turns).mean(0)


def symmetric_start(
    crystal: Crystal, free: np.ndarray, *, symprec: float, device: torch.device
) -> tuple[Crystal, Projector | None]:
    """The crystal exactly on the space group that it has within ``symprec`` Å, and the projector that keeps it there.

    Operations that carry free atoms to fixed ones are left out. Without any operation but the identity the crystal
    comes back as it is, with None.
    """
    sound = len(crystal) > 0 and np.isfinite(crystal.fractional).all() and np.isfinite(crystal.lattice).all()
    found = onto_group(crystal, symprec) if sound and crystal.volume > 1e-6 else None
    if found is None:
        return crystal, None
    symmetric, every = found
    kept = [(turn, to) for turn, to in every if np.array_equal(free[to], free)]
    if len(kept) < 2:
        return crystal, None
    turns, targets = (np.stack(column) for column in zip(*kept, strict=True))
    action = Action.of(symmetric, turns, targets)
    return symmetric, Projector(torch.from_numpy(turns).to(device), torch.from_numpy(targets).to(device), action)
