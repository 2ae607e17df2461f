"""The steps of a search. Each has the same name as a method of actors and in logs, metrics and columns."""

from __future__ import annotations

from enum import StrEnum


class Step(StrEnum):
    """The steps carried out by actors, in order."""

    PLAN = "plan"
    GENERATE = "generate"
    RELAX = "relax"
    ANALYSE = "analyse"
    JUDGE = "judge"  # only in searches that have one


NEXT = {Step.GENERATE: Step.RELAX, Step.RELAX: Step.ANALYSE, Step.ANALYSE: Step.JUDGE}
