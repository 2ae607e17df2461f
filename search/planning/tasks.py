"""What a round consists of: candidates to be made, in tasks that are made, relaxed and stored together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from model.diffusion.sampler import Template
from model.relaxation.relax import RelaxSettings
from model.stages import GeneratorSettings
from search.config import (
    HOST_METHODS,
)

GENERATED, INPAINTED = "generated", "inpainted"


@dataclass(frozen=True, eq=False)
class Plan:
    """One candidate to be made.

    Attributes:
        method: name of the generator.
        template: what it is given.
        origin: columns that tell where the candidate comes from.
        settings: of the generator.
    """

    method: str
    template: Template
    origin: Mapping[str, Any]
    settings: GeneratorSettings

    @property
    def stage(self) -> str:
        """``generated``, or ``inpainted`` where a framework is filled."""
        return INPAINTED if self.method in HOST_METHODS else GENERATED


@dataclass(frozen=True, eq=False)
class Task:
    """Candidates that are made, relaxed and stored together.

    Attributes:
        identity: name of the task and of its part in the results; depends only on configuration, seed and results.
        relaxation: settings of the relaxation.
        found: reduced formula -> energy (eV/atom) of the phases below the reference hull that the search had found.
        volume_change: relative change of volume beyond which a filled framework becomes one again.
        highest: E_d (eV/atom) above which a crystal gives no frameworks, because they would not be among those that
            are filled; -inf where none are.
        first: number of the first plan among the candidates of the task; above 0 where one goes on alone.
    """

    identity: str
    round: int
    plans: tuple[Plan, ...]
    relaxation: RelaxSettings
    found: Mapping[str, float]
    volume_change: float
    highest: float
    first: int = 0

    def only(self, number: int) -> Task:
        """The same task with one of its candidates, which keeps its name."""
        return replace(self, plans=(self.plans[number],), first=self.first + number)

    @property
    def templates(self) -> list[Template]:
        """What the generator is given."""
        return [plan.template for plan in self.plans]

    @property
    def guests(self) -> list[np.ndarray | None]:
        """Masks (n,) of the atoms that go into a framework; None for new and changed crystals."""
        return [plan.template.guest if plan.stage == INPAINTED else None for plan in self.plans]

    @property
    def settings(self) -> list[GeneratorSettings]:
        """With what it makes each of them."""
        return [plan.settings for plan in self.plans]


def under_way(tasks: Iterable[Task]) -> list[dict[str, Any]]:
    """Rows of tasks before they have results, as far as planning needs them."""
    return [
        {
            **plan.origin,
            "task": task.identity,
            "round": task.round,
            "stage": plan.stage,
            "generator": plan.method,
            "sampler": plan.settings.model_dump_json(),
            "relaxation": task.relaxation.model_dump_json(),
        }
        for task in tasks
        for plan in task.plans
    ]
