"""The actors of a search: their number, their devices, and notes for the user about both."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from actors.cluster import Capacity, ask_for, capacity
from actors.metrics import Metrics
from actors.pool import Pool, wait_any
from actors.workers import ACTORS
from model.thermodynamics.reference import Reference
from search.config import SearchConfig
from search.planning.planner import Planner
from search.planning.prepare import hull_energies
from search.running.pipeline import judge_arguments
from search.running.steps import Step

RELAXERS_PER_ANALYSER = 4  # symmetry and E_d take a tenth to a quarter of the time that the relaxation takes
RECOUNT = 10.0  # s between two checks of the cluster's resources
PATIENCE = 300.0  # s that an actor on a cluster may be idle before its resources are released
ALONE = 60.0  # s without any CPU in the cluster after which the user is told where to look


class ActorPools:
    """One pool per step: planner, crystal makers, relaxers, analysers, and judges if the search has one.

    Args:
        config: the search.
        reference: phases of the system.
        found: Ray's resources at the start.
        actors: classes of crystal maker, relaxer, analyser and judge, see `actors.workers`.
        judge_reference: phases of the system with the energies of the judge; None without one.

    Attributes:
        pools: by step.
        devices: GPU or CPU, by step.
        notes: messages for the user, in order of time.

    Raises:
        ValueError: the machine lacks resources that the configuration requests.
    """

    def __init__(
        self,
        config: SearchConfig,
        reference: Reference,
        found: Capacity,
        actors: Sequence[type] = ACTORS,
        judge_reference: Reference | None = None,
    ) -> None:
        self.resources, self.notes = config.resources, list[str]()
        self.on_cluster = config.resources.address != "local"
        self.on_gpu, self.found = steps_on_gpu(config, found), found
        self._check(config)
        self._counted = self._had_cpus = time.monotonic()
        self._told = False
        self.metrics = Metrics()
        seconds, limits = self.resources.task_seconds, self._limits()
        arguments = _arguments(config, reference, judge_reference, self.on_gpu)
        options = ray_options(self.on_gpu, limits, found)
        classes = dict(zip(Step, (Planner, *actors), strict=False))
        self.pools = {
            step: Pool(classes[step], count=limits[step], options=options[step], arguments=given, seconds=seconds)
            for step, given in arguments.items()
        }
        self.devices = {step: "GPU" if step in self.on_gpu else "CPU" for step in self.pools}

    def wait(self, seconds: float) -> set[Any]:
        """References that are ready, after at most ``seconds``."""
        return wait_any(list(self.pools.values()), seconds)

    def scale(self, waiting: Mapping[Step, int]) -> None:
        """Start and end actors as the cluster grows, shrinks or is idle; ``waiting`` is the number of jobs per step.

        Raises:
            RuntimeError: actors cannot start.
        """
        if self.on_cluster and time.monotonic() - self._counted > RECOUNT:
            self._recount()
        patience = PATIENCE if self.on_cluster else math.inf
        limits = self._limits()
        for step, pool in self.pools.items():
            pool.scale(limits[step], waiting=waiting[step], patience=patience)
            starting, idle = pool.size - pool.started, pool.idle
            self.metrics.actors(step, busy=pool.started - idle, idle=idle, starting=starting, waiting=waiting[step])

    def short_of_memory(self) -> None:
        """Handle an actor that was killed for lack of memory: others may have been killed too, even idle ones."""
        for pool in self.pools.values():
            pool.suspect()

    def close(self) -> None:
        """End all actors and withdraw the request for machines, which would otherwise outlive the search."""
        for pool in self.pools.values():
            pool.close()
        if self.on_cluster:
            ask_for(0)

    def _recount(self) -> None:
        self._counted, before = time.monotonic(), self.found
        self.found = capacity()
        if self.found != before:
            now, relaxers = _count(self.found), self._limits()[Step.RELAX]
            self.notes.append(f"the cluster now has {now} (before: {_count(before)}); {relaxers} relaxers")
        if self.found.cpus:
            self._had_cpus, self._told = self._counted, False
        elif not self._told and self._counted - self._had_cpus > ALONE:
            self._told = True
            self.notes.append(_no_worker(self._counted - self._had_cpus))

    def _limits(self) -> dict[Step, int]:
        """Maximum number of actors of each step; at least one of each."""
        resources, found = self.resources, self.found
        if Step.RELAX in self.on_gpu:
            relaxers = max(1, resources.relax_actors or found.gpus)
        else:
            relaxers = max(1, min(resources.relax_actors or found.cpus, found.cpus))
        return {
            Step.PLAN: 1,
            Step.GENERATE: resources.generate_actors,
            Step.RELAX: relaxers,
            Step.ANALYSE: math.ceil(relaxers / RELAXERS_PER_ANALYSER),
            Step.JUDGE: resources.judge_actors,
        }

    def _check(self, config: SearchConfig) -> None:
        """Compare requested and available resources; raises an error or adds a note where they differ."""
        resources, found = self.resources, self.found
        for field, asked in _devices(config).values():
            if asked == "cuda" and not found.gpus:
                raise ValueError(f"{field}: cuda was requested, but Ray finds no GPU; use cpu")
        if config.models.device == "auto" and not found.gpus:
            self.notes.append("Ray finds no GPU: the diffusion model runs on the CPU")
        if Step.RELAX in self.on_gpu:
            return
        wanted = resources.relax_actors or 1
        if wanted <= found.cpus:
            return
        if not self.on_cluster:
            raise ValueError(f"resources.relax_actors: {wanted} requested, but there are {found.cpus} CPUs")
        self.notes.append(
            f"{wanted} relaxers were requested, but the cluster has {found.cpus} CPUs; more start as machines join"
        )
        ask_for(wanted)


def _devices(config: SearchConfig) -> dict[Step, tuple[str, str]]:
    """Field of the configuration that chooses a device, and its value, by step."""
    judge = {} if config.judge is None else {Step.JUDGE: ("judge.device", config.judge.device)}
    models = config.models
    return {
        Step.GENERATE: ("models.device", models.device),
        Step.RELAX: ("models.relax_on", models.relax_on),
        **judge,
    }


def steps_on_gpu(config: SearchConfig, found: Capacity) -> frozenset[Step]:
    """The steps whose actors run on GPUs."""
    devices = _devices(config).items()
    return frozenset(step for step, (_, asked) in devices if asked == "cuda" or (asked == "auto" and found.gpus))


def ray_options(on_gpu: frozenset[Step], counts: Mapping[Step, int], found: Capacity) -> dict[Step, dict[str, Any]]:
    """Ray's resources of one actor of each step.

    Actors on GPUs have one each, or equal shares if there are more actors than GPUs. On CPUs only relaxers count:
    crystal makers, judges, analysers and the planner are busy only part of the time and share the relaxers' cores.
    """
    together = math.ceil(sum(counts[step] for step in on_gpu) / max(1, found.gpus))  # on one GPU
    light = {"num_cpus": 0, "scheduling_strategy": "SPREAD"}
    options: dict[Step, dict[str, Any]] = dict.fromkeys(Step, light) | {Step.RELAX: {"num_cpus": 1}}
    return options | {step: {"num_cpus": 0, "num_gpus": 1 / together} for step in on_gpu}


def _arguments(
    config: SearchConfig, reference: Reference, judge_reference: Reference | None, on_gpu: frozenset[Step]
) -> dict[Step, dict[str, Any]]:
    """Constructor arguments of the actors of each step."""
    models = config.models
    devices = {step: "cuda" if step in on_gpu else "cpu" for step in Step}
    arguments: dict[Step, dict[str, Any]] = {
        Step.PLAN: {"config": config, "reference": reference},
        Step.GENERATE: {"weights": models.weights, "device": devices[Step.GENERATE], "potential": models.potential},
        Step.RELAX: {
            "potential": models.potential,
            "relaxation": config.relaxation,
            "screening": config.screening,
            "hull": hull_energies(config, reference),
            "device": devices[Step.RELAX],
        },
        Step.ANALYSE: {
            "reference": reference,
            "elements": config.compositions.elements,
            "guests": config.frameworks.guests,
            "tolerances": config.frameworks.tolerances,
            "screening": config.screening,
        },
    }
    if judge_reference is not None:
        arguments[Step.JUDGE] = judge_arguments(config, judge_reference)
    return arguments


def _count(found: Capacity) -> str:
    return f"{found.cpus} CPUs and {found.gpus} GPUs"


def _no_worker(seconds: float) -> str:
    return (
        f"for {seconds:.0f} s no worker has been in the cluster, so that nothing can be relaxed. On the head, "
        "`ray status` shows what is starting and what failed; monitor.log and monitor.out in "
        "/tmp/ray/session_latest/logs show why. The search goes on as soon as a worker joins"
    )
