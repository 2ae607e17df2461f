"""The Ray driver: keeps actors busy with the tasks of the campaign and stores what comes back.

Everything that decides is in `search.campaign` and `search.policy`; everything that computes is in `model`. Here are
only queues, retries and the order in which things are written: a task's rows are on disk before the campaign sees them.
"""

from __future__ import annotations

import heapq
import itertools
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from actors.cluster import Capacity, connected
from actors.pool import Done, Failed, Pool, wait_any
from actors.workers import GeneratorActor, RelaxerActor, SymmetrizerActor
from model.reference import Reference
from search.campaign import Campaign, Task
from search.config import SearchConfig
from search.lock import locked
from search.pipeline import failed_rows, take_out, task_rows
from search.prepare import describe_reference, remember, same_search, volume_estimate
from search.results import ResultStore
from search.storage import RunPath

ATTEMPTS = {"node": 5}  # losses of a node say little about a task; everything else is tried twice
ATTEMPTS_OTHERWISE = 2
STEPS = ("generate", "relax", "judge")


@dataclass(eq=False)
class Job:
    """A task on its way, with what the stages so far have returned."""

    task: Task
    step: int = 0
    outcomes: list[Any] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)


@dataclass(eq=False)
class Progress:
    """What a person wants to see while a search runs."""

    expected: int  # candidates of the whole search
    began: float = field(default_factory=time.monotonic)
    resumed: int = 0  # candidates that were stored before this start
    counts: Counter[str] = field(default_factory=Counter)  # by stage and status
    reasons: Counter[str] = field(default_factory=Counter)  # of everything that is not relaxed
    best: dict[str, tuple[float, str]] = field(default_factory=dict)  # formula -> (E_d, space group)
    round: int = 0
    message: str = "starting"

    @property
    def done(self) -> int:
        """Candidates stored."""
        return sum(self.counts.values())

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the pace since this start; None before there is one."""
        fresh = self.done - self.resumed
        if fresh <= 0:
            return None
        return max(0, self.expected - self.done) * (time.monotonic() - self.began) / fresh

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one stored candidate."""
        self.counts[f"{row['stage']} {row['status']}"] += 1
        if row["reason"]:
            self.reasons[row["reason"]] += 1
        e_d = row["e_d"]
        if (
            e_d is not None
            and row["status"] == "relaxed"
            and e_d < self.best.get(row["formula"], (float("inf"), ""))[0]
        ):
            self.best[row["formula"]] = (e_d, row["space_group"])


@dataclass(frozen=True)
class Outcome:
    """How a search ended."""

    finished: bool
    candidates: int
    seconds: float
    reason: str | None = None  # why it ended before all rounds were done


def run_search(
    config: SearchConfig, run: RunPath, reference: Reference, *,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:  # fmt: skip
    """Run or resume a search.

    Args:
        config: the search.
        run: folder of the run, or its place in an object store; what it holds already is kept and not repeated.
        reference: phases of the system.
        report: called with the progress about once a second.

    Raises:
        ValueError: the folder holds another search, or another process is at work in it.
        RuntimeError: actors cannot start, or another search has taken over a run in an object store.
    """
    run.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        check = stack.enter_context(locked(run))
        same_search(run, config, reference)
        remember(run, config, reference)
        capacity = stack.enter_context(connected(config.resources.address))
        stop = stack.enter_context(_signals())
        driver = Driver(config, run, reference, capacity, report, check)
        stack.callback(driver.close)
        return driver.run(stop)


class Driver:
    """One search on one Ray."""

    def __init__(
        self,
        config: SearchConfig,
        run: RunPath,
        reference: Reference,
        capacity: Capacity,
        report: Callable[[Progress], None],
        check: Callable[[], None],
    ) -> None:
        self.config, self.report, self.check = config, report, check
        self.store = ResultStore(run)
        self.campaign = Campaign(config, lambda cell: volume_estimate(config, reference, cell))
        self.judged_by = {"potential": config.models.potential, "reference": describe_reference(reference)}
        self.progress = Progress(expected=config.candidates)
        self.rounds = config.policy.rounds  # fewer once there is reason to stop
        self.enough: str | None = None  # that reason
        self.rows: dict[int, list[dict[str, Any]]] = {}  # round -> rows of its stored tasks
        self.tasks: dict[int, list[Task]] = {}  # round -> its plan
        self.open: dict[int, set[str]] = {}  # round -> tasks not stored yet
        self.queues: list[list[tuple[int, int, Job]]] = [[], [], []]  # a heap a step
        self._order = itertools.count()
        self.pools = _pools(config, reference, capacity)
        self.backlog = 2 * self.pools[1].size + 2

    def run(self, stop: threading.Event) -> Outcome:
        """Work until all rounds are stored or ``stop`` is set."""
        for pool in self.pools:
            pool.check()
        self.progress.message = "running"
        stored = self.store.tasks()
        while not stop.is_set():
            self._plan(stored)
            if self.finished:
                break
            self._dispatch()
            ready = wait_any(self.pools, 0.5)
            for step, pool in enumerate(self.pools):
                for outcome in pool.collect(ready):
                    self._receive(step, outcome)
            self.report(self.progress)
        self.progress.message = "finished" if self.finished else "stopped"
        self.report(self.progress)
        return Outcome(self.finished, self.progress.done, time.monotonic() - self.progress.began, self.enough)

    @property
    def finished(self) -> bool:
        """Whether all rounds are planned and stored."""
        return len(self.open) == self.rounds and not any(self.open.values())

    def close(self) -> None:
        """End all actors."""
        for pool in self.pools:
            pool.close()

    def _plan(self, stored: set[str]) -> None:
        """Open every round whose predecessors are complete; take over the tasks that are stored already."""
        number = len(self.open)
        while number < self.rounds and not any(self.open[k] for k in self.campaign.known_rounds(number)):
            known = self.campaign.known_rounds(number)
            rows = [row for k in known for row in self.rows[k]]
            self.enough = self.campaign.stop_reason(number, rows) or self._out_of_time()
            if self.enough:
                self.rounds = number
                break
            pending = [task for k in range(len(known), number) for task in self.tasks[k]]
            tasks = self.tasks[number] = self.campaign.plan(number, rows, pending)
            self.open[number], self.rows[number] = {task.identity for task in tasks}, []
            for task in tasks:
                if task.identity in stored:
                    self._stored(task)
                    self.progress.resumed += len(task.plans)
                else:
                    self._enqueue(Job(task))
            self.progress.round = number
            number += 1

    def _out_of_time(self) -> str | None:
        hours = self.config.policy.stop.hours
        if hours is None or time.monotonic() - self.progress.began < 3600 * hours:
            return None
        return f"{hours:g} hours have passed"

    def _enqueue(self, job: Job) -> None:
        heapq.heappush(self.queues[job.step], (job.task.round, next(self._order), job))

    def _dispatch(self) -> None:
        for step, (queue, pool) in enumerate(zip(self.queues, self.pools, strict=True)):
            while queue and pool.idle and not (step == 0 and len(self.queues[1]) >= self.backlog):
                job = heapq.heappop(queue)[2]
                pool.submit(job, STEPS[step], *self._arguments(job))

    def _arguments(self, job: Job) -> tuple[Any, ...]:
        if job.step == 0:
            return job.task.blanks, job.task.sampler
        if job.step == 1:
            return job.outcomes[0].crystals, None, job.task.relaxation
        return job.outcomes[1], take_out(job.task, job.outcomes[1]), job.task.found

    def _receive(self, step: int, outcome: Done | Failed) -> None:
        job: Job = outcome.job
        if isinstance(outcome, Failed):
            self._failed(job, outcome)
            return
        job.outcomes.append(outcome.value)
        job.step += 1
        if job.step < len(STEPS):
            self._enqueue(job)
            return
        self._keep(job.task, task_rows(job.task, *job.outcomes, judged_by=self.judged_by))

    def _failed(self, job: Job, outcome: Failed) -> None:
        job.failures[outcome.cause] += 1
        if job.failures[outcome.cause] < ATTEMPTS.get(outcome.cause, ATTEMPTS_OTHERWISE):
            self._enqueue(job)
            return
        self._keep(job.task, failed_rows(job.task, outcome.cause, outcome.message, judged_by=self.judged_by))

    def _keep(self, task: Task, rows: list[dict[str, Any]]) -> None:
        self.check()
        self.store.append(task.identity, rows)
        self._stored(task)

    def _stored(self, task: Task) -> None:
        """Let the campaign see the task as it stands on disk."""
        rows = self.store.rows([task.identity])
        self.rows[task.round] += rows
        self.open[task.round].discard(task.identity)
        for row in rows:
            self.progress.add(row)


def _pools(config: SearchConfig, reference: Reference, capacity: Capacity) -> list[Pool]:
    """Generators, relaxers and symmetrizers as the machine allows."""
    resources, models = config.resources, config.models
    on_gpu = models.device != "cpu" and capacity.gpus > 0
    if models.device == "cuda" and not on_gpu:
        raise ValueError("models.device: cuda was asked for, but Ray sees no GPU; use auto or cpu")
    relaxers = resources.relaxers or max(1, capacity.cpus)
    if relaxers > capacity.cpus:
        raise ValueError(f"resources.relaxers: {relaxers} asked for, but there are {capacity.cpus} CPUs")
    seconds = resources.task_seconds
    # Generators on a CPU and symmetrizers are busy for a few per cent of the time: they share the relaxers' cores.
    light = {"num_cpus": 0}
    return [
        Pool(
            GeneratorActor,
            count=resources.generators,
            options={"num_cpus": 0, "num_gpus": 1} if on_gpu else light,
            arguments={"weights": models.weights, "device": "cuda" if on_gpu else "cpu"},
            seconds=seconds,
        ),
        Pool(
            RelaxerActor,
            count=relaxers,
            options={"num_cpus": 1},
            arguments={"potential": models.potential, "relaxation": config.relaxation, "screening": config.screening},
            seconds=seconds,
        ),
        Pool(
            SymmetrizerActor,
            count=1,
            options=light,
            arguments={
                "reference": reference,
                "elements": config.compositions.elements,
                "guests": config.frameworks.guests,
                "ladder": config.frameworks.ladder,
                "screening": config.screening,
            },
            seconds=seconds,
        ),
    ]


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """First SIGINT or SIGTERM: stop at once, nothing stored is lost. Second: the default, which ends the process."""
    stop = threading.Event()

    def handle(number: int, _: Any) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
