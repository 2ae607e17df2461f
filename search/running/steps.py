"""The steps of a search. A step has one name: as a method of actors, in logs, metrics and columns."""

from __future__ import annotations

from enum import StrEnum


class Step(StrEnum):
    """What actors do, in the order in which a round goes through it."""

    PLAN = "plan"
    GENERATE = "generate"
    RELAX = "relax"
    ANALYSE = "analyse"


NEXT = {Step.GENERATE: Step.RELAX, Step.RELAX: Step.ANALYSE}
