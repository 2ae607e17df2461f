"""What one start of a search has done: use of the actors, time in each step, retries, failures by reason."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from actors.pool import Done, Failed, Pool
from search.running.actor_pools import ActorPools
from search.running.progress import Shown, clock
from search.running.steps import Step
from search.storage.rows import Status


class RunStatistics:
    """Counts and times, for the summary at the end and, as they come, for Ray's metrics."""

    def __init__(self, actors: ActorPools) -> None:
        self.actors, self.began = actors, time.monotonic()
        self.calls, self.retries, self.failed = Counter[str](), Counter[str](), Counter[str]()
        self.splits, self.tasks, self.store_seconds = 0, 0, 0.0
        self.most = dict.fromkeys(Step, 0)  # actors at the same time

    def call(self, step: Step, outcome: Done | Failed) -> None:
        """A call of an actor came back."""
        self.calls[step] += 1
        cause = outcome.cause if isinstance(outcome, Failed) else "done"
        self.actors.metrics.call(step, cause, outcome.seconds)

    def stored(self, rows: Sequence[Shown], seconds: float) -> None:
        """A task is on disk."""
        self.actors.metrics.stored(Counter((row.status, row.reason) for row in rows), seconds)
        self.failed.update(row.reason for row in rows if row.status == Status.FAILED)
        self.tasks += 1
        self.store_seconds += seconds

    def look(self) -> None:
        """Count the actors that are there."""
        self.most = {step: max(self.most[step], pool.started) for step, pool in self.actors.pools.items()}

    def summary(self) -> dict[str, Any]:
        """All of it, for ``summary.json`` and `summary_lines`."""
        return {
            "seconds": time.monotonic() - self.began,
            "actors": {step: self._actors(step, pool) for step, pool in self.actors.pools.items()},
            "store": {"tasks": self.tasks, "seconds_per_task": self.store_seconds / self.tasks if self.tasks else 0.0},
            "retries": dict(self.retries),
            "split": self.splits,
            "failed": dict(self.failed),
        }

    def _actors(self, step: Step, pool: Pool) -> dict[str, Any]:
        return {
            "device": self.actors.devices[step],
            "most": self.most[step],
            "lost": pool.lost,
            "calls": self.calls[step],
            "busy_seconds": pool.busy,
            "present_seconds": pool.present,
            "utilisation": pool.busy / pool.present if pool.present else 0.0,
        }


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """A summary for the terminal."""
    lines = [_actor_line(step, actors) for step, actors in summary["actors"].items()]
    store = summary["store"]
    lines.append(f"store: {store['tasks']} tasks, {1000 * store['seconds_per_task']:.0f} ms each")
    if summary["retries"]:
        lines.append(f"retries: {_words(summary['retries'])}")
    if summary["split"]:
        tasks = "1 task" if summary["split"] == 1 else f"{summary['split']} tasks"
        lines.append(f"split into single crystals: {tasks}")
    if summary["failed"]:
        lines.append(f"failed: {_words(summary['failed'])}")
    return lines


def _actor_line(step: str, actors: Mapping[str, Any]) -> str:
    count = "1 actor" if actors["most"] == 1 else f"{actors['most']} actors"
    lost = f", {actors['lost']} lost" if actors["lost"] else ""
    share = f"{100 * actors['utilisation']:.0f} % of the time of {count} on {actors['device']}"
    return f"{step}: {actors['calls']} calls, {clock(actors['busy_seconds'])} of work, {share}{lost}"


def _words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
