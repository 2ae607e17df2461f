"""Crystals of unequal size as flat tensors, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from dataclasses import replace as _replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.crystals.crystal import Crystal, cells


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """B crystals with N atoms in all; atoms of one crystal are contiguous.

    Attributes:
        lattice: per crystal, (B, 3, 3) rows are cell vectors in Å.
        positions: per atom, (N, 3) Cartesian in Å, not necessarily inside the cell.
        numbers: per atom, (N,) int64 atomic numbers.
        counts: per crystal, (B,) int64 number of atoms.
        owner: per atom, (N,) int64 index of its crystal.
    """

    lattice: Tensor
    positions: Tensor
    numbers: Tensor
    counts: Tensor
    owner: Tensor

    @classmethod
    def from_crystals(
        cls, crystals: Sequence[Crystal], *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> Batch:
        """Collate crystals; raises ValueError for an empty list or an empty crystal."""
        if not crystals or any(len(crystal) == 0 for crystal in crystals):
            raise ValueError(
                f"a batch needs at least one crystal and one atom in each, got sizes {[len(c) for c in crystals]}"
            )
        counts = torch.tensor([len(crystal) for crystal in crystals])
        return cls(
            lattice=torch.from_numpy(cells(crystals)).to(device, dtype),
            positions=torch.from_numpy(np.concatenate([c.cartesian for c in crystals])).to(device, dtype),
            numbers=torch.from_numpy(np.concatenate([c.numbers for c in crystals])).to(device),
            counts=counts.to(device),
            owner=torch.repeat_interleave(torch.arange(len(crystals)), counts).to(device),
        )

    def __len__(self) -> int:
        return len(self.counts)

    def to(self, device: str | torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def replace(self, **changes: Any) -> Batch:
        """Return a copy with the named fields changed."""
        return _replace(self, **changes)

    def fractional(self) -> Tensor:
        """(N, 3) fractional coordinates."""
        return torch.einsum("ni,nij->nj", self.positions, torch.linalg.inv(self.lattice)[self.owner])

    def to_crystals(self) -> list[Crystal]:
        """Split into crystals (float64 on the CPU)."""
        lattice = self.lattice.detach().double().cpu()
        cartesian = self.positions.detach().double().cpu()
        fractional = torch.einsum("ni,nij->nj", cartesian, torch.linalg.inv(lattice)[self.owner.cpu()])
        sizes = self.counts.tolist()
        return [
            Crystal(cell.numpy(), frac.numpy(), numbers.numpy())
            for cell, frac, numbers in zip(
                lattice, fractional.split(sizes), self.numbers.cpu().split(sizes), strict=True
            )
        ]

    def select(self, keep: Tensor) -> Batch:
        """The crystals where the boolean ``keep`` (B,) is true."""
        atoms = keep[self.owner]
        counts = self.counts[keep]
        owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        return Batch(
            lattice=self.lattice[keep],
            positions=self.positions[atoms],
            numbers=self.numbers[atoms],
            counts=counts,
            owner=owner,
        )

    def part(self, start: int, stop: int, first_atom: Sequence[int]) -> Batch:
        """Crystals ``start`` to ``stop``; ``first_atom`` (B+1 numbers) says where the atoms of each begin."""
        atoms = slice(first_atom[start], first_atom[stop])
        return Batch(
            lattice=self.lattice[start:stop],
            positions=self.positions[atoms],
            numbers=self.numbers[atoms],
            counts=self.counts[start:stop],
            owner=self.owner[atoms] - start,
        )

    def sum_of_atoms(self, values: Tensor) -> Tensor:
        """(B,) sums of ``values`` (N,) over the atoms of each crystal."""
        return values.new_zeros(len(self)).index_add_(0, self.owner, values)

    def any_atom(self, flags: Tensor) -> Tensor:
        """(B,) whether one of ``flags`` (N,) is true among the atoms of each crystal."""
        return self.sum_of_atoms(flags.double()) > 0

    def is_finite(self) -> Tensor:
        """(B,) whether lattice and positions of each crystal are finite."""
        lattice = torch.isfinite(self.lattice).all(-1).all(-1)
        return lattice & ~self.any_atom(~torch.isfinite(self.positions).all(-1))
