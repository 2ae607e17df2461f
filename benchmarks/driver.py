"""How many relaxers one driver keeps busy, its time per task, its memory, and the time to read a stored run again.

    python -m benchmarks.driver --relaxers 500 --candidates 40000 --json driver.json

Driver, campaign, policy and store are the real ones and work in this process on real files. Actors are simulated
(tests/support/simulated.py): the duration of a call is drawn from a lognormal distribution, on a clock that runs while
the driver computes and skips its waiting. So 500 relaxers do not need 500 cores, and all work of the driver counts. For
Ray, each call costs the driver ``--ray`` seconds; ``--measure-ray`` measures this time with real actors and arguments
of realistic size.

A search starts and ends with idle relaxers; ``relaxer_utilisation_in_between`` is the utilisation in the second third
of its time, ``relaxer_utilisation`` that of the whole time, ``relaxer_utilisation_by_tenths`` that of each tenth.

The clock counts the CPU time of this process, so that other work on the machine does not matter. Threads wait for the
disk, the driver does not. Memory is that of driver and planner together.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import tempfile
import threading
import time
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from actors.cluster import connected
from actors.pool import Done, Failed, Pool, wait_any
from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from search.config import SearchConfig
from search.config_file import check_config
from search.planning.planner import Planner
from search.planning.prepare import load_reference
from search.running.driver import Driver
from tests.support.simulated import Clock, SimulatedPool, SimulatedPools, Stages


def main() -> None:
    arguments = parsed()
    if arguments.measure_ray:
        record: dict[str, Any] = {"seconds_per_call": ray_cost(arguments.batch)}
    else:
        record = measured(arguments)
    record |= {"host": platform.node(), "arguments": {k: str(v) for k, v in vars(arguments).items()}}
    print(json.dumps(record, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relaxers", type=int, default=500)
    parser.add_argument("--candidates", type=int, default=40000)
    parser.add_argument("--batch", type=int, default=8, help="crystals a task")
    parser.add_argument("--round", type=int, default=4000, help="candidates a round")
    parser.add_argument("--rounds-ahead", type=int, default=4, help="rounds that are planned ahead")
    parser.add_argument("--seconds", type=float, default=8.0, help="median time of a relaxation call")
    parser.add_argument("--spread", type=float, default=0.5, help="sigma of its logarithm")
    parser.add_argument("--ray", type=float, default=0.003, help="seconds of the driver that Ray takes for a call")
    parser.add_argument("--folder", type=Path, help="keep the run here, or go on with it")
    parser.add_argument("--measure-ray", action="store_true")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the search, then restart it on the stored results."""
    config = settings(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        before, began = memory(), time.process_time()
        driver = driver_of(config, folder, arguments)
        outcome = driver.run(threading.Event())
        pools, tasks = driver.actors.pools, driver.statistics.calls["analyse"]
        relaxers, spent = pools["relax"], driver.actors.clock.spent
        found = {
            "candidates": outcome.summary.candidates,
            "tasks": tasks,
            "simulated_seconds": relaxers.present / relaxers.limit,
            "relaxer_utilisation": relaxers.during(0, 1),
            "relaxer_utilisation_in_between": relaxers.during(1 / 3, 2 / 3),
            "relaxer_utilisation_by_tenths": [relaxers.during(k / 10, (k + 1) / 10) for k in range(10)],
            "planner_utilisation": pools["plan"].busy / pools["plan"].present,
            "planner_seconds_per_task": pools["plan"].busy / tasks if tasks else None,
            "driver_seconds_per_task": spent / tasks if tasks else None,
            "driver_share": spent / (relaxers.present / relaxers.limit),
            "memory_mb": memory() - before,
            "cpu_seconds_with_stubs": time.process_time() - began,
        }
        print(json.dumps(found, indent=2), flush=True)
        driver.close()
        del driver
        began = time.process_time()
        again = driver_of(config, folder, arguments)
        again.run(threading.Event())
        again.close()
        return found | {"resume_cpu_seconds": time.process_time() - began, "resumed": again.progress.resumed}


def settings(arguments: argparse.Namespace) -> SearchConfig:
    policy = {
        "rounds": max(2, arguments.candidates // arguments.round),
        "candidates_per_round": arguments.round,
        "batch": arguments.batch,
        "rounds_ahead": arguments.rounds_ahead,
    }
    content = {
        "name": "driver",
        "generators": ["diffusion", "inpainting"],
        "compositions": {"system": "Li-Si", "composition_order": [["Li", "Si"]], "max_atoms": 12},
        "frameworks": {"guests": ["Li"]},
        "lattices": {"volume_per_atom": 16.0},
        "policy": policy,
    }
    return check_config(content, source="benchmark")


def driver_of(config: SearchConfig, folder: Path, arguments: argparse.Namespace) -> Driver:
    """A driver whose relaxers are the bottleneck: there are always enough crystal makers and analysers."""
    clock, n = Clock(time.process_time), arguments.relaxers
    stages, reference = Stages(), load_reference(config)
    pools = [
        PlannerPool(Planner(config, reference), 1, clock, None, arguments.ray),
        SimulatedPool(stages.maker, max(1, n // 8), clock, lambda *_: 0.1 * arguments.seconds, arguments.ray),
        RelaxerPool(stages.relaxer, clock, arguments),
        SimulatedPool(stages.analyser, max(1, n // 4), clock, lambda *_: 0.2 * arguments.seconds, arguments.ray),
    ]
    return Driver(config, folder, reference, SimulatedPools(pools))


class RelaxerPool(SimulatedPool):
    """Draws the durations of its calls, and records when it was busy."""

    def __init__(self, stage: Any, clock: Clock, arguments: argparse.Namespace) -> None:
        super().__init__(stage, arguments.relaxers, clock, self._draw, arguments.ray)
        self._median, self._spread, self._rng = arguments.seconds, arguments.spread, np.random.default_rng(0)
        self._starts, self._taken = array("d"), array("d")

    def _draw(self, *_: Any) -> float:
        self._taken.append(self._rng.lognormal(np.log(self._median), self._spread))
        return self._taken[-1]

    def submit(self, job: Any, method: str, *arguments: Any) -> None:
        super().submit(job, method, *arguments)
        self._starts.append(self.clock.now())

    def during(self, begin: float, end: float) -> float:
        """Average share of busy actors between two fractions of the total time."""
        times = self.began + np.array([begin, end]) * (self.clock.now() - self.began)
        starts = np.array(self._starts)
        busy = np.clip(starts + np.array(self._taken), *times) - np.clip(starts, *times)
        return float(busy.sum() / (self.limit * (times[1] - times[0])))


class PlannerPool(SimulatedPool):
    """Arguments and results of the planner are large: the time the driver needs to transfer them counts too."""

    def submit(self, job: Any, method: str, *arguments: Any) -> None:
        content = pickle.dumps(arguments)
        with self.clock.stopped():
            arguments = pickle.loads(content)
        super().submit(job, method, *arguments)

    def collect(self, ready: set[Any]) -> list[Done | Failed]:
        outcomes = super().collect(ready)
        for outcome in outcomes:
            with self.clock.stopped():
                content = pickle.dumps(outcome.value)
            pickle.loads(content)
        return outcomes


def memory() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Echo:
    """Takes and returns data of the same form as a relaxer."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def ready(self) -> None:
        pass

    def relax(self, crystals: Any, free: Any, settings: Any, guests: Any, request: Any = None) -> Any:
        return self.answer


def ray_cost(batch: int, calls: int = 300) -> float:
    """CPU seconds of the driver per call, with `Pool`, real actors, crystals of 12 atoms and their relaxations."""
    rng = np.random.default_rng(0)
    cell = CellFormula.parse("Li8Si4")
    crystals = [Crystal(np.eye(3) * 6, rng.random((12, 3)), cell.numbers) for _ in range(batch)]
    answer = Stages().relaxer.relax(crystals, None, None, None)
    with connected("local"):
        pool = Pool(Echo, count=1, options={"num_cpus": 0}, arguments={"answer": answer}, seconds=60)
        while not pool.idle:
            pool.collect(wait_any([pool], 0.5))
            pool.scale(1)  # raises if the actor cannot start
        began = time.process_time()
        for number in range(calls):
            pool.submit(number, "relax", crystals, None, None, None)
            while not pool.idle:
                pool.collect(wait_any([pool], 1.0))
        seconds = (time.process_time() - began) / calls
        pool.close()
    return seconds


if __name__ == "__main__":
    main()
