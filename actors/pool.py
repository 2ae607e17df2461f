"""A pool of equal Ray actors: one call in flight each, with a deadline, replaced when they die or hang."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayTaskError,
)

from model.reasons import Reason

FAILED_STARTS = 3  # in a row, after which starting again is no use
PAUSE = 60.0  # s, before it is tried again all the same while other actors work
MEMORY_PAUSE = 10.0  # s without calls and new actors after Ray has ended some for memory: it goes on to end more


@dataclass(frozen=True)
class Done:
    """A call that returned.

    Attributes:
        job: what `Pool.submit` was given.
        value: what the method returned.
        seconds: from `Pool.submit` to the answer.
    """

    job: Any
    value: Any
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A call that did not return.

    Attributes:
        job: what `Pool.submit` was given.
        cause: why.
        message: one line for a person.
        seconds: from `Pool.submit` to the failure.
    """

    job: Any
    cause: Reason
    message: str
    seconds: float


@dataclass(eq=False)
class _Call:
    job: Any
    actor: ActorHandle
    began: float


class Pool:
    """Actors of one class.

    An actor counts as idle once its constructor is through, so neither the start of a machine nor the loading of
    weights is held against a call.

    Args:
        cls: a plain class with a method ``ready``; it is wrapped here.
        count: number of actors, see `scale`.
        options: Ray resources of one actor, for example ``{"num_cpus": 1}``.
        arguments: keyword arguments of the class.
        seconds: deadline of one call; a call that takes longer is given up and its actor replaced.

    Attributes:
        limit: how many actors there may be.
        busy: seconds that actors have spent in calls.
        present: seconds that actors have spent started, at work or idle.
        lost: actors that died or were ended for hanging.
    """

    def __init__(
        self, cls: type, *, count: int, options: Mapping[str, Any], arguments: Mapping[str, Any], seconds: float
    ) -> None:
        self._remote: Any = ray.remote(cls).options(max_restarts=0, max_task_retries=0, **options)
        self._arguments = {name: ray.put(value) for name, value in arguments.items()}
        self._seconds = seconds
        self.name = cls.__name__
        self._starting: dict[Any, ActorHandle] = {}
        self._asked: set[Any] = set()  # of those, the ones that had started before
        self._idle: list[tuple[ActorHandle, float]] = []  # and since when; the last one is taken first
        self._calls: dict[Any, _Call] = {}
        self._failed_starts, self._start_failure, self._not_before = 0, "", -math.inf
        self._suspect_since, self._is_suspect = -math.inf, False  # when, and whether still, see `suspect`
        self._let_go = 0
        self._looked = time.monotonic()
        self.limit, self.busy, self.present, self.lost = count, 0.0, 0.0, 0
        self.scale(count)

    @property
    def size(self) -> int:
        """How many actors there are, those that are starting among them."""
        return len(self._starting) + self.started

    @property
    def started(self) -> int:
        """How many actors work or could."""
        return len(self._idle) + len(self._calls)

    @property
    def idle(self) -> int:
        """How many actors wait for work and are known to be there."""
        return 0 if self._is_suspect else len(self._idle)

    @property
    def references(self) -> list[Any]:
        """Object references of the calls in flight and of the actors that are starting."""
        return [*self._calls, *self._starting]

    def scale(self, limit: int, *, waiting: int = 0, patience: float = math.inf) -> None:
        """Start what is missing, and let go what is too much or has been idle for long.

        Args:
            limit: how many actors there may be; busy ones are never ended for it.
            waiting: jobs that wait for an actor. Actors that were let go come back when all others are busy.
            patience: seconds after which an idle actor is let go, so that its machine can be; one always stays.

        Raises:
            RuntimeError: no actor works and none can be started, with the reason.
        """
        self.limit, now = limit, time.monotonic()
        if self._is_suspect and now - self._suspect_since > MEMORY_PAUSE:
            self._is_suspect = False
            self._ask_idle()
        if waiting and not self._idle:
            self._let_go = 0
        while self._idle and self.size > 1 and now - self._idle[0][1] > patience:
            ray.kill(self._idle.pop(0)[0])
            self._let_go += 1
        while self.size > limit and (self._starting or self._idle):
            ray.kill(self._starting.popitem()[1] if self._starting else self._idle.pop(0)[0])
        if self._failed_starts >= FAILED_STARTS:
            if not self.started:
                raise RuntimeError(f"{self.name} does not start: {self._start_failure}")
            if now < self._not_before:
                return
        if self._is_suspect:
            return
        for _ in range(max(1, limit - self._let_go) - self.size):
            actor = self._remote.remote(**self._arguments)
            self._starting[actor.ready.remote()] = actor

    def suspect(self) -> None:
        """Give idle actors no calls for a while, and then to those only that say that they are there; start no others.

        When a machine is short of memory, Ray ends several processes, idle ones too, and may go on for seconds.
        """
        self._suspect_since, self._is_suspect = time.monotonic(), True

    def submit(self, job: Any, method: str, *arguments: Any) -> None:
        """Call ``method`` on an idle actor; ``job`` comes back with the outcome."""
        actor, _ = self._idle.pop()
        reference = getattr(actor, method).remote(*arguments)
        self._calls[reference] = _Call(job, actor, time.monotonic())

    def collect(self, ready: set[Any]) -> list[Done | Failed]:
        """Outcomes of the calls in ``ready`` and of those past their deadline; actors that are up become idle."""
        now = time.monotonic()
        self.present += (now - self._looked) * self.started
        self._looked = now
        for reference in [reference for reference in self._starting if reference in ready]:
            self._register(reference)
        late = now - self._seconds
        finished = [reference for reference, call in self._calls.items() if reference in ready or call.began < late]
        return [self._finish(reference, reference in ready) for reference in finished]

    def _register(self, reference: Any) -> None:
        actor, asked = self._starting.pop(reference), reference in self._asked
        self._asked.discard(reference)
        try:
            ray.get(reference)
        except Exception as error:  # whatever a constructor raises
            self._end(actor)
            if not asked:
                self._not_started(error)
            return
        self._failed_starts = 0
        self._idle.append((actor, time.monotonic()))

    def _not_started(self, error: Exception) -> None:
        cause, now = _cause(error), time.monotonic()
        again = cause == Reason.OOM and self._is_suspect  # several are ended at once
        if cause == Reason.OOM:
            self.suspect()
        if cause == Reason.NODE or again:
            return
        self._failed_starts += 1
        self._start_failure, self._not_before = _line(error), now + PAUSE

    def _finish(self, reference: Any, ready: bool) -> Done | Failed:
        call, now = self._calls.pop(reference), time.monotonic()
        seconds = now - call.began
        self.busy += seconds
        if not ready:
            self._end(call.actor)
            return Failed(call.job, Reason.HUNG, f"no answer within {self._seconds:.0f} s", seconds)
        try:
            value = ray.get(reference)
        except RayTaskError as error:
            self._idle.append((call.actor, now))
            return Failed(call.job, Reason.ERROR, _line(error), seconds)
        except Exception as error:  # whatever an actor raises must not end the search
            self._end(call.actor)
            cause = _cause(error)
            if cause == Reason.NODE:
                self._ask_idle()
            return Failed(call.job, cause, _line(error), seconds)
        self._idle.append((call.actor, now))
        return Done(call.job, value, seconds)

    def _ask_idle(self) -> None:
        """Let idle actors say again that they are there: those that went with the machine, or for want of memory,
        must not be given the next calls.
        """
        again = {actor.ready.remote(): actor for actor, _ in self._idle}
        self._starting |= again
        self._asked |= set(again)
        self._idle = []

    def _end(self, actor: ActorHandle) -> None:
        ray.kill(actor)
        self.lost += 1

    def close(self) -> None:
        """End all actors."""
        calls = [call.actor for call in self._calls.values()]
        for actor in [*self._starting.values(), *(actor for actor, _ in self._idle), *calls]:
            ray.kill(actor)
        self._starting, self._idle, self._calls = {}, [], {}


def wait_any(pools: Sequence[Pool], seconds: float) -> set[Any]:
    """References that are ready, after at most ``seconds``; sleeps when nothing is in flight."""
    references = [reference for pool in pools for reference in pool.references]
    if not references:
        time.sleep(seconds)
        return set()
    ready, _ = ray.wait(references, num_returns=1, timeout=seconds)
    also, _ = ray.wait(references, num_returns=len(references), timeout=0)
    return {*ready, *also}


def _cause(error: Exception) -> Reason:
    if isinstance(error, OutOfMemoryError):
        return Reason.OOM
    if isinstance(error, NodeDiedError | ActorUnavailableError):
        return Reason.NODE
    if isinstance(error, ActorDiedError):
        return Reason.NODE if _node_died(error) else Reason.CRASHED
    return Reason.ERROR


def _node_died(error: ActorDiedError) -> bool:
    """Whether the actor went with its machine; Ray says so in words only."""
    return "its node has died" in str(error)


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[0 if isinstance(error, OutOfMemoryError) else -1][:500]  # advice follows there
