"""Running a screen on Ray: tasks go to idle actors, cheap hosts first; their rows are stored as they come back."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from actors.cluster import Capacity, ask_for, capacity, connected
from actors.pool import Done, Failed, Pool, wait_any
from model.reasons import Reason
from search.electrodes.actors import ScreenerActor
from search.electrodes.config import ScreenConfig
from search.electrodes.hosts import Host, find_hosts
from search.electrodes.rows import ElectrodeRow, Outcome
from search.electrodes.screener import ScreenTask
from search.electrodes.store import ScreenStore, keep_config
from search.running.journal import Attempts, Journal
from search.running.signals import stop_signals
from search.storage.lock import locked
from search.storage.paths import RunPath

WAIT_SECONDS = 0.5  # longest wait for a result
RECOUNT = 10.0  # s between two counts of a cluster's CPUs
PATIENCE = 300.0  # s that an actor on a cluster may be idle before its machine is released


@dataclass(eq=False, kw_only=True)
class ScreenProgress:
    """How far a screen has come.

    Attributes:
        total: tasks, pairs of host and ion.
        stored: of them that are done.
        resumed: of these, done before this start.
        rows: by outcome, of this start.
        notes: for the user, in order of time.
        began: monotonic time of the start.
    """

    total: int
    stored: int = 0
    resumed: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds_left(self) -> float | None:
        """From the rate since this start; an underestimate, because the cheap hosts come first."""
        fresh = self.stored - self.resumed
        return (self.total - self.stored) * (time.monotonic() - self.began) / fresh if fresh else None


def plan_tasks(config: ScreenConfig, hosts: Sequence[Host]) -> list[ScreenTask]:
    """Every host with every ion, cheap hosts first; an unreadable host is a single task."""
    return [
        _task(config, host, guest) for host in hosts for guest in (config.guests if host.crystal is not None else ("",))
    ]


def _task(config: ScreenConfig, host: Host, guest: str) -> ScreenTask:
    content = host.crystal.identity if host.crystal is not None else host.problem
    digest = hashlib.sha256("\n".join([config.digest, host.name, content, guest]).encode()).hexdigest()
    return ScreenTask(
        identity=digest[:16],
        host=host.name,
        source=host.source,
        guest=guest,
        crystal=host.crystal,
        problem=host.problem,
        seed=int(digest[:12], 16) + config.seed,
    )


def run_screen(
    config: ScreenConfig,
    run: RunPath,
    *,
    report: Callable[[ScreenProgress], None] = lambda progress: None,
    actor: type = ScreenerActor,
) -> ScreenProgress:
    """Run or resume a screen; stored tasks are kept and not repeated.

    Args:
        config: of the screen.
        run: folder or address.
        report: called with the progress about twice a second.
        actor: class of the actors.

    Raises:
        ValueError: no hosts, a folder that holds something else or is in use, or more actors than cores.
        RuntimeError: actors cannot start.
        OSError: the disk is full or fails; stored rows are unaffected.
    """
    tasks = plan_tasks(config, find_hosts(config.hosts))
    run.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        check = stack.enter_context(locked(run))
        keep_config(run, config)
        found = stack.enter_context(connected(config.resources.address))
        stop = stack.enter_context(stop_signals())
        driver = ScreenDriver(config, run, tasks, found, check, report, actor)
        stack.callback(driver.close)
        return driver.run(stop)


class ScreenDriver:
    """One screen with its actors."""

    def __init__(
        self,
        config: ScreenConfig,
        run: RunPath,
        tasks: Sequence[ScreenTask],
        found: Capacity,
        check: Callable[[], None],
        report: Callable[[ScreenProgress], None],
        actor: type,
    ) -> None:
        self.config, self.check, self.report, self.found = config, check, report, found
        self.on_cluster = config.resources.address != "local"
        wanted = config.resources.relax_actors or 1
        if wanted > found.cpus and not self.on_cluster:
            raise ValueError(f"resources.relax_actors: {wanted} requested, but there are {found.cpus} CPUs")
        if self.on_cluster:
            ask_for(wanted)
        self.store, self.journal, self.attempts = ScreenStore(run), Journal(run), Attempts(run)
        self.store.tidy()
        before = self.store.tasks()
        self.waiting = deque(task for task in tasks if task.identity not in before)
        done = len(tasks) - len(self.waiting)
        self.progress = ScreenProgress(total=len(tasks), stored=done, resumed=done)
        for task in before:
            self.attempts.forget(task)
        self._counted = time.monotonic()
        self.pool = Pool(
            actor,
            count=min(self._limit(), max(1, len(self.waiting))),
            options={"num_cpus": 1},
            arguments={"config": config},
            seconds=config.resources.task_seconds,
        )

    def run(self, stop: threading.Event) -> ScreenProgress:
        """Work until all tasks are stored or ``stop`` is set."""
        self.journal.note("started", tasks=self.progress.total, stored=self.progress.stored)
        while self.progress.stored < self.progress.total and not stop.is_set():
            self._scale()
            while self.waiting and self.pool.idle:
                task = self.waiting.popleft()
                self.pool.submit(task, "screen", task)
            for outcome in self.pool.collect(wait_any([self.pool], WAIT_SECONDS)):
                self._receive(outcome)
            self.attempts.save()
            self.journal.save()
            self.report(self.progress)
        self.journal.note("ended", stored=self.progress.stored, rows=dict(self.progress.rows))
        return self.progress

    def close(self) -> None:
        """End the actors and close the journal."""
        self.pool.close()
        if self.on_cluster:
            ask_for(0)
        self.journal.close()

    def _scale(self) -> None:
        if self.on_cluster and time.monotonic() - self._counted > RECOUNT:
            self._counted, self.found = time.monotonic(), capacity()
        limit = max(1, min(self._limit(), self.progress.total - self.progress.stored))
        self.pool.scale(limit, waiting=len(self.waiting), patience=PATIENCE if self.on_cluster else math.inf)

    def _limit(self) -> int:
        return max(1, min(self.config.resources.relax_actors or self.found.cpus, self.found.cpus))

    def _receive(self, outcome: Done | Failed) -> None:
        task: ScreenTask = outcome.job
        if isinstance(outcome, Done):
            self._stored(task, outcome.value, outcome.seconds)
            return
        attempt = self.attempts.add(task.identity, None, outcome.cause, outcome.message)
        self.journal.note("failed", task=task.identity, host=task.host, cause=outcome.cause, message=outcome.message)
        if outcome.cause == Reason.OOM:
            self.pool.suspect()
        if attempt.too_often is None:
            self.waiting.append(task)
            return
        self.progress.notes.append(f"{task.host} with {task.guest}: {outcome.cause} ({outcome.message})")
        row = ElectrodeRow(
            task=task.identity,
            host=task.host,
            source=task.source,
            guest=task.guest,
            status=Outcome.FAILED,
            reason=f"{outcome.cause}: {outcome.message}",
            potential=self.config.potential,
        )
        self._stored(task, [row], outcome.seconds)

    def _stored(self, task: ScreenTask, rows: Sequence[ElectrodeRow], seconds: float) -> None:
        self.check()
        self.store.store(task.identity, rows)
        self.attempts.forget(task.identity)
        self.progress.stored += 1
        self.progress.rows.update(row.status for row in rows)
        self.journal.note("stored", task=task.identity, host=task.host, guest=task.guest, seconds=round(seconds, 2))
