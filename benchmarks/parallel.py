"""Efficiency of parallel relaxers in a search: two actors compared with two independent processes.

    python benchmarks/parallel.py --batches 8 --json parallel.json

The same batches of generated crystals are relaxed by one process alone, by two independent processes at the same time,
by a pool of one actor and by a pool of two, alternating ``--repeats`` times; the shortest time of each counts. Each
worker relaxes ``--batches`` batches on one thread. ``efficiency`` is the speed-up of the pool from one to two actors
divided by that of the processes. Both share the machine's memory and caches, so the rest is due to Ray and the driver.
Two free cores are needed: on a busy machine the times are meaningless.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before anything below loads a thread pool

import argparse
import json
import multiprocessing
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io

from actors.cluster import connected
from actors.pool import Failed, Pool, wait_any
from actors.workers import RelaxerActor
from model.crystals.crystal import Crystal
from model.crystals.screening import ScreenSettings
from model.relaxation.relax import RelaxSettings

GENERATED = Path(__file__).with_name("generated.extxyz")
RELAXER = {
    "potential": "chgnet-0.3.0",
    "relaxation": RelaxSettings(max_steps=50),
    "screening": ScreenSettings(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    frames = ase.io.read(GENERATED, index=":")
    crystals = [Crystal(atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers) for atoms in frames]
    size = arguments.batch
    batches = [crystals[start : start + size] for start in range(0, len(crystals), size)][: arguments.batches]
    ways: dict[str, Callable[[], float]] = {
        "process_1": lambda: by_processes(batches, 1),
        "process_2": lambda: by_processes(batches, 2),
        "pool_1": lambda: by_pool(batches, 1),
        "pool_2": lambda: by_pool(batches, 2),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    with connected("local"):
        for _ in range(arguments.repeats):
            for way, timed in ways.items():
                times[way].append(timed())
                print(way, f"{times[way][-1]:.2f} s", flush=True)
    best = {way: min(some) for way, some in times.items()}
    record = {
        "efficiency": (best["pool_1"] / best["pool_2"]) / (best["process_1"] / best["process_2"]),
        "pool_against_processes": best["process_2"] / best["pool_2"],
        "seconds": times,
        "batches_a_worker": len(batches),
        "host": platform.node(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
    }
    print(json.dumps(record, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


def by_processes(batches: list[list[Crystal]], count: int) -> float:
    """Seconds until ``count`` processes, started together, have each relaxed all batches."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(count + 1)
    workers = [context.Process(target=_relax_all, args=(batches, barrier)) for _ in range(count)]
    for worker in workers:
        worker.start()
    barrier.wait()  # all have loaded the potential
    began = time.perf_counter()
    barrier.wait()
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.join()
    return seconds


def _relax_all(batches: list[list[Crystal]], barrier: Any) -> None:
    relaxer = RelaxerActor(**RELAXER)
    relaxer.relax(batches[0])  # the first call is slower
    barrier.wait()
    for batch in batches:
        relaxer.relax(batch)
    barrier.wait()


def by_pool(batches: list[list[Crystal]], count: int) -> float:
    """Seconds until a pool of ``count`` actors has relaxed all batches ``count`` times."""
    pool = Pool(RelaxerActor, count=count, options={"num_cpus": 1}, arguments=RELAXER, seconds=3600)
    while pool.started < count:
        pool.collect(wait_any([pool], 0.5))
        pool.scale(count)  # it says so when the actors cannot start
    _through(pool, [batches[0]] * count)
    began = time.perf_counter()
    _through(pool, [batch for batch in batches for _ in range(count)])
    seconds = time.perf_counter() - began
    pool.close()
    return seconds


def _through(pool: Pool, batches: list[list[Crystal]]) -> None:
    waiting, left = list(enumerate(batches)), len(batches)
    while left:
        while waiting and pool.idle:
            number, batch = waiting.pop(0)
            pool.submit(number, "relax", batch)
        for outcome in pool.collect(wait_any([pool], 0.5)):
            if isinstance(outcome, Failed):
                raise RuntimeError(f"batch {outcome.job}: {outcome.cause}, {outcome.message}")
            left -= 1


if __name__ == "__main__":
    main()
