"""Pools of real Ray actors that work, fail, crash and hang."""

import os
import sys
import time
from collections.abc import Iterator

import pytest
import ray
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


class Slow(Worker):
    """Takes longer to start than a call may take."""

    def __init__(self) -> None:
        time.sleep(5)


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
        pool.scale(pool.limit)
    return outcomes


def started(pool: Pool, count: int) -> None:
    """Wait until so many actors are up."""
    deadline = time.monotonic() + 120
    while pool.started < count:
        assert time.monotonic() < deadline
        pool.collect(wait_any([pool], 0.2))
        pool.scale(pool.limit)


def test_the_local_ray_offers_this_machines_cores(capacity):
    assert capacity.cpus == len(os.sched_getaffinity(0))


def test_results_come_back_with_their_jobs(capacity):
    pool = make_pool(count=2)
    started(pool, 2)
    outcomes = run(pool, [("double", (n,)) for n in range(7)])
    assert {place: outcome.value for place, outcome in outcomes.items()} == {n: 2 * n for n in range(7)}
    assert pool.size == pool.started == pool.idle == 2
    assert 0 < pool.busy <= pool.present
    pool.close()


def test_every_way_to_fail_is_told_apart_and_the_pool_goes_on(capacity):
    pool = make_pool(seconds=8.0)
    jobs = [("refuse", ()), ("refuse_unpicklably", ()), ("crash", ()), ("sleep", (100,)), ("double", (4,))]
    outcomes = run(pool, jobs)
    assert [getattr(outcomes[n], "cause", "done") for n in range(5)] == ["error", "error", "crashed", "hung", "done"]
    assert "cell has no volume" in outcomes[0].message
    assert "no answer within 8 s" in outcomes[3].message
    assert outcomes[4].value == 8
    assert pool.lost == 2
    pool.close()


def test_the_time_to_start_is_not_held_against_a_call(capacity):
    pool = Pool(Slow, count=1, options={"num_cpus": 0}, arguments={}, seconds=4.0)
    outcomes = run(pool, [("double", (1,)), ("crash", ()), ("double", (2,))])
    assert [getattr(outcomes[n], "cause", "done") for n in range(3)] == ["done", "crashed", "done"]
    pool.close()


def test_an_actor_that_cannot_start_is_reported_and_no_call_is_given_to_it(capacity):
    pool = make_pool(broken=True)
    with pytest.raises(RuntimeError, match=r"Worker does not start: .*no such weights"):
        started(pool, 1)
    assert pool.idle == 0
    pool.close()


def test_actors_come_and_go_with_the_limit(capacity):
    pool = make_pool(count=3)
    started(pool, 3)
    pool.submit("long", "sleep", 2.0)
    pool.scale(1)
    assert (pool.size, pool.idle) == (1, 0)  # the busy one stays
    pool.scale(2)
    started(pool, 2)
    pool.close()


def test_idle_actors_are_let_go_and_come_back_when_there_is_work(capacity):
    pool = make_pool(count=3)
    started(pool, 3)
    pool.scale(3, patience=0.0)
    assert pool.size == 1
    pool.scale(3, patience=0.0)
    assert pool.size == 1
    pool.submit("long", "sleep", 2.0)
    pool.scale(3, waiting=1)
    assert pool.size == 3
    started(pool, 3)
    pool.close()


def test_idle_actors_in_doubt_take_calls_once_they_answer_and_dead_ones_are_replaced(capacity, monkeypatch):
    pool = make_pool(count=3)
    started(pool, 3)
    pool.submit("death", "crash")
    pool.suspect()
    while not pool.collect(wait_any([pool], 0.2)):
        pass
    pool.scale(3)
    assert (pool.size, pool.started, pool.idle) == (2, 2, 0)  # none is started, none is given a call
    ray.kill(pool._idle[0][0])
    monkeypatch.setattr("actors.pool.MEMORY_PAUSE", 0.0)
    started(pool, 3)
    assert pool.idle == 3
    done = run(pool, [("double", (number,)) for number in range(6)])
    assert [done[number].value for number in range(6)] == [0, 2, 4, 6, 8, 10]
    pool.close()


def test_actors_that_wait_for_a_machine_that_is_not_there_take_no_calls(capacity):
    pool = Pool(Worker, count=1, options={"num_cpus": 0, "resources": {"none": 1}}, arguments={}, seconds=60.0)
    assert pool.collect(wait_any([pool], 0.5)) == []
    assert (pool.size, pool.started, pool.idle) == (1, 0, 0)
    pool.close()
