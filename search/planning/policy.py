"""Deciding what to do next: Thompson sampling of reward per unit of work. No Ray, no clock; see docs/policy.md.

An arm is one option to spend work on: a generator and a cell formula, plus a framework to fill or a crystal to mutate
if the generator needs one. The aim is to find crystals of low E_d that are not known yet. The probability that a
candidate is low in energy and the probability that a low one is new are estimated separately; the latter is the share
of low candidates whose crystal was seen only once in the whole search (Good, Biometrika 40, 237 (1953); Bubeck, Ernst
and Garivier, J. Mach. Learn. Res. 14, 601 (2013)). Results are pooled by generator, composition and size, so that an
arm that was never tried is judged by related arms.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import numpy as np

from model.crystals.composition import CellFormula
from model.generators.interface import Guests
from model.generators.registry import GENERATORS
from search.config import PolicySettings
from search.storage.rows import HistoryRow

Node = tuple[str, ...]
EVERYTHING: Node = ()
START_VALUE = 0.3  # prior value of a candidate; each generator has its own initial guess
START_NEW = 0.9  # prior probability that a valuable crystal is new
CERTAIN = 1 - 1e-12  # upper limit of rates, so that their odds stay finite
START_WORK = 30.0  # prior number of relaxation steps per candidate
FIXED_WORK = 200.0  # per candidate of any size: symmetry, comparison, share in a batch; evaluations of one atom


@dataclass(frozen=True)
class Arm:
    """One option to spend work on.

    Attributes:
        generator: its name; the Bravais lattice when choosing among these.
        cell: formula of the (filled) cell.
        host: framework that is filled, or crystal that is mutated; empty for new crystals.
        host_class: 0 for new crystals, else how good the host's best crystal is, see `host_class`.
        guests: atoms placed into a framework; else empty.
        limit: number of distinct candidates that it can make; None if unlimited.
    """

    generator: str
    cell: str
    _: KW_ONLY
    host: str = ""
    host_class: int = 0
    guests: Guests = ()
    limit: int | None = None


class ArmOutcome(NamedTuple):
    """What came of candidates that count for the same arm.

    Attributes:
        tries: number of candidates.
        value: sum of their values, see `value`; None while they are unfinished.
        low: how many have a value above 0.
        once: how many of those are crystals that were seen only once in the whole search.
        work: total work; None if unknown.
    """

    tries: int
    value: float | None = None
    low: float = 0.0
    once: float = 0.0
    work: float | None = None


class ArmStatistics:
    """Candidates tried, their value and their work, at every level from all candidates down to one arm."""

    def __init__(self, settings: PolicySettings) -> None:
        self.settings = settings
        self._low, self._new = Rates(settings.prior_weight), Rates(settings.new_prior_weight)
        self._work: dict[Node, tuple[int, float]] = {}  # candidates with known work, steps
        self._pulls: Counter[Node] = Counter()
        self._under_way: Counter[str] = Counter()  # unfinished candidates by cell
        self._cells: dict[str, tuple[str, str, int]] = {}
        self._low_priors: dict[tuple[str, str, int], float] = {}  # by generator, cell and class, since the last outcome
        # By cell and generator, since the last candidate of the cell.
        self._new_priors: dict[str, dict[str, float]] = {}

    @property
    def empty(self) -> bool:
        """Whether there are no results yet."""
        return EVERYTHING not in self._low

    def record(self, arm: Arm, outcome: ArmOutcome) -> None:
        """Count candidates of an arm; unfinished ones count as tries without value so far."""
        tries, value, low, once, work = outcome
        reduced, region, size = self._cell(arm.cell)
        generator, cell, group, leaf = ("generator", arm.generator), ("cell", arm.cell), _group(arm), _leaf(arm)
        for node in {cell, group, leaf}:
            self._pulls[node] += tries
        self._new_priors.pop(arm.cell, None)
        if value is None:
            self._low.add({leaf}, tries, 0.0)
            self._new.add({leaf}, tries, 0.0)
            self._under_way[arm.cell] += tries
            return
        self._low_priors.clear()
        self._new_priors.clear()
        shared = {EVERYTHING, generator, ("size", str(size)), cell, group, leaf}
        quality = ("class", arm.generator, str(arm.host_class))
        self._low.add(shared | {("region", region), ("formula", reduced), quality}, tries, value)
        self._new.add(shared, low, once)
        if work is not None:
            for node in (EVERYTHING, generator, group):
                known, steps = self._work.get(node, (0, 0.0))
                self._work[node] = known + tries, steps + max(0.0, work - tries * FIXED_WORK) / size

    def beta(self, arm: Arm) -> tuple[float, float, float, float]:
        """Parameters of the Beta distributions of an arm's value and of its probability of being new."""
        kind = arm.generator, arm.cell, arm.host_class
        if kind not in self._low_priors:
            self._low_priors[kind] = self._low_prior(arm)
        leaf, new = _leaf(arm), self.new_prior(arm)
        return *self._low.posterior(leaf, self._low_priors[kind]), *self._new.posterior(leaf, new)

    def new_prior(self, arm: Arm) -> float:
        """Expected probability of being new, before the arm's own candidates; that of all arms of its group."""
        priors = self._new_priors.setdefault(arm.cell, {})
        if arm.generator not in priors:
            priors[arm.generator] = self._new_prior(arm)
        return priors[arm.generator]

    def new_counts(self, arm: Arm) -> tuple[float, float]:
        """What is added to the parameters of the second distribution by the arm's own candidates."""
        return self._new.counts(_leaf(arm))

    def _low_prior(self, arm: Arm) -> float:
        reduced, region, size = self._cell(arm.cell)
        everything = self._low.rate(START_VALUE, EVERYTHING)
        start = _from_odds(_odds(everything) * _odds(_start(arm.generator)) / _odds(START_VALUE))
        generator = self._low.rate(start, ("generator", arm.generator))
        formula = self._low.rate(everything, ("region", region), ("formula", reduced), ("cell", arm.cell))
        prior = _together(everything, generator, formula, self._low.rate(everything, ("size", str(size))))
        if not arm.host:
            return prior
        quality = self._low.rate(generator, ("class", arm.generator, str(arm.host_class)))
        return _together(generator, self._low.rate(prior, _group(arm)), quality)

    def _new_prior(self, arm: Arm) -> float:
        everything = self._new.rate(START_NEW, EVERYTHING)
        cell = self._new.rate(everything, ("size", str(self._cell(arm.cell)[2])), ("cell", arm.cell))
        prior = _together(everything, self._new.rate(everything, ("generator", arm.generator)), cell)
        return prior / (1 + self._under_way[arm.cell] / self.settings.new_prior_weight)

    def work(self, arm: Arm) -> float:
        """Expected work of one candidate."""
        estimate = START_WORK
        for node in (EVERYTHING, ("generator", arm.generator), _group(arm)):
            known, steps = self._work.get(node, (0, 0.0))
            estimate = (steps + estimate) / (known + 1)
        return FIXED_WORK + self._cell(arm.cell)[2] * estimate

    def tried(self, arm: Arm) -> tuple[int, int, int]:
        """Number of candidates, including pending ones: of generator and cell, of the cell, and of the arm itself."""
        return self._pulls[_group(arm)], self._pulls["cell", arm.cell], self._pulls[_leaf(arm)]

    def used_up(self, arm: Arm) -> bool:
        """Whether an arm has made all its distinct candidates."""
        return arm.limit is not None and self.tried(arm)[2] >= arm.limit

    def _cell(self, name: str) -> tuple[str, str, int]:
        """Reduced formula, region of composition space (fractions to the nearest fifth) and number of atoms."""
        if name not in self._cells:
            cell = CellFormula.parse(name)
            region = " ".join(f"{element}{round(5 * cell.fraction(element))}" for element in cell.elements)
            self._cells[name] = (cell.reduced, region, cell.n_atoms)
        return self._cells[name]


class Rates:
    """Tries and their yield by node; the rate of a node shrinks towards that of the larger node that contains it.

    Args:
        strength: number of tries as which the rate of the larger node counts.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self._sums: dict[Node, tuple[float, float]] = {}

    def __contains__(self, node: Node) -> bool:
        return node in self._sums

    def add(self, nodes: Iterable[Node], tries: float, brought: float) -> None:
        """Add tries and their yield ``brought`` (at most ``tries``) to all nodes."""
        for node in nodes:
            known, sum_ = self._sums.get(node, (0.0, 0.0))
            self._sums[node] = known + tries, sum_ + brought

    def posterior(self, node: Node, prior: float) -> tuple[float, float]:
        """Parameters of the Beta distribution of a node's rate; its mean without any tries is ``prior``."""
        brought, missed = self.counts(node)
        return self.strength * prior + brought, self.strength * (1 - prior) + missed

    def counts(self, node: Node) -> tuple[float, float]:
        """The yield of a node, and its tries that brought nothing."""
        tries, brought = self._sums.get(node, (0.0, 0.0))
        return brought, max(0.0, tries - brought)

    def rate(self, prior: float, *nodes: Node) -> float:
        """Expected rate of the last of several nested nodes, largest first."""
        for node in nodes:
            a, b = self.posterior(node, prior)
            prior = min(CERTAIN, a / (a + b))
        return prior


def _together(everything: float, own: float, *others: float) -> float:
    """Expected rate where a set with its own rate intersects others: their odds relative to everything are multiplied.

    The odds of the others enter by their square root only. What is good for one generator is not quite as good for the
    next, and of many cells, the one that looks best was partly lucky.
    """
    odds = _odds(own)
    for rate in others:
        odds *= math.sqrt(_odds(rate) / _odds(everything))
    return _from_odds(odds)


def _odds(rate: float) -> float:
    return rate / (1 - rate)


def _from_odds(odds: float) -> float:
    return min(CERTAIN, odds / (1 + odds))


def _start(generator: str) -> float:
    """The initial guess of a generator; arms that are Bravais lattices have none of their own."""
    return GENERATORS[generator].first_guess if generator in GENERATORS else START_VALUE


def _group(arm: Arm) -> Node:
    return ("group", arm.generator, arm.cell)


def _leaf(arm: Arm) -> Node:
    return ("arm", arm.generator, arm.cell, arm.host) if arm.host else _group(arm)


class Choice:
    """A set of arms to pick from many times.

    The estimates are kept in arrays. They stay valid only as long as nothing but picks of these arms is recorded in the
    statistics.

    Args:
        arms: in a fixed order.
        statistics: results so far; picks are recorded in it as unfinished.
    """

    def __init__(self, arms: Sequence[Arm], statistics: ArmStatistics) -> None:
        self.arms, self.statistics = arms, statistics
        self.beta = np.array([statistics.beta(arm) for arm in arms]).reshape(-1, 4)
        self._counts = np.array([statistics.new_counts(arm) for arm in arms]).reshape(-1, 2)
        self.work = np.array([statistics.work(arm) for arm in arms])
        self.used_up = np.array([statistics.used_up(arm) for arm in arms], dtype=bool)
        groups: dict[Node, list[int]] = {}
        for place, arm in enumerate(arms):
            groups.setdefault(_group(arm), []).append(place)
        self._groups = [np.array(places) for places in groups.values()]
        self._in_cell: dict[str, list[int]] = {}  # numbers of the groups
        for number, (_, _, cell) in enumerate(groups):
            self._in_cell.setdefault(cell, []).append(number)
        self._best = np.array([places[0] for places in self._groups], dtype=np.intp)  # most promising arm of each
        for number in range(len(groups)):
            self._find_best(number)

    def pick(self, slots: int, rng: Callable[[int], np.random.Generator], samples: int) -> list[tuple[Arm, int]]:
        """Arms and the number of candidates of each, in the order of the picks.

        Args:
            slots: number of candidates to distribute.
            rng: gives the random generator of each pick, numbered from 1; 0 gives the one that decides which picks
                are exploration.
            samples: candidates per pick of an arm that fills a host; other arms get one.
        """
        settings = self.statistics.settings
        strength = settings.new_prior_weight
        picks: list[tuple[Arm, int]] = []
        least_tried = _LeastTried(self.arms, self.statistics)
        drawn: np.ndarray | None = None
        chance = rng(0)
        while slots > 0 and not self.used_up.all():
            if not settings.feedback or self.statistics.empty or chance.random() < settings.exploration_rate:
                place = least_tried.next()
            else:
                if drawn is None:
                    drawn = self._draw(range(len(self._groups)), rng(len(picks) + 1))
                place = int(self._best[np.argmax(drawn)])
            arm = self.arms[place]
            count = min(samples if arm.guests else 1, slots)
            picks.append((arm, count))
            least_tried.given[arm.generator] += count
            slots -= count
            self.statistics.record(arm, ArmOutcome(count))
            self.used_up[place] = self.statistics.used_up(arm)
            changed = self._in_cell[arm.cell]
            self.beta[place], self._counts[place] = self.statistics.beta(arm), self.statistics.new_counts(arm)
            for number in changed:  # all arms of the cell are less likely to be new
                places = self._groups[number]
                prior = self.statistics.new_prior(self.arms[places[0]])
                self.beta[places, 2:] = strength * np.array([prior, 1 - prior]) + self._counts[places]
                self._find_best(number)
            if drawn is not None:
                drawn[changed] = self._draw(changed, rng(len(picks) + 1))
        return picks

    def _find_best(self, number: int) -> None:
        places = self._groups[number]
        if len(places) == 1:
            return
        low, not_low, new, not_new = self.beta[places].T
        worth = low / (low + not_low) * new / (new + not_new)
        self._best[number] = places[np.argmax(np.where(self.used_up[places], -1.0, worth))]

    def _draw(self, numbers: Sequence[int], rng: np.random.Generator) -> np.ndarray:
        """Expected new value per unit of work, drawn for the most promising arm of each of these groups.

        Negative for a group that is used up.
        """
        places = self._best[list(numbers)]
        low, not_low, new, not_new = self.statistics.settings.posterior_concentration * self.beta[places].T
        drawn = rng.beta(low, not_low) * rng.beta(new, not_new) / self.work[places]
        return np.where(self.used_up[places], -1.0, drawn)


class _LeastTried:
    """Exploration: picks the generator with the fewest candidates this round, and there the arm tried least.

    With feedback, the number of candidates, the next one included, is divided by the generator's initial guess. Each
    generator has a heap of its arms. Counts only grow, so an outdated entry is too early in the heap; it is updated
    when it reaches the top.
    """

    def __init__(self, arms: Sequence[Arm], statistics: ArmStatistics) -> None:
        self.arms, self.statistics = arms, statistics
        self.given: Counter[str] = Counter()  # candidates by generator
        self._heaps: dict[str, list[tuple[tuple[int, int, int], int]]] = {}

    def next(self) -> int:
        """Index of the next arm."""
        if not self._heaps:
            for number, arm in enumerate(self.arms):
                self._heaps.setdefault(arm.generator, []).append((self.statistics.tried(arm), number))
            for heap in self._heaps.values():
                heapq.heapify(heap)
        firsts = [
            (self._share(generator), *first) for generator, heap in self._heaps.items() for first in self._first(heap)
        ]
        return min(firsts)[-1]

    def _share(self, generator: str) -> float:
        return (self.given[generator] + 1) / (_start(generator) if self.statistics.settings.feedback else 1.0)

    def _first(self, heap: list[tuple[tuple[int, int, int], int]]) -> list[tuple[tuple[int, int, int], int]]:
        """The updated entry of the arm tried least; empty if all arms are used up."""
        while heap:
            _, number = heap[0]
            if self.statistics.used_up(self.arms[number]):
                heapq.heappop(heap)
            elif heap[0][0] != (tried := self.statistics.tried(self.arms[number])):
                heapq.heapreplace(heap, (tried, number))
            else:
                break
        return heap[:1]


def value(e_d: np.ndarray, reward_threshold: float) -> np.ndarray:
    """Value of crystals: 1 on the hull, 1/2 at the threshold, 0 above it or without energy; both in eV/atom."""
    return np.where(e_d <= reward_threshold, np.minimum(1.0, 1 - e_d / (2 * reward_threshold)), 0.0)


def work(row: HistoryRow, settings: PolicySettings) -> float:
    """Work spent on a candidate, in evaluations of the potential for one atom; counted, not timed."""
    relaxing = 0 if row.steps is None else (row.n_independent_atoms or 0) * (row.steps + 1)
    sampling = settings.evaluation_cost * row.n_atoms * (row.evaluations or 0)
    return float(FIXED_WORK + GENERATORS[row.generator].work + relaxing + sampling)


def work_per_atom(row: HistoryRow, settings: PolicySettings) -> float:
    """The size-dependent part of a candidate's work, per atom."""
    return (work(row, settings) - FIXED_WORK) / float(row.n_atoms)


def host_class(parent_e_d: float | None, reward_threshold: float) -> int:
    """Class of a framework by the best crystal in which it was found: 1 to 4 for E_d up to 1, 2, 4 thresholds, or more.

    Class 5 is for a framework from a file that no crystal of the search has had yet.
    """
    if parent_e_d is None:
        return 5
    return 1 + sum(parent_e_d > limit * reward_threshold for limit in (1, 2, 4))
