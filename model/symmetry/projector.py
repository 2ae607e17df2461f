"""Keep the space group of a crystal while it relaxes, by averaging forces and strains over the group's operations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.crystals.crystal import Crystal
from model.symmetry.action import SymmetryAction
from model.symmetry.space_group import onto_group


@dataclass(frozen=True, eq=False)
class Projector:
    """Projects displacements and strains of one crystal onto those that keep its space group.

    Attributes:
        rotations: (G, 3, 3) of Cartesian rows, ``v' = v @ rotation``, one for each operation.
        targets: (G, n) atom that each operation maps each atom to.
        action: the same for periodic images, where known.
    """

    rotations: Tensor
    targets: Tensor
    action: SymmetryAction | None = None

    @property
    def orbits(self) -> int:
        """Number of orbits of atoms, of which a potential has to look at one atom each; all atoms without an action."""
        return self.targets.shape[1] if self.action is None else len(np.unique(self.action.first))

    def atoms(self, vectors: Tensor) -> Tensor:
        """(n, 3) average of the vectors of the atoms over the operations."""
        rotated = torch.einsum("ni,gij->gnj", vectors, self.rotations).flatten(0, 1)
        return torch.zeros_like(vectors).index_add_(0, self.targets.flatten(), rotated) / len(self.rotations)

    def to(self, like: Tensor) -> Projector:
        """The same with the device and dtype of ``like``."""
        return Projector(self.rotations.to(like), self.targets.to(like.device), self.action)

    def cell(self, tensor: Tensor) -> Tensor:
        """(3, 3) average of a tensor over the operations."""
        return (self.rotations.mT @ tensor @ self.rotations).mean(0)


def symmetric_start(
    crystal: Crystal, free: np.ndarray, *, symprec: float, device: torch.device
) -> tuple[Crystal, Projector | None]:
    """The crystal exactly on the space group that it has within ``symprec`` Å, and the projector that keeps it there.

    Operations that map free atoms (``free``, (n,) bool) to fixed ones are left out. Where only the identity is left,
    the crystal comes back as it is, with None.
    """
    sound = len(crystal) > 0 and np.isfinite(crystal.fractional).all() and np.isfinite(crystal.lattice).all()
    found = onto_group(crystal, symprec) if sound and crystal.volume > 1e-6 else None
    if found is None:
        return crystal, None
    symmetric, every = found
    kept = [(rotation, to) for rotation, to in every if np.array_equal(free[to], free)]
    if len(kept) < 2:
        return crystal, None
    rotations, targets = (np.stack(column) for column in zip(*kept, strict=True))
    action = SymmetryAction.of(symmetric, rotations, targets)
    return symmetric, Projector(torch.from_numpy(rotations).to(device), torch.from_numpy(targets).to(device), action)
