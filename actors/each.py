"""Calling one method for each of many jobs, on actors of one class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from actors.cluster import connected
from actors.pool import Done, Failed, Pool, wait_any


def call_each(
    cls: type,
    method: str,
    jobs: Sequence[Any],
    *,
    arguments: Mapping[str, Any],
    workers: int,
    seconds: float,
    address: str = "local",
) -> Iterator[Done | Failed]:
    """Outcomes in the order in which they come; a call that fails is not repeated.

    Args:
        cls: a class with a method ``ready``, see `Pool`.
        method: called with each job.
        jobs: arguments; the ``job`` of an outcome is its place here.
        arguments: keyword arguments of the class.
        workers: number of actors, one CPU each.
        seconds: time limit of one call.
        address: of Ray; ``local`` starts a private instance.

    Raises:
        RuntimeError: no actor can be started.
    """
    with connected(address):
        pool = Pool(cls, count=workers, options={"num_cpus": 1}, arguments=arguments, seconds=seconds)
        waiting, left = list(enumerate(jobs))[::-1], len(jobs)
        while left:
            pool.scale(workers, waiting=len(waiting))
            while waiting and pool.idle:
                place, job = waiting.pop()
                pool.submit(place, method, job)
            for outcome in pool.collect(wait_any([pool], 0.5)):
                left -= 1
                yield outcome
        pool.close()
