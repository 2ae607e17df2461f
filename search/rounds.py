"""The rounds of a search: which one is planned next, which tasks are open, and what the planner is still to be told."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from search.campaign import Task, known_rounds
from search.config import SearchConfig
from search.journal import Attempt
from search.results import ResultStore


@dataclass(eq=False)
class Question:
    """What the planner is asked: the tasks of a round."""

    number: int
    attempt: Attempt = field(default_factory=Attempt)


class Rounds:
    """What of a search is planned and stored.

    Args:
        config: the search.
        store: of its results.

    Attributes:
        count: how many rounds there will be, fewer once there is reason to stop.
        enough: that reason.
    """

    def __init__(self, config: SearchConfig, store: ResultStore) -> None:
        self.config, self.store = config, store
        self.count = config.policy.rounds
        self.enough: str | None = None
        self._began = time.monotonic()
        self._tasks: dict[int, dict[str, Task]] = {}  # round -> its plan, while a plan depends on it
        self._open: dict[int, set[str]] = {}  # round -> tasks that are not stored yet
        self._rows: dict[int, list[dict[str, Any]]] = {}  # round -> rows that the planner has not got yet
        self._told = 0  # rows that the planner has
        self._asked = False  # whether the planner has a round to plan

    @property
    def finished(self) -> bool:
        """Whether all rounds are planned and stored."""
        return len(self._open) == self.count and not any(self._open.values())

    def ask(self) -> Question | None:
        """The next round, once those that it is planned from are complete; None while there is nothing to plan."""
        number = len(self._open)
        if self._asked or number >= self.count or any(self._open[k] for k in known_rounds(self.config, number)):
            return None
        reason = self._out_of_time()
        if reason:
            self._end(number, reason)
            return None
        self._asked = True
        return Question(number)

    def arguments(self, question: Question) -> tuple[Any, ...]:
        """Those of `Planner.plan`: the rows that it does not have yet, and the plans whose rows are not there."""
        number = question.number
        known = known_rounds(self.config, number)
        rows = [row for k in known for row in self._rows.get(k, ())]
        pending = [task for k in range(len(known), number) for task in self._tasks[k].values()]
        return number, self._told, rows, pending

    def planned(self, number: int, answer: list[Task] | str) -> list[Task]:
        """Open a round with the tasks that the planner gave, and return them; none if it gave a reason to stop."""
        self._asked = False
        if isinstance(answer, str):
            self._end(number, answer)
            return []
        for k in known_rounds(self.config, number):
            self._told += len(self._rows.pop(k, ()))
            self._tasks.pop(k, None)
        self._tasks[number] = {task.identity: task for task in answer}
        self._open[number], self._rows[number] = set(self._tasks[number]), []
        return answer

    def tell_again(self, number: int) -> None:
        """Give the planner all rows for this round, as they are stored: the one that had them may be gone."""
        self._told, stored = 0, sorted(self.store.tasks())
        for k in known_rounds(self.config, number):
            names = [task for task in stored if task.startswith(f"{k:05d}-")]
            self._rows[k] = [row for task in names for row in self.store.planned(task)]

    def whole(self, task: Task) -> Task:
        """The task of which this may be one candidate alone."""
        return self._tasks[task.round][task.identity]

    def stored(self, task: Task, rows: list[dict[str, Any]]) -> None:
        """Keep for the planner what stands on disk of a task."""
        self._rows[task.round] += rows
        self._open[task.round].discard(task.identity)

    def _out_of_time(self) -> str | None:
        hours = self.config.policy.stop.hours
        if hours is None or time.monotonic() - self._began < 3600 * hours:
            return None
        return f"{hours:g} hours have passed"

    def _end(self, number: int, reason: str) -> None:
        self.count, self.enough = number, reason
