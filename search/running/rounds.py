"""Bookkeeping of rounds: which one is planned next, which tasks are open, what the planner has not been sent yet."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from search.config import SearchConfig
from search.planning.campaign import known_rounds
from search.planning.tasks import Task, pending_rows
from search.running.journal import Attempt
from search.storage.results import DamagedPart, ResultStore
from search.storage.rows import HistoryRow, PendingRow, names, schema, table_of

TOLD_AT_ONCE = 20_000  # candidates (of whole rounds) sent at a time, to limit memory


@dataclass(eq=False)
class Question:
    """A request to the planner.

    Attributes:
        number: of the round to plan.
        tell: rounds whose results are sent.
        plans: whether the planner then has all results and can plan.
        attempt: failures so far.
    """

    number: int
    tell: range
    plans: bool
    attempt: Attempt = field(default_factory=Attempt)


class Rounds:
    """Keeps track of what has been planned and stored.

    Args:
        config: the search.
        store: of its results.

    Attributes:
        count: number of rounds; reduced if the search stops early.
        enough: reason for stopping early.
        recovering: whether there may be complete rounds of an earlier start, which need not be planned again.
    """

    def __init__(self, config: SearchConfig, store: ResultStore) -> None:
        self.config, self.store = config, store
        self.count = config.policy.rounds
        self.enough: str | None = None
        self.recovering = False
        self._began = time.monotonic()
        self._stored: dict[int, list[str]] = {}  # round -> names of its stored tasks, as last listed
        self._recoverable = 0
        self._open: dict[int, dict[str, Task]] = {}  # round -> tasks that are not stored yet
        self._rows: dict[int, list[pa.Table]] = {}  # round -> rows that the planner does not have yet
        self._plans: dict[int, pa.Table] = {}  # round -> its candidates without results, kept as long as `_rows`
        self._told = 0  # number of rounds that the planner has
        self._asked = False  # whether the planner is busy
        self._attempt = Attempt()

    @property
    def finished(self) -> bool:
        """Whether all rounds are planned and stored."""
        return len(self._open) == self.count and not any(self._open.values())

    def begin(self, tasks: Iterable[str]) -> None:
        """Start from the tasks that earlier starts have stored.

        A round is planned only when the rounds on which its plan is based are complete. So all rounds more than
        ``rounds_ahead`` before the last one with a stored task were complete.
        """
        self._stored = _by_round(tasks)
        self._recoverable = min(self.count, max(self._stored, default=0) - self.config.policy.rounds_ahead)
        self.recovering = self._recoverable > 0

    def recover(self) -> pa.Table | None:
        """Take over the next round of an earlier start, and return its rows.

        None if the planner has to be sent results first, or if the next round is incomplete and must be planned again.
        """
        number = len(self._open)
        untold = len(known_rounds(self.config, number)) - self._told
        if untold * self.config.round_size(number) > 2 * TOLD_AT_ONCE:
            return None
        rows = self._whole(number) if number < self._recoverable else None
        if rows is None:
            self.recovering = False
            return None
        self._open[number], self._rows[number], self._plans[number] = {}, [rows], rows.select(names(PendingRow))
        return rows

    def ask(self) -> Question | None:
        """The next request to the planner; None until the rounds on which the next plan is based are complete."""
        number = len(self._open)
        known = known_rounds(self.config, number)
        if self._asked or number >= self.count or any(self._open[k] for k in known):
            return None
        reason = self._out_of_time()
        if reason:
            self._end(number, reason)
            return None
        some = max(1, TOLD_AT_ONCE // self.config.round_size(number))
        tell = range(self._told, min(len(known), self._told + some))
        plans = not self.recovering and len(known) == max(self._told, tell.stop)
        if not (plans or tell):
            return None
        self._asked = True
        return Question(number, tell, plans, self._attempt)

    def arguments(self, question: Question) -> tuple[Any, ...]:
        """Arguments of `Planner.plan`: rows of the rounds it does not have yet, and the candidates pending since."""
        number = question.number
        pending = [self._plans[k] for k in range(len(known_rounds(self.config, number)), number)]
        rows = [self._rows_of(k) for k in question.tell]
        return number, self._told, rows, pending if question.plans else None

    def planned(self, question: Question, answer: list[Task] | str) -> list[Task]:
        """Open a round with the planner's tasks and return them; none if it returned a reason to stop."""
        self._asked = False
        self._told = max(self._told, question.tell.stop)
        for k in question.tell:
            self._rows.pop(k, None)
            self._plans.pop(k, None)
        if not question.plans:
            return []
        if isinstance(answer, str):
            self._end(question.number, answer)
            return []
        number, self._attempt = question.number, Attempt()
        pending = pending_rows(answer, with_settings=not self.config.tuning.is_empty)
        self._plans[number] = table_of(pending, PendingRow)
        self._open[number], self._rows[number] = {task.identity: task for task in answer}, []
        return answer

    def tell_again(self) -> None:
        """Send the planner all stored results again, because it may have been restarted."""
        self._told, self._asked = 0, False
        self._stored = _by_round(self.store.tasks())

    def whole(self, task: Task) -> Task:
        """The complete task, given itself or a single candidate of it."""
        return self._open[task.round][task.identity]

    def stored(self, task: Task, rows: pa.Table) -> None:
        """Close a stored task and keep its rows for the planner."""
        self._rows[task.round].append(rows)
        del self._open[task.round][task.identity]

    def _whole(self, number: int) -> pa.Table | None:
        """Rows of a complete stored round; None if a part is damaged or missing."""
        try:
            rows = self._rows_of(number)
        except DamagedPart:
            return None
        return rows if rows.num_rows == self.config.round_size(number) else None

    def _rows_of(self, number: int) -> pa.Table:
        parts = self._rows.get(number)
        if parts is None:
            parts = [found.result() for found in self.store.histories(self._stored.get(number, ())).values()]
        return pa.concat_tables(parts) if parts else schema(HistoryRow).empty_table()

    def _out_of_time(self) -> str | None:
        hours = self.config.policy.stop.hours
        if hours is None or time.monotonic() - self._began < 3600 * hours:
            return None
        return f"time limit of {hours:g} hours reached"

    def _end(self, number: int, reason: str) -> None:
        self.count, self.enough = number, reason


def _by_round(tasks: Iterable[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for task in sorted(tasks):
        found.setdefault(int(task.partition("-")[0]), []).append(task)
    return found
