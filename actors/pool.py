"""A pool of equal Ray actors: one call in flight each, with a deadline, replaced when they die or hang."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Done:
    """A call that returned."""

    job: Any
    value: Any


@dataclass(frozen=True)
class Failed:
    """A call that did not return.

    Attributes:
        job: what `Pool.submit` was given.
        cause: error | crashed | oom | hung | node.
        message: one line for a person.
    """

    job: Any
    cause: str
    message: str


@dataclass(eq=False)
class _Call:
    job: Any
    actor: ActorHandle
    deadline: float


class Pool:
    """Actors of one class.

    Args:
        cls: a plain class; it is wrapped here.
        count: number of actors.
        options: Ray resources of one actor, for example ``{"num_cpus": 1}``.
        arguments: keyword arguments of the class.
        seconds: deadline of one call; a call that takes longer is given up and its actor replaced.
    """

    def __init__(
        self, cls: type, *, count: int, options: Mapping[str, Any], arguments: Mapping[str, Any], seconds: float
    ) -> None:
        self._remote: Any = ray.remote(cls).options(max_restarts=0, max_task_retries=0, **options)
        self._arguments = dict(arguments)
        self._seconds = seconds
        self._name = cls.__name__
        self._idle = [self._start() for _ in range(count)]
        self._calls: dict[Any, _Call] = {}
        self.size = count

    def _start(self) -> ActorHandle:
        actor: ActorHandle = self._remote.remote(**self._arguments)
        return actor

    @property
    def idle(self) -> int:
        """How many actors wait for work."""
        return len(self._idle)

    @property
    def references(self) -> list[Any]:
        """Object references of the calls in flight."""
        return list(self._calls)

    def submit(self, job: Any, method: str, *arguments: Any) -> None:
        """Call ``method`` on an idle actor; ``job`` comes back with the outcome."""
        actor = self._idle.pop()
        reference = getattr(actor, method).remote(*arguments)
        self._calls[reference] = _Call(job, actor, time.monotonic() + self._seconds)

    def collect(self, ready: set[Any]) -> list[Done | Failed]:
        """Outcomes of the calls in ``ready`` and of those past their deadline."""
        now = time.monotonic()
        finished = [reference for reference, call in self._calls.items() if reference in ready or now > call.deadline]
        return [self._finish(reference, reference in ready) for reference in finished]

    def _finish(self, reference: Any, ready: bool) -> Done | Failed:
        call = self._calls.pop(reference)
        if not ready:
            self._replace(call.actor)
            return Failed(call.job, "hung", f"no answer within {self._seconds:.0f} s")
        try:
            value = ray.get(reference)
        except RayTaskError as error:
            self._idle.append(call.actor)
            return Failed(call.job, "error", _last_line(error))
        except Exception as error:  # whatever an actor raises must not end the search
            self._replace(call.actor)
            return Failed(call.job, _cause(error), _last_line(error))
        self._idle.append(call.actor)
        return Done(call.job, value)

    def _replace(self, actor: ActorHandle) -> None:
        ray.kill(actor)
        self._idle.append(self._start())

    def check(self) -> None:
        """Wait until every actor is up; raises RuntimeError with the reason when one cannot start."""
        try:
            ray.get([actor.ready.remote() for actor in self._idle], timeout=self._seconds)
        except Exception as error:
            raise RuntimeError(f"{self._name} does not start: {_last_line(error)}") from error

    def close(self) -> None:
        """End all actors."""
        for actor in [*self._idle, *(call.actor for call in self._calls.values())]:
            ray.kill(actor)
        self._idle, self._calls = [], {}


def wait_any(pools: Sequence[Pool], seconds: float) -> set[Any]:
    """References that are ready, after at most ``seconds``; sleeps when nothing is in flight."""
    references = [reference for pool in pools for reference in pool.references]
    if not references:
        time.sleep(seconds)
        return set()
    ready, _ = ray.wait(references, num_returns=1, timeout=seconds)
    also, _ = ray.wait(references, num_returns=len(references), timeout=0)
    return {*ready, *also}


def _cause(error: Exception) -> str:
    if isinstance(error, OutOfMemoryError):
        return "oom"
    if isinstance(error, NodeDiedError | ActorUnavailableError):
        return "node"
    return "crashed" if isinstance(error, ActorDiedError) else "error"


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:500] if lines else type(error).__name__
