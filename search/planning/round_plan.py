"""Planning one round: listing the arms, picking among them, and making tasks of the picks."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np

from model.crystals.composition import CellFormula
from model.diffusion.sampler import Template
from model.generators.interface import EmptyHost, Generator, NewCell, ParentCrystal
from model.generators.registry import GENERATORS
from model.generators.roles import Role, Start
from model.stages import PolishRequest
from model.thermodynamics.candidate_judge import JudgeRequest
from model.thermodynamics.correction import Shift
from search.config import PolicySettings
from search.planning.campaign import Campaign, tuner
from search.planning.frameworks import KnownFramework
from search.planning.history import ArmKey, Parent, SearchHistory
from search.planning.policy import Arm, ArmOutcome, ArmStatistics, Choice, host_class
from search.planning.tasks import Candidate, Origin, Task
from search.planning.tuning import RELAXATION, SAMPLES
from search.storage.rows import PendingRow


def plan_round(
    campaign: Campaign, number: int, history: SearchHistory, pending: Sequence[PendingRow] = ()
) -> list[Task]:
    """Tasks of one round.

    Args:
        campaign: of the search.
        number: of the round.
        history: results of the rounds that the plan is based on, see `Campaign.known_rounds`.
        pending: candidates of the rounds in between, see `search.planning.tasks.pending_rows`; they count as tried,
            without results yet.
    """
    return _Round(campaign, number, history, pending).tasks()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Draft:
    """A candidate that is not assigned to a task yet."""

    generator: str
    template: Template
    origin: Origin

    def __len__(self) -> int:
        return len(self.template.crystal)


class _Round:
    def __init__(self, campaign: Campaign, number: int, history: SearchHistory, pending: Sequence[PendingRow]) -> None:
        self.campaign, self.config, self.number = campaign, campaign.config, number
        self.policy = self.config.policy
        self.generators: dict[str, Generator] = {name: GENERATORS[name] for name in self.config.generators}
        self.pool, self.frameworks, self.parents = history.pool, history.pool.known, history.parents
        self.reward_threshold = history.reward_threshold()
        self.polished = history.polished
        self.judge_below = history.judge_below(self.config.judge.lowest) if self.config.judge else -math.inf
        self.correction = history.correction
        self.polish_below = history.polish_below(self.config.polish.lowest) if self.config.polish else -math.inf
        self.volumes, self.found_phases = history.volumes, dict(sorted(history.found_phases.items()))
        fills = self.config.built_per_round and any(row.start == Start.HOST for row in self.generators.values())
        self.max_parent_e_d = self.pool.max_parent_e_d if fills else -math.inf
        self.tuner = tuner(self.config, history.rows, self.reward_threshold)
        self.tuner.note_pending(pending)
        self.arms, self.lattices = ArmStatistics(self.policy), ArmStatistics(self.policy)
        for key, outcome in history.spent(self.reward_threshold):
            self._record(key, outcome)
        for key, tries in Counter(map(ArmKey.of, pending)).items():
            self._record(key, ArmOutcome(tries))
        self._bravais: dict[str, Choice] = {}  # of each cell
        self._next_option: dict[tuple[str, str, str], int] = {}

    def tasks(self) -> list[Task]:
        """All tasks of the round."""
        policy = self.tuner.next(SAMPLES, self.campaign.seed(self.number, SAMPLES, 0))
        assert isinstance(policy, PolicySettings)
        self.samples = policy.samples
        new = self._arms_of_cells()
        building = [*self._arms_of_crystals(), *self._arms_of_hosts()] if self.config.built_per_round else []
        self._next_option = {
            (arm.generator, arm.cell, arm.host): self._tried(arm)
            for arm in (*new, *building)
            if GENERATORS[arm.generator].has_options
        }
        drafts: dict[str, list[_Draft]] = {name: [] for name in GENERATORS}
        numbers = {role: count() for role in Role}
        for arm, candidates in self._picks(new, building):
            role = GENERATORS[arm.generator].role
            for _ in range(candidates):
                seed = self.campaign.seed(self.number, role, next(numbers[role]))
                drafts[arm.generator].append(self._draft(arm, seed))
        return list(self._batches(drafts))

    # --- arms ---------------------------------------------------------------------------------------------------------

    def _arms_of_cells(self) -> list[Arm]:
        """Generators that start from nothing, in every cell.

        A generator with options takes part in a cell until they are used up. If only such generators remain and all
        their options are used up, they start again.
        """
        cells = sorted(self.campaign.cells, key=lambda cell: self.campaign.seed(0, cell, 0))
        starting = [name for name, row in self.generators.items() if row.start == Start.NOTHING]
        arms = [Arm(name, cell) for name in starting for cell in cells if self._options_left(name, cell, 0)]
        return [arm for arm in arms if self._options_left(arm.generator, arm.cell, self._tried(arm))] or arms

    def _options_left(self, generator: str, cell: str, tried: int) -> bool:
        return not GENERATORS[generator].has_options or tried < len(self.campaign.options(generator, cell))

    def _arms_of_crystals(self) -> Iterator[Arm]:
        """Crystals that can still be changed; the number of possible changes is looked up only after the first."""
        changing = [name for name, row in self.generators.items() if row.start == Start.CRYSTAL]
        if not changing:
            return
        highest = 2 * self.reward_threshold if self.policy.feedback else math.inf
        parents = [parent for parent in self.parents.values() if parent.e_d <= highest]
        best = heapq.nsmallest(self.policy.max_parents, parents, key=lambda parent: parent.e_d)
        for generator in changing:
            for parent in best:
                for cell in self.campaign.reached_cells(generator, parent.cell):
                    arm = Arm(
                        generator, cell, host=parent.name, host_class=host_class(parent.e_d, self.reward_threshold)
                    )
                    tried = self._tried(arm)
                    ways = len(self.campaign.options(generator, cell, parent)) if tried else 1
                    if tried < ways:
                        yield replace(arm, limit=ways)

    def _arms_of_hosts(self) -> Iterator[Arm]:
        filling = [name for name, row in self.generators.items() if row.start == Start.HOST]
        for framework in self.pool.best():
            if framework.given and self.number < self.config.first_to_build:
                continue
            quality = host_class(framework.parent_e_d, self.reward_threshold)
            able = [name for name in filling if GENERATORS[name].suits(framework.space_group_number)]
            for cell, guests in self.campaign.fillings(framework):
                for generator in able:
                    yield Arm(generator, cell, host=framework.name, host_class=quality, guests=guests)

    def _picks(self, new: Sequence[Arm], building: Sequence[Arm]) -> list[tuple[Arm, int]]:
        """Arms and the number of candidates of each; with feedback, both kinds compete."""
        more = self.config.built_per_round if building else 0
        if self.policy.feedback:
            return self._choose([*new, *building], self.config.new_per_round + more, "arms")
        return self._choose(new, self.config.new_per_round, "new") + self._choose(building, more, "hosts")

    def _choose(self, arms: Sequence[Arm], slots: int, purpose: str) -> list[tuple[Arm, int]]:
        def rng(pick: int) -> np.random.Generator:
            return np.random.default_rng(self.campaign.seed(self.number, purpose, pick))

        return Choice(arms, self.arms).pick(slots, rng, self.samples)

    def _tried(self, arm: Arm) -> int:
        """Candidates of an arm so far, including unfinished ones."""
        return self.arms.tried(arm)[2]

    def _record(self, key: ArmKey, outcome: ArmOutcome) -> None:
        """Count candidates for their arm, and new crystals also for their Bravais lattice."""
        made_from = self.frameworks.get(key.origin) or self.parents.get(key.origin)
        quality = 0 if made_from is None else host_class(_e_d(made_from), self.reward_threshold)
        self.arms.record(Arm(key.generator, key.cell, host=key.origin, host_class=quality), outcome)
        if made_from is None and key.lattice:
            self.lattices.record(Arm(key.lattice, key.cell), outcome)

    # --- candidates ---------------------------------------------------------------------------------------------------

    def _draft(self, arm: Arm, seed: int) -> _Draft:
        """A candidate of an arm; if the generator has options, the next one in turn."""
        generator = GENERATORS[arm.generator]
        if generator.has_options:
            options = self.campaign.options(arm.generator, arm.cell, self.parents.get(arm.host))
            key = arm.generator, arm.cell, arm.host
            turn = self._next_option[key]
            self._next_option[key] += 1
            choice = {"option": options[turn % len(options)], "again": turn >= len(options)}
        else:
            choice = {}
        proposal = generator.propose(self._start(generator, arm, seed), seed, **choice)
        origin = replace(self._origin(generator, arm), bravais_lattice=proposal.bravais, prototype=proposal.prototype)
        return _Draft(generator=arm.generator, template=proposal.template, origin=origin)

    def _start(self, generator: Generator, arm: Arm, seed: int) -> NewCell | ParentCrystal | EmptyHost:
        if generator.start == Start.HOST:
            framework = self.frameworks[arm.host]
            return EmptyHost(host=framework.host, guests=arm.guests, bravais=framework.bravais_lattice)
        cell = self.campaign.cells[arm.cell]
        if generator.start == Start.CRYSTAL:
            parent = self.parents[arm.host]
            was = CellFormula.parse(parent.cell)
            growth = cell.n_atoms * self.campaign.volume(cell) / was.n_atoms / self.campaign.volume(was)
            return ParentCrystal(crystal=parent.crystal, cell=cell, growth=growth, bravais=parent.bravais_lattice)
        return NewCell(
            cell=cell,
            volume=self._volume(cell),
            bravais=lambda: self._lattice(arm.cell, seed),
            ranges=self.config.lattices.ranges,
        )

    def _origin(self, generator: Generator, arm: Arm) -> Origin:
        if generator.start == Start.NOTHING:
            return Origin(cell_formula=arm.cell)
        if generator.start == Start.CRYSTAL:
            return Origin(cell_formula=arm.cell, parent=arm.host)
        framework = self.frameworks[arm.host]
        return Origin(
            cell_formula=arm.cell,
            parent=framework.parent,
            framework=arm.host,
            framework_space_group=framework.space_group,
            framework_symprec=framework.symprec,
            framework_displacement=framework.displacement,
            guests=tuple(sorted(element for element, _ in arm.guests)),
            samples=self.samples,
        )

    def _volume(self, cell: CellFormula) -> float:
        """Å³ of a new cell, N·V0."""
        known = self.volumes.get(cell.reduced) or self.config.lattices.volume_per_atom
        return cell.n_atoms * (known or self.campaign.volume(cell))

    def _lattice(self, cell: str, seed: int) -> str:
        """The most rewarding Bravais lattice for this cell; the lattices take turns until there are results."""
        if cell not in self._bravais:
            order = np.random.default_rng(self.campaign.seed(0, cell, 1)).permutation(self.config.lattices.bravais)
            self._bravais[cell] = Choice([Arm(str(name), cell) for name in order], self.lattices)
        ((arm, _),) = self._bravais[cell].pick(1, lambda pick: np.random.default_rng([seed, 1, pick]), 1)
        return arm.generator

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _batches(self, drafts: Mapping[str, Sequence[_Draft]]) -> Iterator[Task]:
        """Full batches of one generator each, then mixed batches of what is left of all generators.

        The largest crystals come first because they take longest.
        """
        size, numbers, rest = self.policy.batch, count(), list[_Draft]()
        for own in drafts.values():
            ordered = sorted(own, key=lambda draft: -len(draft))
            whole = len(ordered) - len(ordered) % size
            for start in range(0, whole, size):
                yield self._task(next(numbers), ordered[start : start + size])
            rest += ordered[whole:]
        rest.sort(key=lambda draft: -len(draft))
        for start in range(0, len(rest), size):
            yield self._task(next(numbers), rest[start : start + size])

    def _task(self, number: int, drafts: Sequence[_Draft]) -> Task:
        """A batch, with tuned settings if the configuration asks for them."""
        identity = f"{self.number:05d}-{number:03d}-{self.campaign.digest}"
        formulas = sorted({draft.template.crystal.formula for draft in drafts})
        settings: dict[str, Any] = {name: self.config.sampling.get(name) for name in GENERATORS}
        for part, ranges in self.tuner.ranges.items():
            if part in GENERATORS and ranges and any(draft.generator == part for draft in drafts):
                settings[part] = self.tuner.next(part, self._tuning_seed(part, identity))
        relaxation: Any = self.tuner.next(RELAXATION, self._tuning_seed(RELAXATION, identity))
        if self.policy.feedback and self.policy.early_stop_factor and relaxation.energy_ceiling is None:
            ceiling = self.policy.early_stop_factor * self.reward_threshold
            relaxation = relaxation.model_copy(update={"energy_ceiling": ceiling})
        return Task(
            identity=identity,
            round=self.number,
            candidates=tuple(
                Candidate(
                    number=place,
                    generator=draft.generator,
                    template=draft.template,
                    settings=settings[draft.generator],
                    origin=draft.origin,
                )
                for place, draft in enumerate(drafts)
            ),
            relaxation=relaxation,
            polish=self._polish(formulas),
            judge=self._judge(formulas),
            found_phases=self.found_phases,
            volume_change=self.config.frameworks.volume_change,
            max_parent_e_d=self.max_parent_e_d,
        )

    def _polish(self, formulas: Iterable[str]) -> PolishRequest | None:
        """Which crystals of a batch with these reduced formulas are polished."""
        if self.config.polish is None:
            return None
        known = [one for formula in formulas for one in self.polished.get(formula, ())]
        above_hull = {formula: self._shift(formula).at(self.polish_below) for formula in formulas}
        return PolishRequest(settings=self.config.polish, above_hull=above_hull, known=known)

    def _judge(self, formulas: Iterable[str]) -> JudgeRequest | None:
        """Which crystals of such a batch are judged."""
        if self.config.judge is None:
            return None
        return JudgeRequest(below=self.judge_below, shifts={formula: self._shift(formula) for formula in formulas})

    def _shift(self, formula: str) -> Shift:
        return Shift() if self.correction is None else self.correction.shift(formula)

    def _tuning_seed(self, part: str, identity: str) -> int:
        return self.campaign.seed(self.number, f"{part} {identity}", 0)


def _e_d(made_from: KnownFramework | Parent) -> float | None:
    return made_from.e_d if isinstance(made_from, Parent) else made_from.parent_e_d
