"""Any ASE calculator as a potential."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ase
import numpy as np
import torch

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.potentials.interface import BatchEvaluation, Evaluation, evaluate_crystals, mark_not_finite_
from model.symmetry.projector import Projector


class ASEPotential:
    """Any ASE calculator with energy, forces and stress as a `Potential`.

    Args:
        calculator: the calculator; it must support three-dimensional periodicity.
        name: recorded with the results (default: name of the class).
        version: of the calculator (default: version of ASE).
    """

    def __init__(self, calculator: Any, *, name: str = "", version: str = "") -> None:
        self.calculator = calculator
        self.name = name or type(calculator).__name__
        self.version = version or ase.__version__
        self.device = torch.device("cpu")

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation]:
        """Evaluate crystals one by one; one that cannot be evaluated has a ``problem`` instead of raising."""
        return evaluate_crystals(self, crystals)

    def compute(self, batch: Batch, symmetry: Sequence[Projector | None] | None = None) -> BatchEvaluation:
        """Evaluate a float64 batch crystal by crystal."""
        problems = ["" if ok else "not finite" for ok in batch.is_finite().tolist()]
        result = BatchEvaluation.unknown(batch, problems, magmoms=False)
        first_atom = [0, *torch.cumsum(batch.counts, 0).tolist()]
        for i, problem in enumerate(problems):
            if problem:
                continue
            try:
                energy, forces, stress = self._one(batch.part(i, i + 1, first_atom).to_crystals()[0])
            except Exception as error:  # a calculator may raise anything; the others must still be computed
                problems[i] = f"{type(error).__name__}: {error}"
                continue
            result.energy[i], result.stress[i] = energy, torch.from_numpy(stress)
            result.forces[first_atom[i] : first_atom[i + 1]] = torch.from_numpy(forces)
        mark_not_finite_(result, batch)
        return result

    def _one(self, crystal: Crystal) -> tuple[float, np.ndarray, np.ndarray]:
        atoms = crystal.to_ase()
        atoms.calc = self.calculator
        energy = float(atoms.get_potential_energy()) / len(atoms)
        return energy, np.array(atoms.get_forces(), float), np.array(atoms.get_stress(voigt=False), float)
