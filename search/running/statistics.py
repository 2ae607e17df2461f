"""Statistics of one start of a search: use of the actors, time in each step, retries, failures by reason."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actors.pool import Done, Failed, Pool
from search.running.actor_pools import ActorPools
from search.running.progress import Progress, Shown, clock
from search.running.steps import Step
from search.storage.rows import Status


@dataclass(frozen=True, kw_only=True)
class StepSummary:
    """The actors of one step.

    Attributes:
        device: GPU or CPU.
        most: largest number of actors at the same time.
        lost: number of actors that died or were killed for hanging.
        calls: number of calls that returned.
        busy_seconds: total time of all actors in calls.
        present_seconds: total time of all actors since they started.
        utilisation: busy time divided by present time.
    """

    device: str
    most: int
    lost: int
    calls: int
    busy_seconds: float
    present_seconds: float
    utilisation: float


@dataclass(frozen=True, kw_only=True)
class StoreSummary:
    """Number of stored tasks, and seconds from a task's last result until it is stored."""

    tasks: int
    seconds_per_task: float


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Summary of one start of a search, as in ``summary.json``; explained in docs/results.md.

    Attributes:
        finished: whether all rounds are stored.
        candidates: number of stored candidates.
        resumed: how many of them an earlier start had stored.
        seconds: wall time.
        actors: by step.
        store: stored tasks.
        retries: step and cause -> number of retries.
        split: number of tasks that were split into single crystals.
        failed: reason -> number of candidates.
        notes: messages for the user, in order of time.
    """

    finished: bool
    candidates: int
    resumed: int
    seconds: float
    actors: Mapping[Step, StepSummary]
    store: StoreSummary
    retries: Mapping[str, int]
    split: int
    failed: Mapping[str, int]
    notes: Sequence[str]


class RunStatistics:
    """Counts and times, for the final summary and for Ray's metrics."""

    def __init__(self, actors: ActorPools) -> None:
        self.actors, self.began = actors, time.monotonic()
        self.calls, self.retries, self.failed = Counter[str](), Counter[str](), Counter[str]()
        self.splits, self.tasks, self.store_seconds = 0, 0, 0.0
        self.most = dict.fromkeys(Step, 0)  # largest number of actors at the same time

    def call(self, step: Step, outcome: Done | Failed) -> None:
        """Count a call that returned or failed."""
        self.calls[step] += 1
        cause = outcome.cause if isinstance(outcome, Failed) else "done"
        self.actors.metrics.call(step, cause, outcome.seconds)

    def stored(self, rows: Sequence[Shown], seconds: float) -> None:
        """Count a stored task."""
        self.actors.metrics.stored(Counter((row.status, row.reason) for row in rows), seconds)
        self.failed.update(row.reason for row in rows if row.status == Status.FAILED)
        self.tasks += 1
        self.store_seconds += seconds

    def look(self) -> None:
        """Update the largest number of actors."""
        self.most = {step: max(self.most[step], pool.started) for step, pool in self.actors.pools.items()}

    def summary(self, progress: Progress, *, finished: bool) -> RunSummary:
        """Summary of this start."""
        return RunSummary(
            finished=finished,
            candidates=progress.done,
            resumed=progress.resumed,
            seconds=time.monotonic() - self.began,
            actors={step: self._step(step, pool) for step, pool in self.actors.pools.items()},
            store=StoreSummary(
                tasks=self.tasks, seconds_per_task=self.store_seconds / self.tasks if self.tasks else 0.0
            ),
            retries=dict(self.retries),
            split=self.splits,
            failed=dict(self.failed),
            notes=progress.notes,
        )

    def _step(self, step: Step, pool: Pool) -> StepSummary:
        return StepSummary(
            device=self.actors.devices[step],
            most=self.most[step],
            lost=pool.lost,
            calls=self.calls[step],
            busy_seconds=pool.busy,
            present_seconds=pool.present,
            utilisation=pool.busy / pool.present if pool.present else 0.0,
        )


def summary_lines(summary: RunSummary) -> list[str]:
    """Lines of a summary for the terminal."""
    lines = [_step_line(step, actors) for step, actors in summary.actors.items()]
    lines.append(f"store: {summary.store.tasks} tasks, {1000 * summary.store.seconds_per_task:.0f} ms each")
    if summary.retries:
        lines.append(f"retries: {_words(summary.retries)}")
    if summary.split:
        lines.append(f"split into single crystals: {summary.split} task{'' if summary.split == 1 else 's'}")
    if summary.failed:
        lines.append(f"failed: {_words(summary.failed)}")
    return lines


def _step_line(step: Step, actors: StepSummary) -> str:
    count = f"{actors.most} actor{'' if actors.most == 1 else 's'}"
    lost = f", {actors.lost} lost" if actors.lost else ""
    share = f"{100 * actors.utilisation:.0f} % utilisation of {count} on {actors.device}"
    return f"{step}: {actors.calls} calls, busy for {clock(actors.busy_seconds)}, {share}{lost}"


def _words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
