"""The Ray driver: keeps actors busy with the tasks of the search and stores their results.

All decisions are made in `search.planning`, all computation is in `model`. This module only handles queues, retries
and the order of writing: a task's rows are on disk before the planner sees them.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from actors.cluster import connected
from actors.pool import Done, Failed, Pool
from actors.workers import ACTORS
from model.reasons import Reason
from model.relaxation.relax import Relaxation
from model.stages import Analysis, Made, Rejected
from model.thermodynamics.candidate_judge import Said
from model.thermodynamics.reference import Reference
from search.config import SearchConfig
from search.planning.campaign import check_beginning, known_types
from search.planning.frameworks import frameworks_from_files
from search.planning.prepare import same_search, write_run_metadata
from search.planning.tasks import Task, candidate_name
from search.running.actor_pools import ActorPools
from search.running.journal import Attempt, Attempts, Journal
from search.running.pipeline import Provenance, failed_rows, guests_to_remove, task_rows, to_judge
from search.running.progress import Progress, Shown
from search.running.rounds import Question, Rounds
from search.running.signals import stop_signals
from search.running.statistics import RunStatistics, RunSummary
from search.running.steps import NEXT, Step
from search.running.writer import Writer
from search.storage.lock import locked
from search.storage.paths import RunPath
from search.storage.results import DamagedPart, ResultStore, write_json
from search.storage.rows import Row
from search.storage.status import EVERY_SECONDS, write_status

LOOK_SECONDS = 0.5  # between two checks of the actors
WAIT_SECONDS = 0.5  # longest wait for a result
WRITING_SECONDS = 0.02  # longest wait while parts are being written
NOTES_TOLD = 20  # of the latest, in `hostguide status`
DRAIN_SECONDS = 2.0  # to finish after the first signal; `ray job stop` allows three


@dataclass(eq=False, kw_only=True)
class Job:
    """A task in progress, with the results of the steps so far.

    Attributes:
        task: the task, or a single candidate of it that is processed alone.
        alone: the number of that candidate.
        attempt: failures so far.
        step: the next step.
        made: results of generation, one per candidate.
        relaxed: results of relaxation, one per candidate.
        analysed: results of analysis, one per candidate.
        seconds: duration of the calls, by step.
    """

    task: Task
    alone: int | None = None
    attempt: Attempt = field(default_factory=Attempt)
    step: Step = Step.GENERATE
    made: Sequence[Made] = ()
    relaxed: Sequence[Relaxation | Rejected] = ()
    analysed: Sequence[Analysis | None] = ()
    seconds: dict[Step, float] = field(default_factory=dict)

    def only(self, number: int, attempt: Attempt) -> Job:
        """Job of a single candidate; all results so far are lists with one entry per candidate."""
        here = slice(number, number + 1)
        return Job(
            task=self.task.only(number),
            alone=number,
            attempt=attempt,
            step=self.step,
            made=self.made[here],
            relaxed=self.relaxed[here],
            analysed=self.analysed[here],
        )

    @property
    def name(self) -> dict[str, str]:
        """Task, step and candidate, for the journal."""
        task = {"task": self.task.identity, "step": self.step}
        return task if self.alone is None else {**task, "candidate": candidate_name(self.task.identity, self.alone)}


@dataclass(frozen=True)
class SearchOutcome:
    """How a search ended.

    Attributes:
        summary: of this start.
        reason: why it ended before all rounds were done, if it did so by itself.
        out_of_time: whether its time limit ended it; the same search can be resumed.
    """

    summary: RunSummary
    reason: str | None
    out_of_time: bool = False


def run_search(
    config: SearchConfig,
    run: RunPath,
    reference: Reference,
    *,
    report: Callable[[Progress], None] = lambda progress: None,
    actors: Sequence[type] = ACTORS,
    judge_reference: Reference | None = None,
    until: float = math.inf,
) -> SearchOutcome:
    """Run or resume a search.

    Args:
        config: the search.
        run: folder of the run, or its address in an object store; stored results are kept and not repeated.
        reference: phases of the system.
        report: called with the progress about once a second.
        actors: classes of crystal maker, relaxer, analyser and judge.
        judge_reference: phases of the system with the energies of the judge; needed if the search has one.
        until: time of `time.monotonic` at which to stop; what is in flight then is dropped.

    Raises:
        ValueError: the generators have nothing to start from, the folder contains another search or is in use by
            another process, or the machine lacks resources that the configuration requests.
        RuntimeError: actors cannot start, or another search has taken over a run in an object store.
        OSError: the disk is full or fails; stored results are unaffected.
    """
    check_beginning(config, frameworks_from_files(config.frameworks.files), known_types(config))
    run.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        check = stack.enter_context(locked(run))
        same_search(run, config, reference, judge_reference)
        write_run_metadata(run, config, reference, judge_reference)
        found = stack.enter_context(connected(config.resources.address))
        stop = stack.enter_context(stop_signals())
        pools = ActorPools(config, reference, found, actors, judge_reference)
        stack.callback(pools.close)
        driver = Driver(config, run, reference, pools, report, check)
        stack.callback(driver.close)
        return driver.run(stop, until)


class Driver:
    """One search with its actors."""

    def __init__(
        self,
        config: SearchConfig,
        run: RunPath,
        reference: Reference,
        pools: ActorPools,
        report: Callable[[Progress], None] = lambda progress: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.config, self.actors, self.report, self.check, self.folder = config, pools, report, check, run
        self.store, self.journal, self.attempts = ResultStore(run), Journal(run), Attempts(run)
        self.provenance = Provenance.of(config, reference)
        self.progress = Progress(expected=config.candidates, judged=config.judge is not None)
        self.rounds = Rounds(config, self.store)
        self._stored_before: set[str] = set()  # tasks that were stored before this start
        self.queues: dict[Step, list[tuple[int, int, Job | Question]]] = {step: [] for step in Step}  # heaps
        self.parts: dict[str, dict[int, list[Row]]] = {}  # split task -> rows by candidate
        self.writer, self.statistics = Writer(self.store), RunStatistics(pools)
        self._order, self._looked, self._told = itertools.count(), -math.inf, -math.inf

    def run(self, stop: threading.Event, until: float = math.inf) -> SearchOutcome:
        """Work until all rounds are stored, ``stop`` is set, or it is time (`time.monotonic`)."""
        hours = self.config.policy.stop.hours
        self.progress.until = until if hours is None else min(until, self.progress.began + 3600 * hours)
        actors = {step: pool.limit for step, pool in self.actors.pools.items()}
        self.journal.note("started", rounds=self.rounds.count, actors=actors)
        self.store.tidy()
        self._stored_before = self.store.tasks()
        self.rounds.begin(self._stored_before)
        # An earlier start may have ended between storing a task and forgetting its failures.
        for task in self._stored_before:
            self.attempts.forget(task)
        try:
            while not (self.rounds.finished or stop.is_set() or time.monotonic() >= until):
                recovered = self._recover()
                self._ask()
                self._turn(list(self.actors.pools), 0.0 if recovered else WAIT_SECONDS)
            self._drain()
        except RuntimeError as error:  # the disk still works: write the summary first
            self._note(str(error))
            self._end()
            raise
        out_of_time = not (self.rounds.finished or stop.is_set())
        return SearchOutcome(self._end(), self.rounds.enough, out_of_time)

    def close(self) -> None:
        """Stop the background threads and close the journal."""
        self.writer.close()
        self.journal.close()

    # --- planning -----------------------------------------------------------------------------------------------------

    def _recover(self) -> bool:
        """Take over one complete round of an earlier start; False if there is none, or not yet."""
        rows = self.rounds.recover() if self.rounds.recovering else None
        if rows is None:
            return False
        self._count(rows)
        self.progress.resumed += rows.num_rows
        return True

    def _ask(self) -> None:
        """Ask for the plan of the next round as soon as it can be planned."""
        question = self.rounds.ask()
        if question is not None:
            self._enqueue(Step.PLAN, question.number, question)

    def _planned(self, question: Question, outcome: Done | Failed) -> None:
        """Take over those tasks of a new round that are already stored, and queue the others."""
        if isinstance(outcome, Failed):
            self._not_planned(question, outcome)
            return
        tasks = self.rounds.planned(question, outcome.value)
        found = self.store.histories(self._stored_before.intersection(task.identity for task in tasks))
        for task in tasks:
            if task.identity not in found or not self._take_over(task, found[task.identity]):
                self._go_on(Job(task=task, attempt=self.attempts.of(task.identity)))
        if tasks:
            self.progress.round = question.number

    def _not_planned(self, question: Question, outcome: Failed) -> None:
        """Ask again, after sending the planner all rounds again."""
        number, attempt = question.number, question.attempt
        attempt.count(outcome.cause, outcome.message)
        self.journal.note("failed", round=number, step=Step.PLAN, cause=outcome.cause, message=outcome.message)
        if attempt.too_often:
            raise RuntimeError(f"round {number} cannot be planned: {outcome.message}")
        self.statistics.retries[f"{Step.PLAN} {outcome.cause}"] += 1
        self.rounds.tell_again()

    def _take_over(self, task: Task, rows: Future[pa.Table]) -> bool:
        """Take over a task's stored rows; False if its part was damaged: it is set aside and the task repeated."""
        try:
            self._keep(task, rows.result())
        except DamagedPart as error:
            aside = self.store.set_aside(task.identity)
            self._note(f"{error.args[0]} The file was renamed to {aside}.", task=task.identity)
            return False
        self.progress.resumed += len(task)
        return True

    # --- one turn of the loop -----------------------------------------------------------------------------------------

    def _turn(self, steps: Sequence[Step], seconds: float) -> None:
        """Submit jobs of ``steps``, wait for results, and process them."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look_around()
        for step in steps:
            self._dispatch(step, self.queues[step], self.actors.pools[step])
        ready = self.actors.wait(min(seconds, WRITING_SECONDS) if self.writer.busy else seconds)
        for step, pool in self.actors.pools.items():
            for outcome in pool.collect(ready):
                self._receive(step, outcome)
        self.writer.collect()
        self.attempts.save()

    def _dispatch(self, step: Step, queue: list[tuple[int, int, Job | Question]], pool: Pool) -> None:
        if step == Step.GENERATE and len(self.queues[Step.RELAX]) >= 2 * self.actors.pools[Step.RELAX].limit + 2:
            return
        while queue and pool.idle:
            job = heapq.heappop(queue)[2]
            pool.submit(job, step, *self._arguments(job))

    def _arguments(self, job: Job | Question) -> tuple[Any, ...]:
        if isinstance(job, Question):
            return self.rounds.arguments(job)
        task = job.task
        if job.step == Step.GENERATE:
            return task.templates, task.generators, task.settings
        if job.step == Step.RELAX:
            return [one.crystal for one in job.made], None, task.relaxation, task.guests, task.polish
        if job.step == Step.ANALYSE:
            return job.relaxed, guests_to_remove(task, job.relaxed), task.found_phases, task.max_parent_e_d
        return *to_judge(job.relaxed, job.analysed), task.judge

    def _look_around(self) -> None:
        """Check the actors and report progress."""
        self._looked = time.monotonic()
        self.actors.scale({step: len(queue) for step, queue in self.queues.items()})
        self.statistics.look()
        for note in self.actors.notes:
            self._note(note)
        self.actors.notes.clear()
        self.journal.save()
        missing = [pool.name for pool in self.actors.pools.values() if not pool.started]
        self.progress.message = f"waiting for {', '.join(missing)} to start" if missing else "running"
        self.report(self.progress)
        if self._looked - self._told > EVERY_SECONDS:
            self._tell()

    def _tell(self) -> None:
        """Say what the search does, for `hostguide status`."""
        self._told = time.monotonic()
        write_status(
            self.folder,
            message=self.progress.message,
            expected=self.progress.expected,
            seconds_left=self.progress.seconds_left,
            notes=self.progress.notes[-NOTES_TOLD:],
            actors={
                step: {"busy": pool.started - pool.idle, "waiting": len(self.queues[step])}
                for step, pool in self.actors.pools.items()
            },
        )

    def _drain(self) -> None:
        """After a signal: finish what is nearly done, and start nothing that takes long."""
        deadline = time.monotonic() + DRAIN_SECONDS
        queue, pool = self.queues[Step.ANALYSE], self.actors.pools[Step.ANALYSE]
        while not self.rounds.finished and time.monotonic() < deadline and (queue or pool.started > pool.idle):
            self._turn([Step.ANALYSE], 0.1)

    def _end(self) -> RunSummary:
        self.writer.finish()
        self.progress.message = "finished" if self.rounds.finished else "stopped"
        summary = self.statistics.summary(self.progress, finished=self.rounds.finished)
        self.journal.note("ended", **asdict(summary))
        write_json(self.folder / "summary.json", asdict(summary))
        self._tell()
        self.report(self.progress)
        return summary

    # --- what comes back ----------------------------------------------------------------------------------------------

    def _receive(self, step: Step, outcome: Done | Failed) -> None:
        job: Job | Question = outcome.job
        self.statistics.call(step, outcome)
        if isinstance(outcome, Failed) and outcome.cause == Reason.OOM:
            self.actors.short_of_memory()
        if isinstance(job, Question):
            self._planned(job, outcome)
            return
        job.seconds[step] = job.seconds.get(step, 0.0) + outcome.seconds
        if isinstance(outcome, Failed):
            self._failed(job, outcome)
            return
        if step == Step.JUDGE:
            self._finish(job, outcome.value)
            return
        if step == Step.GENERATE:
            job.made = outcome.value
        elif step == Step.RELAX:
            job.relaxed = outcome.value
        else:
            job.analysed = outcome.value
            if Step.JUDGE not in self.actors.pools:
                self._finish(job)
                return
        job.step = NEXT[step]
        self._queue(job)

    def _finish(self, job: Job, said: Sequence[Said | None] | None = None) -> None:
        self._complete(job, task_rows(job.task, job.made, job.relaxed, job.analysed, self.provenance, said))

    def _failed(self, job: Job, outcome: Failed) -> None:
        job.attempt = self.attempts.add(job.task.identity, job.alone, outcome.cause, outcome.message)
        self.journal.note(
            "failed", **job.name, cause=outcome.cause, message=outcome.message, seconds=round(outcome.seconds, 3)
        )
        if not job.attempt.too_often:
            self.statistics.retries[f"{job.step} {outcome.cause}"] += 1
        self._go_on(job)

    def _go_on(self, job: Job) -> None:
        """Queue the next attempt; after too many failures, split a task into single crystals, or give up a crystal."""
        cause = job.attempt.too_often
        if cause is None:
            self._queue(job)
        elif cause != Reason.NODE and len(job.task) > 1:
            self._split(job)
        else:
            self._complete(job, failed_rows(job.task, cause, job.attempt.message, self.provenance))

    def _split(self, job: Job) -> None:
        """Process each candidate alone, so that one that kills its process does not affect the others."""
        self.statistics.splits += 1
        self.journal.note("split", **job.name)
        self.parts[job.task.identity] = {}
        for number in range(len(job.task)):
            self._go_on(job.only(number, self.attempts.of(job.task.identity, number)))

    def _queue(self, job: Job) -> None:
        self._enqueue(job.step, job.task.round, job)

    def _enqueue(self, step: Step, number: int, job: Job | Question) -> None:
        """Queue a job of this round; earlier rounds have priority."""
        heapq.heappush(self.queues[step], (number, next(self._order), job))

    def _complete(self, job: Job, rows: Sequence[Row]) -> None:
        """Store a task once the rows of all its candidates are complete."""
        task = job.task
        if job.alone is not None:
            parts = self.parts[task.identity]
            parts[job.alone] = list(rows)
            task = self.rounds.whole(task)
            if len(parts) < len(task):
                return
            rows = [row for _, part in sorted(self.parts.pop(task.identity).items()) for row in part]
        self.check()
        self.writer.write(task.identity, rows, partial(self._stored, task, job.seconds))

    def _stored(self, task: Task, times: Mapping[Step, float], rows: pa.Table, seconds: float) -> None:
        """Record that a task is on disk."""
        self.statistics.stored(self._keep(task, rows), seconds)
        self.attempts.forget(task.identity)
        took = {step: round(value, 3) for step, value in times.items()}
        self.journal.note("stored", task=task.identity, candidates=rows.num_rows, seconds=took)

    def _keep(self, task: Task, rows: pa.Table) -> list[Shown]:
        """Count the stored rows of a task."""
        self.rounds.stored(task, rows)
        return self._count(rows)

    def _count(self, rows: pa.Table) -> list[Shown]:
        shown = Shown.of(rows)
        for row in shown:
            self.progress.add(row)
        return shown

    def _note(self, text: str, **fields: Any) -> None:
        """Add a message for the user."""
        self.progress.notes.append(text)
        self.journal.note("note", text=text, **fields)
