"""The Ray driver: keeps actors busy with the tasks of the campaign and stores what comes back.

Everything that decides is in `search.campaign` and `search.policy`; everything that computes is in `model`. Here are
only queues, retries and the order in which things are written: a task's rows are on disk before the campaign sees them.
"""

from __future__ import annotations

import heapq
import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from actors.cluster import connected
from actors.pool import Done, Failed
from actors.workers import ACTORS
from model.reference import Reference
from search.campaign import Campaign, Task
from search.config import SearchConfig
from search.crew import STEPS, Crew
from search.journal import Attempt, Attempts, Journal
from search.lock import locked
from search.pipeline import alone, failed_rows, take_out, task_rows
from search.prepare import describe_reference, remember, same_search, volume_estimate
from search.progress import Progress
from search.results import DamagedPart, ResultStore, write_json
from search.storage import RunPath
from search.tally import Tally

ATTEMPTS = {"node": 5}  # losses of a node say little about a task; everything else is tried twice
ATTEMPTS_OTHERWISE = 2
LOOK_SECONDS = 0.5  # between two looks at the actors
DRAIN_SECONDS = 2.0  # after the first signal; `ray job stop` leaves three
JUDGE = STEPS.index("judge")


@dataclass(eq=False)
class Job:
    """A task on its way, with what the stages so far have returned.

    Attributes:
        task: the task, or one candidate of it that goes on alone.
        candidate: the number of that one.
        attempt: what failed so far.
        seconds: of calls, by step.
    """

    task: Task
    candidate: int | None = None
    attempt: Attempt = field(default_factory=Attempt)
    step: int = 0
    outcomes: list[Any] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def given_up(self) -> str | None:
        """The cause that it has failed of too often; None while it may be tried."""
        for cause, count in self.attempt.failures.items():
            if count >= ATTEMPTS.get(cause, ATTEMPTS_OTHERWISE):
                return cause
        return None

    @property
    def name(self) -> dict[str, Any]:
        """Whom a line of the journal is about."""
        task = {"task": self.task.identity, "step": STEPS[min(self.step, JUDGE)]}
        return task if self.candidate is None else {**task, "candidate": f"{self.task.identity}-{self.candidate:02d}"}


@dataclass(frozen=True)
class Outcome:
    """How a search ended."""

    finished: bool
    candidates: int
    seconds: float
    reason: str | None  # why it ended before all rounds were done
    summary: dict[str, Any]


def run_search(
    config: SearchConfig,
    run: RunPath,
    reference: Reference,
    *,
    report: Callable[[Progress], None] = lambda progress: None,
    actors: Sequence[type] = ACTORS,
) -> Outcome:
    """Run or resume a search.

    Args:
        config: the search.
        run: folder of the run, or its place in an object store; what it holds already is kept and not repeated.
        reference: phases of the system.
        report: called with the progress about once a second.
        actors: classes of generator, relaxer and symmetrizer.

    Raises:
        ValueError: the folder holds another search, another process is at work in it, or the machine has not what the
            configuration asks for.
        RuntimeError: actors cannot start, or another search has taken over a run in an object store.
        OSError: the disk is full or fails; what was stored is as it was.
    """
    run.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        check = stack.enter_context(locked(run))
        same_search(run, config, reference)
        remember(run, config, reference)
        found = stack.enter_context(connected(config.resources.address))
        stop = stack.enter_context(_signals())
        crew = Crew(config, reference, found, actors)
        stack.callback(crew.close)
        driver = Driver(config, run, reference, crew, report, check)
        stack.callback(driver.journal.close)
        return driver.run(stop)


class Driver:
    """One search with one crew."""

    def __init__(
        self,
        config: SearchConfig,
        run: RunPath,
        reference: Reference,
        crew: Crew,
        report: Callable[[Progress], None] = lambda progress: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.config, self.crew, self.report, self.check, self.folder = config, crew, report, check, run
        self.store, self.journal, self.attempts = ResultStore(run), Journal(run), Attempts(run)
        self.campaign = Campaign(config, lambda cell: volume_estimate(config, reference, cell))
        self.judged_by = {"potential": config.models.potential, "reference": describe_reference(reference)}
        self.progress = Progress(expected=config.candidates)
        self.rounds = config.policy.rounds  # fewer once there is reason to stop
        self.enough: str | None = None  # that reason
        self.rows: dict[int, list[dict[str, Any]]] = {}  # round -> rows of its stored tasks
        self.tasks: dict[int, list[Task]] = {}  # round -> its plan
        self.open: dict[int, set[str]] = {}  # round -> tasks not stored yet
        self.queues: list[list[tuple[int, int, Job]]] = [[] for _ in STEPS]  # a heap a step
        self.parts: dict[str, dict[int, list[dict[str, Any]]]] = {}  # split task -> rows of its candidates
        self.tally = Tally(crew)
        self._order, self._looked = itertools.count(), -math.inf

    def run(self, stop: threading.Event) -> Outcome:
        """Work until all rounds are stored or ``stop`` is set."""
        self.journal.note("started", rounds=self.rounds, actors=[pool.limit for pool in self.crew.pools])
        self.store.tidy()
        self.progress.message, stored = "starting", self.store.tasks()
        try:
            while not stop.is_set():
                self._plan(stored)
                if self.finished:
                    break
                self._turn(STEPS)
            self._drain()
        except RuntimeError as error:  # nothing is wrong with the disk: say what there is to say
            self._note(str(error))
            self._end()
            raise
        summary = self._end()
        return Outcome(self.finished, self.progress.done, summary["seconds"], self.enough, summary)

    @property
    def finished(self) -> bool:
        """Whether all rounds are planned and stored."""
        return len(self.open) == self.rounds and not any(self.open.values())

    def summary(self) -> dict[str, Any]:
        """What this start has done; docs/results.md explains it."""
        progress = self.progress
        ended = {"finished": self.finished, "candidates": progress.done, "resumed": progress.resumed}
        return ended | self.tally.summary() | {"notes": progress.notes}

    # --- planning -----------------------------------------------------------------------------------------------------

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
            with self.tally.timed("plan"):
                tasks = self.tasks[number] = self.campaign.plan(number, rows, pending)
            self.open[number], self.rows[number] = {task.identity for task in tasks}, []
            for task in tasks:
                if task.identity not in stored or not self._take_over(task):
                    self._go_on(Job(task, attempt=self.attempts.of(task.identity)))
            self.progress.round = number
            number += 1

    def _out_of_time(self) -> str | None:
        hours = self.config.policy.stop.hours
        if hours is None or time.monotonic() - self.progress.began < 3600 * hours:
            return None
        return f"{hours:g} hours have passed"

    def _take_over(self, task: Task) -> bool:
        """Whether the rows of an earlier start are there; a damaged part is set aside and its task done again."""
        try:
            self._stored(task)
        except DamagedPart as error:
            aside = self.store.set_aside(task.identity)
            self._note(f"{error.args[0]} It is now {aside}.", task=task.identity)
            return False
        self.progress.resumed += len(task.plans)
        return True

    # --- one turn of the loop -----------------------------------------------------------------------------------------

    def _turn(self, steps: Sequence[str], seconds: float = 0.5) -> None:
        """Give out jobs of ``steps``, wait for something to come back, and see to it."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look_around()
        self._dispatch(steps)
        ready = self.crew.wait(seconds)
        for step, pool in enumerate(self.crew.pools):
            for outcome in pool.collect(ready):
                self._receive(step, outcome)
        self.attempts.save()

    def _dispatch(self, steps: Sequence[str]) -> None:
        full = len(self.queues[1]) >= 2 * self.crew.pools[1].limit + 2
        for step, queue, pool in zip(STEPS, self.queues, self.crew.pools, strict=True):
            while step in steps and queue and pool.idle and not (full and step == STEPS[0]):
                job = heapq.heappop(queue)[2]
                pool.submit(job, step, *self._arguments(job))

    def _arguments(self, job: Job) -> tuple[Any, ...]:
        if job.step == 0:
            return job.task.blanks, job.task.sampler
        if job.step == 1:
            return job.outcomes[0].crystals, None, job.task.relaxation
        return job.outcomes[1], take_out(job.task, job.outcomes[1]), job.task.found

    def _look_around(self) -> None:
        """See to the actors, and tell what is to be told."""
        self._looked = time.monotonic()
        self.crew.staff([len(queue) for queue in self.queues])
        self.tally.look()
        for note in self.crew.notes:
            self._note(note)
        self.crew.notes.clear()
        self.journal.save()
        missing = [pool.name for pool in self.crew.pools if not pool.started]
        self.progress.message = f"waiting for {', '.join(missing)} to start" if missing else "running"
        self.report(self.progress)

    def _drain(self) -> None:
        """After a signal: bring home what is nearly done, and begin nothing that takes long."""
        deadline = time.monotonic() + DRAIN_SECONDS
        judge = self.crew.pools[JUDGE]
        while not self.finished and time.monotonic() < deadline and (self.queues[JUDGE] or judge.started > judge.idle):
            self._turn(STEPS[JUDGE:], 0.1)

    def _end(self) -> dict[str, Any]:
        self.progress.message = "finished" if self.finished else "stopped"
        summary = self.summary()
        self.journal.note("ended", **summary)
        write_json(self.folder / "summary.json", summary)
        self.report(self.progress)
        return summary

    # --- what comes back ----------------------------------------------------------------------------------------------

    def _receive(self, step: int, outcome: Done | Failed) -> None:
        job: Job = outcome.job
        self.tally.call(STEPS[step], outcome)
        job.seconds[STEPS[step]] = job.seconds.get(STEPS[step], 0.0) + outcome.seconds
        if isinstance(outcome, Failed):
            self._failed(job, outcome)
            return
        job.outcomes.append(outcome.value)
        job.step += 1
        if job.step < len(STEPS):
            self._enqueue(job)
            return
        self._complete(job, task_rows(job.task, *job.outcomes, judged_by=self.judged_by))

    def _failed(self, job: Job, outcome: Failed) -> None:
        job.attempt = self.attempts.add(job.task.identity, job.candidate, outcome.cause, outcome.message)
        self.journal.note(
            "failed", **job.name, cause=outcome.cause, message=outcome.message, seconds=round(outcome.seconds, 3)
        )
        if not job.given_up:
            self.tally.retries[f"{STEPS[job.step]} {outcome.cause}"] += 1
        self._go_on(job)

    def _go_on(self, job: Job) -> None:
        """Try again; or, after too many failures, go through a task crystal by crystal; or give a crystal up."""
        cause = job.given_up
        if cause is None:
            self._enqueue(job)
        elif cause != "node" and len(job.task.plans) > 1:
            self._split(job)
        else:
            self._complete(job, failed_rows(job.task, cause, job.attempt.message, judged_by=self.judged_by))

    def _split(self, job: Job) -> None:
        """Send each candidate on alone, so that one that kills its process takes no other with it."""
        self.tally.splits += 1
        self.journal.note("split", **job.name)
        self.parts[job.task.identity] = {}
        for number in range(len(job.task.plans)):
            attempt = self.attempts.of(job.task.identity, number)
            outcomes = [alone(outcome, number) for outcome in job.outcomes]
            self._go_on(Job(job.task.only(number), number, attempt, job.step, outcomes))

    def _enqueue(self, job: Job) -> None:
        heapq.heappush(self.queues[job.step], (job.task.round, next(self._order), job))

    def _complete(self, job: Job, rows: list[dict[str, Any]]) -> None:
        """Store a task, once the rows of all its candidates are there."""
        task = job.task
        if job.candidate is not None:
            parts = self.parts[task.identity]
            parts[job.candidate] = rows
            whole = next(one for one in self.tasks[task.round] if one.identity == task.identity)
            if len(parts) < len(whole.plans):
                return
            task, rows = whole, [row for _, part in sorted(self.parts.pop(task.identity).items()) for row in part]
        self.check()
        with self.tally.timed("store"):
            self.store.append(task.identity, rows)
            self._stored(task)
        self.attempts.forget(task.identity)
        self.tally.stored(rows)
        seconds = {step: round(value, 3) for step, value in job.seconds.items()}
        self.journal.note("stored", task=task.identity, candidates=len(rows), seconds=seconds)

    def _stored(self, task: Task) -> None:
        """Let the campaign see the task as it stands on disk."""
        rows = self.store.rows([task.identity])
        self.rows[task.round] += rows
        self.open[task.round].discard(task.identity)
        for row in rows:
            self.progress.add(row)

    def _note(self, text: str, **fields: Any) -> None:
        """Something that a person should know."""
        self.progress.notes.append(text)
        self.journal.note("note", text=text, **fields)


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
