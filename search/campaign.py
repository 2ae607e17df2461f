"""From configuration and results to the tasks of the next round. Deterministic: no clock, no Ray, no hidden state.

Round k is planned from the results of rounds 0 .. k−1−lookahead, complete and in a fixed order. So the plan does not
depend on which worker was faster, and a resumed run plans exactly what an undisturbed one would have planned.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.composition import CellFormula
from model.crystal import Crystal
from model.lattice import sample_lattice
from model.sampler import Blank, SamplerSettings
from search.config import SearchConfig
from search.policy import KnownFramework, composition_ledger, framework_ledger
from search.results import required

GENERATED, INPAINTED = "generated", "inpainted"
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Plan:
    """One candidate to be made, and the columns that tell where it comes from."""

    blank: Blank
    origin: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Task:
    """Candidates that are made, relaxed and stored together.

    Attributes:
        identity: name of the task and of its part in the results; depends only on configuration, seed and results.
        stage: ``generated`` or ``inpainted``.
    """

    identity: str
    round: int
    stage: str
    plans: tuple[Plan, ...]
    sampler: SamplerSettings

    @property
    def blanks(self) -> list[Blank]:
        """What the generator is given."""
        return [plan.blank for plan in self.plans]


class Campaign:
    """Plans the rounds of one search.

    Args:
        config: the search.
        volume: estimate of the volume per atom (Å³) of a cell formula, for compositions without results.
    """

    def __init__(self, config: SearchConfig, volume: Callable[[CellFormula], float]) -> None:
        self.config, self.volume = config, volume
        self.cells = {str(cell): cell for cell in config.compositions.expand()}
        self.digest = digest(config)

    def plan(self, number: int, rows: Iterable[Mapping[str, Any]], pending: Iterable[Task] = ()) -> list[Task]:
        """Tasks of one round.

        Args:
            number: of the round.
            rows: results of the rounds that it may know of, see `known_rounds`.
            pending: tasks of the rounds in between; they count as spent on their arms, without a result yet.
        """
        ordered = sorted(rows, key=lambda row: row["candidate"])
        waiting = [plan.origin for task in pending for plan in task.plans]
        explore = self._explore(number, ordered, waiting)
        exploit = self._exploit(number, ordered, waiting)
        return [
            *self._tasks(number, GENERATED, explore, self.config.generation),
            *self._tasks(number, INPAINTED, exploit, self.config.inpainting),
        ]

    def known_rounds(self, number: int) -> range:
        """Rounds whose results round ``number`` is planned from."""
        return range(max(0, number - self.config.policy.lookahead))

    def _explore(self, number: int, rows: Rows, waiting: Rows) -> list[Plan]:
        ledger = composition_ledger(list(self.cells), rows, waiting, self.config.policy)
        volumes = best_volumes(rows)
        turns = Counter(row["cell_formula"] for row in [*rows, *waiting] if not row.get("framework"))
        plans = []
        for index in range(self.config.policy.generated):
            name = str(ledger.pick(1))
            seed = self._seed(number, GENERATED, index)
            plans.append(self._new_crystal(self.cells[name], turns[name], volumes, seed))
            turns[name] += 1
        return plans

    def _new_crystal(self, cell: CellFormula, turn: int, volumes: Mapping[str, float], seed: int) -> Plan:
        """A random lattice of the next Bravais type for this cell, at N·V0."""
        rng = np.random.default_rng(seed)
        order = np.random.default_rng(self._seed(0, str(cell), 0)).permutation(self.config.lattices.bravais)
        bravais = str(order[turn % len(order)])
        per_atom = volumes.get(cell.reduced) or self.config.lattices.volume_per_atom or self.volume(cell)
        lattice = sample_lattice(bravais, per_atom * cell.n_atoms, rng, self.config.lattices.ranges)
        crystal = Crystal(lattice, np.zeros((cell.n_atoms, 3)), cell.numbers)
        origin = {"cell_formula": str(cell), "lattice_system": bravais}
        return Plan(Blank(crystal, np.ones(cell.n_atoms, dtype=bool), seed), origin)

    def _exploit(self, number: int, rows: Rows, waiting: Rows) -> list[Plan]:
        policy = self.config.policy
        ledger, known = framework_ledger(rows, waiting, policy)
        plans: list[Plan] = []
        while known and len(plans) < policy.inpainted:
            key = str(ledger.pick(policy.samples))
            for _ in range(min(policy.samples, policy.inpainted - len(plans))):
                plans.append(_filled(known[key], self._seed(number, INPAINTED, len(plans))))
        return plans

    def _tasks(self, number: int, stage: str, plans: Sequence[Plan], sampler: SamplerSettings) -> list[Task]:
        """Batches of crystals of similar size, the largest first because they take longest."""
        ordered = sorted(plans, key=lambda plan: -len(plan.blank.crystal))
        size = self.config.policy.batch
        return [
            Task(
                f"{number:05d}-{stage[:3]}-{start // size:03d}-{self.digest}",
                number,
                stage,
                tuple(ordered[start : start + size]),
                sampler,
            )
            for start in range(0, len(ordered), size)
        ]

    def _seed(self, number: int, stage: str, index: int) -> int:
        text = f"{self.digest}/{number}/{stage}/{index}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 2


def digest(config: SearchConfig) -> str:
    """8 hexadecimal digits of everything in the configuration that decides results."""
    return hashlib.blake2b(json.dumps(config.physics(), sort_keys=True).encode(), digest_size=4).hexdigest()


def best_volumes(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Volume per atom (Å³) of the lowest relaxed structure of each reduced formula."""
    best: dict[str, tuple[float, float]] = {}
    for row in rows:
        if row["status"] == "relaxed" and row["e_d"] < best.get(row["formula"], (math.inf, 0.0))[0]:
            best[row["formula"]] = (row["e_d"], row["volume_per_atom"])
    return {formula: volume for formula, (_, volume) in best.items()}


def _filled(framework: KnownFramework, seed: int) -> Plan:
    """The framework's host with its guests to be placed."""
    record, parent = framework.record, framework.parent
    host = required(record["host"])
    counts = CellFormula.from_counts(record["guests"])
    crystal = host.join(Crystal(host.lattice, np.zeros((counts.n_atoms, 3)), counts.numbers))
    origin = {
        "cell_formula": str(CellFormula.parse(crystal.composition.formula)),
        "lattice_system": parent["lattice_system"],
        "parent": parent["candidate"],
        "framework": record["framework"],
        "framework_space_group": record["space_group"],
        "framework_symprec": record["symprec"],
        "framework_displacement": record["displacement"],
        "guests": sorted(record["guests"]),
    }
    return Plan(Blank(crystal, np.arange(len(crystal)) >= len(host), seed), origin)
