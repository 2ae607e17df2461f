"""From configuration and results to the tasks of the next round. Deterministic: no clock, no Ray, no hidden state.

Round k is planned from the results of rounds 0 .. k−1−lookahead, complete and in a fixed order. So the plan does not
depend on which worker was faster, and a resumed run plans exactly what an undisturbed one would have planned.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import count
from typing import Any

import numpy as np

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.crystals.lattice import sample_lattice
from model.diffusion.sampler import Template
from model.generation.ion_substitution import exchanges
from model.generation.mutation import changes, steps_apart
from model.generation.wyckoff_placement import has_symmetric_subgroups
from search.config import (
    EXCHANGE,
    HOST_METHODS,
    METHODS,
    MUTATION,
    NEW_METHODS,
    PARTS,
    SUBGROUP,
    SYMMETRIC,
    TUNED,
    PolicySettings,
    SearchConfig,
)
from search.planning.frameworks import FrameworkPool, Guests, KnownFramework, fillings, frameworks_from_files
from search.planning.history import Known, Parent, Row, Spent
from search.planning.policy import Arm, Book, Choice, Outcome, choose, host_class, work_an_atom
from search.planning.tasks import GENERATED, INPAINTED, Plan, Task
from search.planning.tuning import Tuner

REMEMBERED = 10_000  # crystals and cells that they are changed into


class Campaign:
    """Plans the rounds of one search.

    Args:
        config: the search.
        volume: estimate of the volume per atom (Å³) of a cell formula, for compositions without results.

    Raises:
        ValueError: a file of ``frameworks.files`` cannot be read, or no generator has anything to begin with.
    """

    def __init__(self, config: SearchConfig, volume: Callable[[CellFormula], float]) -> None:
        self.config, self.volume = config, cache(volume)
        self.cells = {str(cell): cell for cell in config.compositions.expand()}
        self.digest = digest(config)
        self.files = frameworks_from_files(config.frameworks.files)
        check_beginning(config, self.files)
        self._fillings: dict[str, tuple[int, list[tuple[str, str]]]] = {}
        self._beside: dict[str, list[str]] = {}
        self._changes: dict[tuple[str, str], list[Crystal]] = {}

    def known(self, rows: Iterable[Row] = ()) -> Known:
        """What the rows of whole rounds say; `Known.read` adds those of later ones."""
        tuning = self.config.tuning
        policy = self.config.policy
        pool = FrameworkPool(self.config.frameworks.volume_change, self.files, policy.pool)
        known = Known(policy, pool, whole=any(ranges for _, ranges in tuning))
        known.read(rows)
        return known

    def plan(self, number: int, known: Known, pending: Iterable[Row] = ()) -> list[Task]:
        """Tasks of one round.

        Args:
            number: of the round.
            known: results of the rounds that it may know of, see `known_rounds`.
            pending: candidates of the rounds in between, see `under_way`; they count as spent, without a result yet.
        """
        return _Round(self, number, known, list(pending)).tasks()

    def known_rounds(self, number: int) -> range:
        """Rounds whose results round ``number`` is planned from."""
        return known_rounds(self.config, number)

    def fillings(self, framework: KnownFramework) -> list[tuple[str, str]]:
        """What may be put into a framework: formula of the filled cell, and the guests as text."""
        count, found = self._fillings.get(framework.name, (-1, []))
        if count != len(framework.guests):
            elements = self.config.frameworks.guests or self.config.compositions.elements
            guests = fillings(framework, self.cells.values(), elements, self.config.frameworks.sweep)
            host = framework.host
            found = [(str(CellFormula.parse(_join(host, some).composition.formula)), _text(some)) for some in guests]
            self._fillings[framework.name] = len(framework.guests), found
        return found

    def beside(self, name: str) -> list[str]:
        """Cells that one change of a crystal of this cell leads to, see `model.generation.mutation`."""
        if name not in self._beside:
            own = CellFormula.parse(name)
            apart = {other: steps_apart(own, cell) for other, cell in self.cells.items()}
            self._beside[name] = [other for other, steps in apart.items() if steps == 1 or len(own.counts) > 1 > steps]
        return self._beside[name]

    def changes(self, parent: Parent, cell: str) -> list[Crystal]:
        """What one change of a crystal into a cell leads to, in the volume of the crystal."""
        if (parent.name, cell) not in self._changes:
            if len(self._changes) >= REMEMBERED:
                self._changes.clear()
            self._changes[parent.name, cell] = changes(parent.crystal, self.cells[cell])
        return self._changes[parent.name, cell]

    def seed(self, number: int, what: str, index: int) -> int:
        """Of everything random: one of 2⁶² for each purpose."""
        text = f"{self.digest}/{number}/{what}/{index}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 2


class _Round:
    """One round while it is planned."""

    def __init__(self, campaign: Campaign, number: int, known: Known, pending: Sequence[Row]) -> None:
        self.campaign, self.config, self.number = campaign, campaign.config, number
        self.policy = self.config.policy
        self.pool, self.frameworks, self.parents = known.pool, known.pool.known, known.parents
        self.bar = known.bar()
        self.volumes, self.found = known.volumes, dict(sorted(known.found.items()))
        filling = self.policy.inpainted and set(self.config.generators) & set(HOST_METHODS)
        self.highest = self.pool.highest if filling else -math.inf
        self.tuner = tuner(self.config, known.rows, self.bar)
        self.tuner.under_way(pending)
        self.arms, self.lattices = Book(self.policy), Book(self.policy)
        for spent, outcome in known.spent(self.bar):
            self._record(spent, outcome)
        for spent, tries in Counter(map(Spent.by, pending)).items():
            self._record(spent, Outcome(tries))
        self._bravais: dict[str, Choice] = {}  # of each cell

    def tasks(self) -> list[Task]:
        """All tasks of the round."""
        policy = self.tuner.next("samples", self.campaign.seed(self.number, "samples", 0))
        assert isinstance(policy, PolicySettings)
        self.samples = policy.samples
        explore = self._exploring()
        exploit = [*self._changing(), *self._filling()] if self.policy.inpainted else []
        inpainted = self.policy.inpainted if exploit else 0
        counted = [arm for arm in (*explore, *exploit) if arm.method in (EXCHANGE, MUTATION)]
        turns = {(arm.cell, arm.host): self._turn(arm) for arm in counted}
        if self.policy.feedback:
            picks = self._choose([*explore, *exploit], self.policy.generated + inpainted, "arms")
        else:
            picks = self._choose(explore, self.policy.generated, "new")
            picks += self._choose(exploit, inpainted, "hosts")
        plans: dict[str, list[Plan]] = {method: [] for method in METHODS}
        numbers = {GENERATED: count(), INPAINTED: count()}
        for arm, candidates in picks:
            stage = INPAINTED if arm.guests else GENERATED
            for _ in range(candidates):
                seed = self.campaign.seed(self.number, stage, next(numbers[stage]))
                if arm.method in (EXCHANGE, MUTATION):
                    take = self._exchanged if arm.method == EXCHANGE else self._changed
                    plan = take(arm, turns[arm.cell, arm.host], seed)
                    turns[arm.cell, arm.host] += 1
                else:
                    plan = self._filled(arm, seed) if arm.guests else self._new_crystal(arm, seed)
                plans[arm.method].append(plan)
        return list(self._batches(plans))

    def _exploring(self) -> list[Arm]:
        """Ion exchange takes part in a cell until its prototypes are used up, alone until the search ends."""
        cells = sorted(self.campaign.cells, key=lambda cell: self.campaign.seed(0, cell, 0))
        methods = [method for method in self.config.generators if method in NEW_METHODS]
        arms = [Arm(method, cell) for method in methods for cell in cells if self._possible(method, cell)]
        return [arm for arm in arms if arm.method != EXCHANGE or self._turn(arm) < self._prototypes(arm.cell)] or arms

    def _possible(self, method: str, cell: str) -> bool:
        return method != EXCHANGE or self._prototypes(cell) > 0

    def _prototypes(self, cell: str) -> int:
        return len(exchanges(self.campaign.cells[cell]))

    def _turn(self, arm: Arm) -> int:
        """Candidates of an arm so far, those under way too."""
        return self.arms.tried(arm)[2]

    def _changing(self) -> Iterator[Arm]:
        """Crystals to be changed in all ways that are left; how many there are is only looked up after the first."""
        if MUTATION not in self.config.generators:
            return
        limit = 2 * self.bar if self.policy.feedback else math.inf
        parents = [parent for parent in self.parents.values() if parent.e_d <= limit]
        for parent in heapq.nsmallest(self.policy.pool, parents, key=lambda parent: parent.e_d):
            for cell in self.campaign.beside(parent.cell):
                arm = Arm(MUTATION, cell, parent.name, host_class(parent.e_d, self.bar))
                turn = self._turn(arm)
                limit = len(self.campaign.changes(parent, cell)) if turn else 1
                if turn < limit:
                    yield replace(arm, limit=limit)

    def _filling(self) -> Iterator[Arm]:
        methods = [method for method in self.config.generators if method in HOST_METHODS]
        for framework in self.pool.best():
            quality = host_class(framework.parent_e_d, self.bar)
            able = [method for method in methods if _suits(method, framework.space_group_number)]
            for cell, guests in self.campaign.fillings(framework):
                for method in able:
                    yield Arm(method, cell, framework.name, quality, guests)

    def _choose(self, arms: Sequence[Arm], slots: int, purpose: str) -> list[tuple[Arm, int]]:
        def rng(pick: int) -> np.random.Generator:
            return np.random.default_rng(self.campaign.seed(self.number, purpose, pick))

        return choose(arms, self.arms, slots, rng, self.samples)

    def _record(self, spent: Spent, outcome: Outcome) -> None:
        """Count candidates for their arm, and new crystals for their lattice too."""
        made_from = self.frameworks.get(spent.origin) or self.parents.get(spent.origin)
        quality = 0 if made_from is None else host_class(_e_d(made_from), self.bar)
        self.arms.record(Arm(spent.generator, spent.cell, spent.origin, quality), outcome)
        if made_from is None and spent.lattice:
            self.lattices.record(Arm(spent.lattice, spent.cell), outcome)

    def _new_crystal(self, arm: Arm, seed: int) -> Plan:
        """A random lattice at N·V0."""
        cell = self.campaign.cells[arm.cell]
        bravais = self._lattice(arm.cell, seed)
        rng = np.random.default_rng(seed)
        lattice = sample_lattice(bravais, self._volume(cell), rng, self.config.lattices.ranges)
        crystal = Crystal(lattice, np.zeros((cell.n_atoms, 3)), cell.numbers)
        origin = {"cell_formula": arm.cell, "lattice_system": bravais}
        return self._plan(arm, Template(crystal, np.ones(cell.n_atoms, dtype=bool), seed, bravais=bravais), origin)

    def _exchanged(self, arm: Arm, turn: int, seed: int) -> Plan:
        """The prototype whose turn it is; atoms are moved a little once all had theirs."""
        cell = self.campaign.cells[arm.cell]
        known = exchanges(cell)
        exchange = known[turn % len(known)]
        crystal = exchange.crystal(self._volume(cell), np.random.default_rng(seed) if turn >= len(known) else None)
        origin = {"cell_formula": arm.cell, "prototype": exchange.prototype.name}
        return self._plan(arm, Template(crystal, np.zeros(cell.n_atoms, dtype=bool), seed), origin)

    def _volume(self, cell: CellFormula) -> float:
        """Å³ of a new cell, N·V0."""
        known = self.volumes.get(cell.reduced) or self.config.lattices.volume_per_atom
        return cell.n_atoms * (known or self.campaign.volume(cell))

    def _lattice(self, cell: str, seed: int) -> str:
        """The type of lattice that pays most in this cell; the types take turns until results are in."""
        if cell not in self._bravais:
            order = np.random.default_rng(self.campaign.seed(0, cell, 1)).permutation(self.config.lattices.bravais)
            self._bravais[cell] = Choice([Arm(str(name), cell) for name in order], self.lattices)
        ((arm, _),) = self._bravais[cell].pick(1, lambda pick: np.random.default_rng([seed, 1, pick]), 1)
        return arm.method

    def _changed(self, arm: Arm, turn: int, seed: int) -> Plan:
        """The change whose turn it is; the volume changes as that of known phases does."""
        parent, cell = self.parents[arm.host], self.campaign.cells[arm.cell]
        crystal, was = self.campaign.changes(parent, arm.cell)[turn], CellFormula.parse(parent.cell)
        grown = cell.n_atoms * self.campaign.volume(cell) / was.n_atoms / self.campaign.volume(was)
        crystal = crystal.replace(lattice=crystal.lattice * np.cbrt(grown))
        origin = {"cell_formula": arm.cell, "parent": arm.host, "lattice_system": parent.lattice_system}
        return self._plan(arm, Template(crystal, np.zeros(len(crystal), dtype=bool), seed), origin)

    def _filled(self, arm: Arm, seed: int) -> Plan:
        """A framework's host with guests to be placed."""
        framework = self.frameworks[arm.host]
        host = framework.host
        guests = _guests(arm.guests)
        crystal = _join(host, guests)
        origin = {
            "cell_formula": arm.cell,
            "samples": self.samples,
            "lattice_system": framework.lattice_system,
            "parent": framework.parent,
            "framework": arm.host,
            "framework_space_group": framework.space_group,
            "framework_symprec": framework.symprec,
            "framework_displacement": framework.displacement,
            "guests": sorted(element for element, _ in guests),
        }
        return self._plan(arm, Template(crystal, np.arange(len(crystal)) >= len(host), seed), origin)

    def _plan(self, arm: Arm, template: Template, origin: Mapping[str, Any]) -> Plan:
        return Plan(arm.method, template, origin, self.config.sampler(arm.method))

    def _batches(self, plans: Mapping[str, Sequence[Plan]]) -> Iterator[Task]:
        """Full batches of one generator each, then what is left of all generators in common ones.

        The largest crystals come first because they take longest.
        """
        size, numbers, rest = self.policy.batch, count(), list[Plan]()
        for method in METHODS:
            ordered = sorted(plans[method], key=lambda plan: -len(plan.template.crystal))
            whole = len(ordered) - len(ordered) % size
            for start in range(0, whole, size):
                yield self._task(next(numbers), ordered[start : start + size])
            rest += ordered[whole:]
        rest.sort(key=lambda plan: -len(plan.template.crystal))
        for start in range(0, len(rest), size):
            yield self._task(next(numbers), rest[start : start + size])

    def _task(self, number: int, plans: Sequence[Plan]) -> Task:
        """A batch, its settings tuned where that is asked for."""
        identity = f"{self.number:05d}-{number:03d}-{self.campaign.digest}"
        for stage, part in _PARTS.items():
            tuned = [plan.method in TUNED and plan.stage == stage for plan in plans]
            if self.tuner.ranges[part] and any(tuned):
                settings: Any = self.tuner.next(part, self.campaign.seed(self.number, f"{part} {identity}", 0))
                plans = [replace(p, settings=settings) if mine else p for p, mine in zip(plans, tuned, strict=True)]
        relaxation: Any = self.tuner.next("relaxation", self.campaign.seed(self.number, f"relaxation {identity}", 0))
        if self.policy.feedback and self.policy.give_up and relaxation.hopeless is None:
            relaxation = relaxation.model_copy(update={"hopeless": self.policy.give_up * self.bar})
        change = self.config.frameworks.volume_change
        return Task(identity, self.number, tuple(plans), relaxation, self.found, change, self.highest)


def check_beginning(config: SearchConfig, files: Sequence[Mapping[str, Any]]) -> None:
    """See that the generators have something to begin with.

    Args:
        config: the search.
        files: its hosts from files.

    Raises:
        ValueError: they have not.
    """
    new = set(config.generators) & set(NEW_METHODS)
    if new == {EXCHANGE} and not files:
        cells = config.compositions.expand()
        if not any(map(exchanges, cells)):
            raise ValueError(
                f"generators: exchange knows no structure type for {', '.join(map(str, cells[:5]))}; "
                "raise compositions.max_atoms or add diffusion or random"
            )
    filling = [method for method in config.generators if method in HOST_METHODS]
    groups = {record["space_group_number"]: record["space_group"] for record in files}
    if not new and not any(_suits(method, number) for method in filling for number in groups):
        raise ValueError(
            f"generators: {', '.join(filling)} keep a space group, of which the hosts in frameworks.files have too "
            f"little ({', '.join(groups.values())}); add inpainting"
        )


def _suits(method: str, space_group: int) -> bool:
    """Whether a host of a space group has what a method needs: symmetry, or a subgroup with some."""
    return (method != SYMMETRIC or space_group > 1) and (method != SUBGROUP or has_symmetric_subgroups(space_group))


def _e_d(made_from: KnownFramework | Parent) -> float | None:
    return made_from.e_d if isinstance(made_from, Parent) else made_from.parent_e_d


def known_rounds(config: SearchConfig, number: int) -> range:
    """Rounds whose results round ``number`` is planned from."""
    return range(max(0, number - config.policy.lookahead))


_PARTS = {GENERATED: "generation", INPAINTED: "inpainting"}  # of the configuration, with a stage's sampler


def tuner(config: SearchConfig, rows: Sequence[Row], bar: float) -> Tuner:
    """What the results (in the order of their names) say of the settings that the configuration tunes."""
    groups: dict[str, Any] = {part: getattr(config, part) for part in PARTS} | {"samples": config.policy}
    return Tuner(config.tuning, groups, rows, bar, lambda row: work_an_atom(row, config.policy))


def digest(config: SearchConfig) -> str:
    """8 hexadecimal digits of everything in the configuration that decides results, hosts in files included."""
    deciding = [config.physics(), *sorted(hosts(config))]
    return hashlib.blake2b(json.dumps(deciding, sort_keys=True).encode(), digest_size=4).hexdigest()


def hosts(config: SearchConfig) -> list[str]:
    """Names of the hosts in files, which tell what they hold."""
    return [record["framework"] for record in frameworks_from_files(config.frameworks.files)]


def _join(host: Crystal, guests: Guests) -> Crystal:
    """The host with its guests, which have no place yet, behind it."""
    numbers = CellFormula(guests).numbers
    return host.join(Crystal(host.lattice, np.zeros((len(numbers), 3)), numbers))


def _text(guests: Guests) -> str:
    return " ".join(f"{element}{number}" for element, number in guests)


def _guests(text: str) -> Guests:
    return CellFormula.parse(text).counts


def read_trials(config: SearchConfig, rows: list[Mapping[str, Any]]) -> Tuner:
    """The trials of a run whose configuration tunes something."""
    known = Known(config.policy, FrameworkPool(config.frameworks.volume_change), whole=True)
    known.read(rows)
    return tuner(config, known.rows, known.bar())
