"""Pools of real Ray actors that work, fail, crash and hang."""

import os
import sys
import time
from collections.abc import Iterator

import pytest
from ray import cloudpickle

from actors.cluster import Capacity, connected
from actors.pool import Done, Failed, Pool, wait_any

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import this file


class Worker:
    """Misbehaves on demand."""

    def __init__(self, broken: bool = False) -> None:
        if broken:
            raise ValueError("no such weights")

    def ready(self) -> None:
        """Say that the constructor is through."""

    def double(self, number: int) -> int:
        return 2 * number

    def refuse(self) -> None:
        raise ValueError("cell has no volume")

    def refuse_unpicklably(self) -> None:
        class Local(Exception):
            def __reduce__(self) -> str:
                raise TypeError("cannot be pickled")

        raise Local("odd")

    def crash(self) -> None:
        os._exit(1)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@pytest.fixture(scope="module")
def capacity() -> Iterator[Capacity]:
    with connected("local") as found:
        yield found


def make_pool(count: int = 1, seconds: float = 60.0, **arguments: object) -> Pool:
    return Pool(Worker, count=count, options={"num_cpus": 0}, arguments=arguments, seconds=seconds)


def run(pool: Pool, jobs: list[tuple[str, tuple]]) -> dict[int, Done | Failed]:
    """Put all jobs through the pool; job numbers are their places."""
    outcomes: dict[int, Done | Failed] = {}
    waiting = list(enumerate(jobs))
    deadline = time.monotonic() + 120
    while len(outcomes) < len(jobs):
        assert time.monotonic() < deadline
        while waiting and pool.idle:
            place, (method, arguments) = waiting.pop(0)
            pool.submit(place, method, *arguments)
        for outcome in pool.collect(wait_any([pool], 0.2)):
            outcomes[outcome.job] = outcome
    return outcomes


def test_the_local_ray_offers_this_machines_cores(capacity):
    assert capacity.cpus == len(os.sched_getaffinity(0))


def test_results_come_back_with_their_jobs(capacity):
    pool = make_pool(count=2)
    pool.check()
    outcomes = run(pool, [("double", (n,)) for n in range(7)])
    assert {place: outcome.value for place, outcome in outcomes.items()} == {n: 2 * n for n in range(7)}
    assert pool.idle == 2
    pool.close()


def test_every_way_to_fail_is_told_apart_and_the_pool_goes_on(capacity):
    pool = make_pool(seconds=8.0)
    pool.check()
    jobs = [("refuse", ()), ("refuse_unpicklably", ()), ("crash", ()), ("sleep", (100,)), ("double", (4,))]
    outcomes = run(pool, jobs)
    assert [getattr(outcomes[n], "cause", "done") for n in range(5)] == ["error", "error", "crashed", "hung", "done"]
    assert "cell has no volume" in outcomes[0].message
    assert "no answer within 8 s" in outcomes[3].message
    assert outcomes[4].value == 8
    pool.close()


def test_an_actor_that_cannot_start_is_reported_before_any_work(capacity):
    pool = make_pool(broken=True)
    with pytest.raises(RuntimeError, match=r"Worker does not start: .*no such weights"):
        pool.check()
    pool.close()
