"""Counters and timings of a search for Ray's metrics page and Prometheus; docs/architecture.md lists them."""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge, Histogram

SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0]


class Metrics:
    """Metrics of a running search; Ray must be connected."""

    def __init__(self) -> None:
        self._calls = Histogram(
            "hostguide_call_seconds",
            "Seconds from sending a batch to an actor until its result",
            boundaries=SECONDS,
            tag_keys=("step", "outcome"),
        )
        self._candidates = Counter("hostguide_candidates", "Candidates stored", tag_keys=("status", "reason"))
        self._store = Histogram(
            "hostguide_store_seconds", "Seconds to store a task", boundaries=[0.003, 0.01, 0.03, *SECONDS]
        )
        self._actors = Gauge("hostguide_actors", "Actors of a step", tag_keys=("step", "state"))
        self._waiting = Gauge("hostguide_waiting", "Batches waiting for an actor", tag_keys=("step",))

    def call(self, step: str, outcome: str, seconds: float) -> None:
        """Record a call that returned or failed; ``outcome`` is ``done`` or the cause of the failure."""
        self._calls.observe(seconds, {"step": step, "outcome": outcome})

    def stored(self, statuses: Mapping[tuple[str, str], int], seconds: float) -> None:
        """Record a stored task: its candidates by status and reason, and the time to store it."""
        for (status, reason), count in statuses.items():
            self._candidates.inc(count, {"status": status, "reason": reason})
        self._store.observe(seconds)

    def actors(self, step: str, *, busy: int, idle: int, starting: int, waiting: int) -> None:
        """Record the state of the actors and the queue of one step."""
        for state, count in (("busy", busy), ("idle", idle), ("starting", starting)):
            self._actors.set(count, {"step": step, "state": state})
        self._waiting.set(waiting, {"step": step})
