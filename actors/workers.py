"""The actors: plain classes of `model.stages` that use one thread and can say that they are ready.

They are turned into Ray actors by `actors.pool.Pool`.
"""

from __future__ import annotations

from typing import Any

import torch

from model.stages import Analyser, CrystalMaker, Relaxer


class _Worker:
    def __init__(self, **arguments: Any) -> None:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        super().__init__(**arguments)

    def ready(self) -> str:
        """Return the class name, once the constructor has done its work."""
        return type(self).__name__


class CrystalMakerActor(_Worker, CrystalMaker):
    """All generators, the score model among them; on a GPU when its resources include one."""


class RelaxerActor(_Worker, Relaxer):
    """Screening and relaxation."""


class AnalyserActor(_Worker, Analyser):
    """Space groups, frameworks and decomposition energies."""


ACTORS: tuple[type, type, type] = (CrystalMakerActor, RelaxerActor, AnalyserActor)
