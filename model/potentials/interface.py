"""The interface of potentials.

Units: eV/atom, eV/Å, eV/Å³ (ASE's sign: positive is tensile, the crystal wants to shrink), μB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.symmetry.projector import Projector


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation:
    """A potential's result for one crystal; if there is a ``problem``, all numbers are NaN.

    Attributes:
        energy: eV/atom.
        forces: (n, 3) eV/Å.
        stress: (3, 3) eV/Å³, dE/dstrain / volume, symmetric.
        magmoms: (n,) μB, or None if the potential has none.
        problem: empty, or why there is no result.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray
    magmoms: np.ndarray | None
    problem: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchEvaluation:
    """A potential's results for a batch, as float64 tensors on the batch's device; NaN for crystals with a problem.

    Attributes:
        energy: per crystal, (B,) eV/atom.
        forces: per atom, (N, 3) eV/Å.
        stress: per crystal, (B, 3, 3) eV/Å³.
        magmoms: per atom, (N,) μB or None.
        problems: per crystal, empty or why there is no result.
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor
    magmoms: Tensor | None
    problems: list[str]

    @classmethod
    def joined(cls, parts: Sequence[BatchEvaluation]) -> BatchEvaluation:
        """The evaluations of several batches as that of one; moments only if all have them."""
        moments = [part.magmoms for part in parts if part.magmoms is not None]
        return cls(
            energy=torch.cat([part.energy for part in parts]),
            forces=torch.cat([part.forces for part in parts]),
            stress=torch.cat([part.stress for part in parts]),
            magmoms=torch.cat(moments) if len(moments) == len(parts) else None,
            problems=[problem for part in parts for problem in part.problems],
        )

    @classmethod
    def unknown(cls, batch: Batch, problems: list[str], *, magmoms: bool) -> BatchEvaluation:
        """All numbers NaN, for others to fill in."""
        nan = batch.positions.new_full
        return cls(
            energy=nan((len(batch),), torch.nan),
            forces=nan(batch.positions.shape, torch.nan),
            stress=nan((len(batch), 3, 3), torch.nan),
            magmoms=nan((len(batch.numbers),), torch.nan) if magmoms else None,
            problems=problems,
        )

    def split(self, counts: Tensor) -> list[Evaluation]:
        """One `Evaluation` per crystal."""
        sizes = counts.tolist()
        forces = [part.cpu().numpy() for part in self.forces.split(sizes)]
        moments = [None] * len(sizes) if self.magmoms is None else [m.cpu().numpy() for m in self.magmoms.split(sizes)]
        return [
            Evaluation(energy=float(energy), forces=force, stress=stress, magmoms=moment, problem=problem)
            for energy, force, stress, moment, problem in zip(
                self.energy.tolist(), forces, self.stress.cpu().numpy(), moments, self.problems, strict=True
            )
        ]


class Potential(Protocol):
    """Anything that computes energy, forces and stress of crystals.

    tests/model/potentials/test_contract.py checks the requirements.

    Attributes:
        name: its name in the catalogue, if it is in it.
        version: of the code and the weights.
        device: on which `compute` expects its batch.
    """

    name: str
    version: str
    device: torch.device

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation]:
        """Evaluate crystals of any size; one that cannot be evaluated has a ``problem`` instead of raising."""
        ...

    def compute(self, batch: Batch, symmetry: Sequence[Projector | None] | None = None) -> BatchEvaluation:
        """Evaluate a float64 batch on ``device``; the path of the relaxer, without crystals.

        Args:
            batch: the crystals.
            symmetry: per crystal the projector on operations that it has exactly, or None; a potential may use it to
                save work, but the results must be the same.
        """
        ...


def evaluate_crystals(potential: Potential, crystals: Sequence[Crystal]) -> list[Evaluation]:
    """`Potential.evaluate` by `Potential.compute`: all crystals as one batch, empty ones left out."""
    filled = [crystal for crystal in crystals if len(crystal)]
    results: Iterator[Evaluation] = iter([])
    if filled:
        batch = Batch.from_crystals(filled, device=potential.device, dtype=torch.float64)
        results = iter(potential.compute(batch).split(batch.counts))
    empty = Evaluation(
        energy=np.nan, forces=np.zeros((0, 3)), stress=np.full((3, 3), np.nan), magmoms=None, problem="no atoms"
    )
    return [next(results) if len(crystal) else empty for crystal in crystals]


def mark_not_finite_(result: BatchEvaluation, batch: Batch) -> None:
    """Note a problem for each crystal of a batch whose numbers are not finite, in place."""
    good = torch.isfinite(result.energy) & torch.isfinite(result.stress).all(-1).all(-1)
    good &= ~batch.any_atom(~torch.isfinite(result.forces).all(-1))
    for i, fine in enumerate(good.tolist()):
        result.problems[i] = result.problems[i] or ("" if fine else "energy or forces not finite")
