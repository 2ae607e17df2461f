"""The crystals relaxed together, as tensors; removing or adding crystals leaves the others unchanged."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from model.crystals.batch import Batch
from model.relaxation.optimizers import Fire, Lbfgs

HISTORY_STEPS = 5  # steps whose enthalpies and volumes are kept


@dataclass(frozen=True, eq=False, kw_only=True)
class Running:
    """The crystals that step together. Rows of one crystal are contiguous: its n atoms, then three of its cell.

    Attributes:
        row_position: per row, (R, 3) generalised coordinates, see `model.relaxation.coordinates`.
        row_is_atom, row_moves: per row, (R,) bool.
        row_number: per row, (R,) atomic number, 0 for the cell.
        index: per crystal, (B,) its index among the crystals given to `model.relaxation.relax.relax`.
        counts: per crystal, (B,) atoms.
        origin: per crystal, (B, 3, 3) initial lattice, Å.
        energy_initial, force_initial: per crystal, (B,) eV/atom and eV/Å, NaN before the first evaluation.
        enthalpies, volumes: per crystal, (B, HISTORY_STEPS) eV/atom and Å³ before the last steps, newest first; those
            of the start where there were fewer steps.
        steps: per crystal, (B,) steps taken.
        entered: per crystal, (B,) time.perf_counter() of its start.
        optimizer: state of the optimizer.
    """

    row_position: Tensor
    row_is_atom: Tensor
    row_moves: Tensor
    row_number: Tensor
    index: Tensor
    counts: Tensor
    origin: Tensor
    energy_initial: Tensor
    force_initial: Tensor
    enthalpies: Tensor
    volumes: Tensor
    steps: Tensor
    entered: Tensor
    optimizer: Fire | Lbfgs

    @property
    def owner(self) -> Tensor:
        """(R,) crystal of each row."""
        return torch.repeat_interleave(torch.arange(len(self.counts), device=self.counts.device), self.counts + 3)

    def deformation(self) -> Tensor:
        """(B, 3, 3) deformation gradient F."""
        logarithm = self.row_position[~self.row_is_atom].view(-1, 3, 3) / self.counts[:, None, None]
        return torch.linalg.matrix_exp(logarithm)

    def batch(self, deformation: Tensor) -> Batch:
        """The crystals as they are now."""
        owner = self.owner[self.row_is_atom]
        positions = torch.einsum("ni,nji->nj", self.row_position[self.row_is_atom], deformation[owner])
        return Batch(
            lattice=self.origin @ deformation.mT,
            positions=positions,
            numbers=self.row_number[self.row_is_atom],
            counts=self.counts,
            owner=owner,
        )


State = TypeVar("State", bound=Any)


def keep(state: State, crystals: Tensor, rows: Tensor) -> State:
    """A state without the crystals where the mask is false; row tensors are those named ``row_...``."""

    def cut(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return keep(value, crystals, rows)
        return value[rows if name.startswith("row_") else crystals]

    return replace(state, **{f.name: cut(f.name, getattr(state, f.name)) for f in fields(state)})


def join(a: State, b: State) -> State:
    """The crystals of two states in one."""

    def cat(x: Any, y: Any) -> Any:
        return torch.cat([x, y]) if isinstance(x, Tensor) else join(x, y)

    return replace(a, **{f.name: cat(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)})
