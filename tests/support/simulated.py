"""A search without actors and without physics, for tests and benchmarks of the driver.

The stages do no physics: what they return follows from the crystals, so that it is the same in any batch and on any
machine, and has the form and size of the real thing. The pools run them in this process on a clock of their own. Time
that the driver itself takes passes on that clock as it does on the wall; time that it waits is skipped; what the stages
take in this process does not count, and instead each call takes as long as it is told to.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from actors.metrics import Metrics
from actors.pool import Done, Failed
from model.crystals.crystal import Crystal
from model.crystals.matching import distance_fingerprints
from model.diffusion.sampler import Template
from model.generation.framework import Framework
from model.relaxation.relax import Relaxation
from model.stages import Analysis, Made, Rejected
from model.symmetry.space_group import SpaceGroup
from model.thermodynamics.stability import Decomposition
from search.planning.campaign import Campaign
from search.planning.planner import Planner
from search.planning.round_plan import plan_round
from search.planning.tasks import Task, pending_rows
from search.running.steps import Step
from search.storage.rows import HistoryRow

WITH_NETWORK = ("diffusion", "inpainting", "symmetric", "subgroup")


def chance(crystal: Crystal) -> np.random.Generator:
    """Random numbers that belong to a crystal."""
    return np.random.default_rng(int(crystal.identity[:15], 16))


def planned(
    campaign: Campaign, number: int, rows: Sequence[HistoryRow] = (), pending: Sequence[Task] = ()
) -> list[Task]:
    """Tasks of a round of which all is told at once."""
    return plan_round(campaign, number, campaign.history(rows), pending_rows(pending))


class StubMaker:
    """Places the guests at random."""

    def __init__(self, **_: Any) -> None:
        pass

    def ready(self) -> str:
        return "ready"

    def generate(self, templates: Sequence[Template], generators: Sequence[str], settings: Any) -> list[Made]:
        """As in real runs, only some generators ask the score model."""
        return [
            Made(
                crystal=self._filled(template),
                evaluations=39 if name in WITH_NETWORK else 0,
                score_model="stub-00000000" if name in WITH_NETWORK else None,
                seconds=0.1,
            )
            for template, name in zip(templates, generators, strict=True)
        ]

    def _filled(self, template: Template) -> Crystal:
        places = np.random.default_rng(template.seed).random((len(template.crystal), 3))
        return template.crystal.replace(
            fractional=np.where(template.guest[:, None], places, template.crystal.fractional)
        )


class StubRelaxer:
    """Draws an energy and lets the cell shrink."""

    def __init__(self, **_: Any) -> None:
        pass

    def ready(self) -> str:
        return "ready"

    def relax(
        self, crystals: Sequence[Crystal], free: Any, settings: Any, guests: Any, request: Any = None
    ) -> list[Relaxation | Rejected]:
        return [self._relaxed(crystal) for crystal in crystals]

    def _relaxed(self, crystal: Crystal) -> Relaxation | Rejected:
        rng = chance(crystal)
        if rng.random() < 0.05:
            return Rejected("too_close")
        reason = "step_limit" if rng.random() < 0.1 else "converged"
        final = crystal.replace(lattice=crystal.lattice * rng.uniform(0.94, 1.0))
        energy = float(rng.normal(-3.0, 0.1))
        return Relaxation(
            initial=crystal,
            final=final,
            energy_initial=energy + 0.2,
            energy_final=energy,
            forces_final=np.zeros((len(crystal), 3)),
            max_force_initial=1.0,
            max_force=0.05,
            pressure=0.1,
            steps=int(rng.integers(10, 200)),
            converged=reason == "converged",
            reason=reason,
        )


class StubAnalyser:
    """Draws E_d and calls what is no guest a framework."""

    def __init__(self, **_: Any) -> None:
        pass

    def ready(self) -> str:
        return "ready"

    def analyse(
        self, relaxed: Sequence[Any], guests_to_remove: Sequence[Any], found_phases: Any, max_parent_e_d: float
    ) -> list[Analysis | None]:
        return [
            None if isinstance(one, Rejected) else self._analysed(one.final, names is not None)
            for one, names in zip(relaxed, guests_to_remove, strict=True)
        ]

    def _analysed(self, crystal: Crystal, wanted: bool) -> Analysis:
        rng, host = chance(crystal), crystal.numbers != 3
        e_d = float(rng.lognormal(-2.0, 1.0)) - 0.02
        group = SpaceGroup(1, "P1", 0.1, 10.0)
        frameworks = []
        if wanted and 0 < host.sum() < len(crystal) and rng.random() < 0.3:
            frame = Crystal(crystal.lattice, crystal.fractional[host], crystal.numbers[host])
            guests = {"Li": int((~host).sum())}
            frameworks = [
                Framework(
                    host=frame,
                    guests=guests,
                    space_group=self._space_group(frame),
                    displacement=0.1,
                    cell_ratio=1,
                    fingerprint=distance_fingerprints([frame])[0],
                )
            ]
        decomposition = Decomposition(e_d, {"Li": 0.5, "Si": 0.5})
        return Analysis(
            space_group=group,
            decomposition=decomposition,
            e_d_with_found=e_d,
            frameworks=frameworks,
            guests=["Li"],
            fingerprint=distance_fingerprints([crystal])[0],
            known=None,
            repeats=None,
            seconds=0.1,
        )

    def _space_group(self, frame: Crystal) -> SpaceGroup:
        """The same for the same places of the atoms; as in real runs the commonest of many is that of a sixth."""
        seed = frame.fractional.round(6).view(np.uint64).ravel()
        number = int(np.random.default_rng(seed).geometric(1 / 6))
        return SpaceGroup(min(number, 230), str(number), 0.1, 10.0)


class Stages(NamedTuple):
    """All of them, without a judge."""

    maker: Any = StubMaker()
    relaxer: Any = StubRelaxer()
    analyser: Any = StubAnalyser()
    judge: None = None


class Clock:
    """Time that passes as the driver computes, plus what was skipped, less what does not count.

    Args:
        real: seconds of the wall, or of this process's CPU time where others keep the machine busy.
    """

    def __init__(self, real: Callable[[], float] = time.perf_counter) -> None:
        self._real, self._began = real, real()
        self._skipped = self._charged = self._free = 0.0

    def now(self) -> float:
        return self.spent + self._skipped

    @property
    def spent(self) -> float:
        """Seconds that the driver has taken itself."""
        return self._real() - self._began - self._free + self._charged

    def skip(self, seconds: float) -> None:
        """The driver waits."""
        self._skipped += seconds

    def charge(self, seconds: float) -> None:
        """Something takes the driver's time that is not done here."""
        self._charged += seconds

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Something is done here that does not take the driver's time."""
        began = self._real()
        yield
        self._free += self._real() - began


class SimulatedPool:
    """What `actors.pool.Pool` is, with calls in this process.

    Args:
        stage: whose methods are called.
        count: actors.
        clock: of all pools together.
        seconds: of one call, given the arguments; as long as it takes in this process when left out.
        cost: seconds of the driver's time that Ray takes for a call.
        fault: given the job, the cause that its call fails of; None if it does not.
    """

    def __init__(
        self,
        stage: Any,
        count: int,
        clock: Clock,
        seconds: Callable[..., float] | None,
        cost: float = 0.0,
        fault: Callable[[Any], str | None] = lambda job: None,
    ) -> None:
        self.stage, self.limit, self.clock, self.seconds, self.cost, self.fault = (
            stage,
            count,
            clock,
            seconds,
            cost,
            fault,
        )
        self.name, self.idle, self.busy, self.lost, self.began = type(stage).__name__, count, 0.0, 0, clock.now()
        self.calls: list[tuple[float, int, Done | Failed]] = []
        self._order = itertools.count()

    @property
    def size(self) -> int:
        return self.limit

    @property
    def started(self) -> int:
        return self.limit

    @property
    def present(self) -> float:
        return self.limit * (self.clock.now() - self.began)

    def submit(self, job: Any, method: str, *arguments: Any) -> None:
        self.clock.charge(self.cost / 2)
        self.idle -= 1
        with self.clock.stopped():
            cause, began = self.fault(job), time.process_time()
            value = None if cause else getattr(self.stage, method)(*arguments)
            seconds = self.seconds(*arguments) if self.seconds else time.process_time() - began
        outcome = Failed(job, cause, f"made to fail: {cause}", seconds) if cause else Done(job, value, seconds)
        heapq.heappush(self.calls, (self.clock.now() + seconds, next(self._order), outcome))

    def collect(self, ready: set[Any]) -> list[Done | Failed]:
        now, outcomes = self.clock.now(), list[Done | Failed]()
        while self.calls and self.calls[0][0] <= now:
            outcome = heapq.heappop(self.calls)[2]
            self.clock.charge(self.cost / 2)
            self.idle += 1
            self.busy += outcome.seconds
            outcomes.append(outcome)
        return outcomes


class SimulatedPools:
    """What `search.running.actor_pools.ActorPools` is, with simulated pools, in the order of `Step`."""

    def __init__(self, pools: Sequence[SimulatedPool]) -> None:
        self.pools, self.clock = dict(zip(Step, pools, strict=False)), pools[0].clock
        self.devices, self.notes, self.metrics = dict.fromkeys(Step, "CPU"), list[str](), Metrics()

    def scale(self, waiting: Mapping[Step, int]) -> None:
        pass

    def short_of_memory(self) -> None:
        pass

    def wait(self, seconds: float) -> set[Any]:
        now = self.clock.now()
        ends = [pool.calls[0][0] for pool in self.pools.values() if pool.calls]
        self.clock.skip(max(0.0, min([seconds, *(end - now for end in ends)])))
        return set()


def pools_of(
    planner: Planner,
    counts: tuple[int, int, int] = (1, 2, 1),
    *,
    seconds: Callable[..., float] = lambda *arguments: 1.0,
    fault: Callable[[Any], str | None] = lambda job: None,
) -> SimulatedPools:
    """A crew of stub stages whose calls all take as long and fail in the same way."""
    clock = Clock()
    actors = zip((planner, *Stages()[:3]), (1, *counts), strict=True)
    return SimulatedPools([SimulatedPool(actor, count, clock, seconds, fault=fault) for actor, count in actors])
