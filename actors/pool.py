"""A pool of identical Ray actors, one call each at a time, with a time limit; replaced if they die or hang."""

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

FAILED_STARTS = 3  # in a row, after which no more starts are tried for a while
PAUSE = 60.0  # s until the next try, while other actors work
MEMORY_PAUSE = 10.0  # s without calls and new actors after Ray killed some for lack of memory, as it may kill more


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
        cause: of the failure.
        message: one line for the user.
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

    An actor becomes available once its constructor has finished, so the time to start a machine and to load weights
    does not count towards the time limit of a call.

    Args:
        cls: a plain class with a method ``ready``; it is wrapped here.
        count: number of actors, see `scale`.
        options: Ray resources of one actor, for example ``{"num_cpus": 1}``.
        arguments: keyword arguments of the class.
        seconds: time limit of one call; a call that takes longer is given up and its actor replaced.

    Attributes:
        limit: maximum number of actors.
        busy: total time (s) of all actors in calls.
        present: total time (s) of all actors since they started, busy or idle.
        lost: number of actors that died or were killed for hanging.
    """

    def __init__(
        self, cls: type, *, count: int, options: Mapping[str, Any], arguments: Mapping[str, Any], seconds: float
    ) -> None:
        self._remote: Any = ray.remote(cls).options(max_restarts=0, max_task_retries=0, **options)
        self._arguments = {name: ray.put(value) for name, value in arguments.items()}
        self._seconds = seconds
        self.name = cls.__name__
        self._starting: dict[Any, ActorHandle] = {}
        self._asked: set[Any] = set()  # those of them that had started before and are being checked
        self._idle: list[tuple[ActorHandle, float]] = []  # with the time since when; the last one is used first
        self._calls: dict[Any, _Call] = {}
        self._failed_starts, self._start_failure, self._not_before = 0, "", -math.inf
        self._suspect_since, self._is_suspect = -math.inf, False  # see `suspect`
        self._let_go = 0
        self._looked = time.monotonic()
        self.limit, self.busy, self.present, self.lost = count, 0.0, 0.0, 0
        self.scale(count)

    @property
    def size(self) -> int:
        """Number of actors, including those that are starting."""
        return len(self._starting) + self.started

    @property
    def started(self) -> int:
        """Number of actors that have started, busy or idle."""
        return len(self._idle) + len(self._calls)

    @property
    def idle(self) -> int:
        """Number of idle actors that are known to be alive."""
        return 0 if self._is_suspect else len(self._idle)

    @property
    def references(self) -> list[Any]:
        """Object references of the running calls and of the actors that are starting."""
        return [*self._calls, *self._starting]

    def scale(self, limit: int, *, waiting: int = 0, patience: float = math.inf) -> None:
        """Start missing actors, and end those that are too many or have been idle for long.

        Args:
            limit: maximum number of actors; busy ones are never ended.
            waiting: number of jobs waiting for an actor. Actors ended for idling are started again when all others are
                busy.
            patience: seconds after which an idle actor is ended, so that its machine can be released; one always stays.

        Raises:
            RuntimeError: no actor is running and none can be started; with the reason.
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
        """Pause calls and starts for a while; afterwards, use only those idle actors that still respond.

        When a machine is short of memory, Ray kills several processes, including idle ones, over several seconds.
        """
        self._suspect_since, self._is_suspect = time.monotonic(), True

    def submit(self, job: Any, method: str, *arguments: Any) -> None:
        """Call ``method`` on an idle actor; ``job`` is returned with the outcome."""
        actor, _ = self._idle.pop()
        reference = getattr(actor, method).remote(*arguments)
        self._calls[reference] = _Call(job, actor, time.monotonic())

    def collect(self, ready: set[Any]) -> list[Done | Failed]:
        """Outcomes of the calls in ``ready`` and of those past their time limit; started actors become idle."""
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
        except Exception as error:  # anything that a constructor raises
            self._end(actor)
            if not asked:
                self._not_started(error)
            return
        self._failed_starts = 0
        self._idle.append((actor, time.monotonic()))

    def _not_started(self, error: Exception) -> None:
        cause, now = _cause(error), time.monotonic()
        again = cause == Reason.OOM and self._is_suspect  # Ray kills several at once
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
        except Exception as error:  # no error of an actor may end the search
            self._end(call.actor)
            cause = _cause(error)
            if cause == Reason.NODE:
                self._ask_idle()
            return Failed(call.job, cause, _line(error), seconds)
        self._idle.append((call.actor, now))
        return Done(call.job, value, seconds)

    def _ask_idle(self) -> None:
        """Check that idle actors still respond: those lost with a machine or for lack of memory must get no calls."""
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
    """References that are ready, after at most ``seconds``; just sleeps if no call is running."""
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
    """Whether the actor was lost with its machine; Ray says so only in the message."""
    return "its node has died" in str(error)


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[0 if isinstance(error, OutOfMemoryError) else -1][:500]  # its other lines are advice
