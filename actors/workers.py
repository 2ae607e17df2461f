"""The actors: the classes of `model.stages`, judge and verifier, with one thread and a method that says when they are
ready.

`actors.pool.Pool` turns them into Ray actors.
"""

from __future__ import annotations

from typing import Any

import torch

from model.stages import Analyser, CrystalMaker, Relaxer
from model.thermodynamics.candidate_judge import CandidateJudge
from model.verification.verifier import Verifier


class Worker:
    """One thread, and a method that tells when the constructor has finished."""

    def __init__(self, **arguments: Any) -> None:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        super().__init__(**arguments)

    def ready(self) -> str:
        """Return the class name; called to find out when the constructor has finished."""
        return type(self).__name__


class CrystalMakerActor(Worker, CrystalMaker):
    """All generators, including the score model; on a GPU if the actor's resources include one."""


class RelaxerActor(Worker, Relaxer):
    """Screening and relaxation."""


class AnalyserActor(Worker, Analyser):
    """Space groups, frameworks and decomposition energies."""


class JudgeActor(Worker, CandidateJudge):
    """A second potential."""


class VerifierActor(Worker, Verifier):
    """Charges, known types, phonons and elastic constants of single crystals."""


ACTORS: tuple[type, ...] = (CrystalMakerActor, RelaxerActor, AnalyserActor, JudgeActor)
