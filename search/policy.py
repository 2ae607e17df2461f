"""What to do next, and why: Thompson sampling for discovery, reward a unit of work. No Ray, no clock; docs/policy.md.

An arm is a way to spend work: a method (a generator) on a cell formula, and for inpainting methods a framework. What
counts is to find crystals of low E_d that are not known yet. The chance that an arm's next candidate is one is the
share of its candidates that are such crystals and were seen only once in the whole search (Good, Biometrika 40, 237
(1953); Bubeck, Ernst and Garivier, J. Mach. Learn. Res. 14, 601 (2013)). What is known of methods and compositions is
pooled, so that an arm that was never tried is judged by its relatives.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from model.composition import CellFormula
from model.distinct import DistinctCrystals, DistinctSettings
from model.settings import Settings
from search.results import TIMINGS, required

Rows = Sequence[Mapping[str, Any]]
Node = tuple[str, ...]
COMPARED = 0.3  # eV/atom; crystals above are so many and so little worth that they are not compared with each other
RELAXED = DistinctSettings(volume_tolerance=0.05, distance_tolerance=0.2)  # the same minimum is reached to 0.1 Å
EVERYTHING: Node = ()
START_RATE = 0.2  # reward of a candidate before anything is known
START_WORK = 30.0  # steps of the potential that a candidate takes before anything is known
FIXED_WORK = 100.0  # of a candidate whatever its size: screening, symmetry, comparison; evaluations of one atom


class StopSettings(Settings):
    """When to end before all rounds are done. Nothing here decides what a round holds, so all may change on resume."""

    patience: int | None = Field(None, ge=1)  # rounds without a lower E_d of any formula inside policy.window
    target: float | None = None  # eV/atom; one relaxed crystal at or below it ends the search
    candidates: int | None = Field(None, ge=1)
    cpu_seconds: float | None = Field(None, gt=0)  # of all actors together, from the stored timings
    hours: float | None = Field(None, gt=0)  # wall time since this start


class PolicySettings(Settings):
    """Length and balance of a search."""

    rounds: int = Field(10, ge=1)
    generated: int = Field(16, ge=1)  # new crystals a round
    inpainted: int = Field(16, ge=0)  # more crystals a round, once there are frameworks; 0: no inpainting
    samples: int = Field(3, ge=1)  # inpainted crystals a framework and pick
    lookahead: int = Field(1, ge=0)  # rounds planned before the results of the latest are in, so that no core waits
    feedback: bool = True  # False: every arm counts alike, E_d decides nothing
    window: float = Field(0.05, gt=0)  # eV/atom, E_d below which a crystal is worth finding
    quantile: float = Field(0.1, gt=0, le=1)  # while fewer are below `window`, this best share of all counts instead
    floor: float = Field(0.15, ge=0, le=1)  # share of a round that goes to the arms tried least, whatever their E_d
    strength: float = Field(8.0, gt=0)  # candidates that what is known of relatives counts for
    evaluation_cost: float = Field(0.3, ge=0)  # one evaluation of the score network in evaluations of the potential
    pool: int = Field(200, ge=1)  # frameworks that compete, the most promising ones
    batch: int = Field(8, ge=1)  # crystals a task
    stop: StopSettings = StopSettings()


@dataclass(frozen=True)
class Arm:
    """A way to spend work.

    Attributes:
        method: name of the generator.
        cell: formula of the filled cell.
        host: framework that is filled; empty for new crystals.
        host_class: 0 for new crystals, else how good the framework's parent is, see `host_class`.
        guests: what is put into the host, as text; empty for new crystals.
    """

    method: str
    cell: str
    host: str = ""
    host_class: int = 0
    guests: str = ""


class Book:
    """What was spent and what came of it, at every level from everything to one arm."""

    def __init__(self, settings: PolicySettings) -> None:
        self.settings = settings
        self._sums: dict[Node, np.ndarray] = {}  # tries, rewards, tries with known work, steps
        self._pulls: Counter[Node] = Counter()
        self._cells: dict[str, tuple[str, str, int]] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing has come back yet."""
        return EVERYTHING not in self._sums

    def record(self, arm: Arm, reward: float | None, work: float | None = None) -> None:
        """Count one candidate; without a reward it is under way, a try of its arm that has brought nothing so far."""
        self._pulls.update([_leaf(arm), _group(arm), ("cell", arm.cell)])
        if reward is None:
            for node in {_leaf(arm), _group(arm)}:
                self._add(node, np.array([1.0, 0.0, 0.0, 0.0]))
            return
        steps = 0.0 if work is None else max(0.0, work - FIXED_WORK) / self._cell(arm.cell)[2]
        entry = np.array([1.0, reward, float(work is not None), steps])
        for node in self._nodes(arm):
            self._add(node, entry)

    def beta(self, arm: Arm) -> tuple[float, float]:
        """The two parameters of the Beta distribution of the reward of an arm's method and cell."""
        reduced, region, _ = self._cell(arm.cell)
        everything = self._rate(EVERYTHING, START_RATE)
        method = self._rate(("method", arm.method), everything)
        cell = self._rate(
            ("cell", arm.cell), self._rate(("formula", reduced), self._rate(("region", region), everything))
        )
        odds = _odds(method) * _odds(cell) / _odds(everything)
        return self._posterior(_group(arm), odds / (1 + odds))

    def host_beta(self, arm: Arm) -> tuple[float, float]:
        """The same for one framework among those of its method and cell."""
        method = self._rate(("method", arm.method), self._rate(EVERYTHING, START_RATE))
        return self._posterior(_leaf(arm), self._rate(("class", arm.method, str(arm.host_class)), method))

    def work(self, arm: Arm) -> float:
        """Expected work of one candidate."""
        estimate = START_WORK
        for node in (EVERYTHING, ("method", arm.method), _group(arm)):
            _, _, known, total = self._sums.get(node, _NOTHING)
            estimate = (total + estimate) / (known + 1)
        return FIXED_WORK + self._cell(arm.cell)[2] * estimate

    def tried(self, arm: Arm) -> tuple[int, int, int]:
        """Candidates spent on an arm's method and cell, on its cell by any method, and on itself, all under way too."""
        return self._pulls[_group(arm)], self._pulls["cell", arm.cell], self._pulls[_leaf(arm)]

    def _posterior(self, node: Node, prior: float) -> tuple[float, float]:
        tries, reward = self._sums.get(node, _NOTHING)[:2]
        strength = self.settings.strength
        return strength * prior + reward, strength * (1 - prior) + max(0.0, tries - reward)

    def _rate(self, node: Node, prior: float) -> float:
        a, b = self._posterior(node, prior)
        return float(a / (a + b))

    def _add(self, node: Node, entry: np.ndarray) -> None:
        self._sums[node] = self._sums.get(node, _NOTHING) + entry

    def _nodes(self, arm: Arm) -> set[Node]:
        reduced, region, _ = self._cell(arm.cell)
        return {
            EVERYTHING,
            ("method", arm.method),
            ("class", arm.method, str(arm.host_class)),
            ("region", region),
            ("formula", reduced),
            ("cell", arm.cell),
            _group(arm),
            _leaf(arm),
        }

    def _cell(self, name: str) -> tuple[str, str, int]:
        """Reduced formula, region of composition space (fractions to the nearest fifth) and number of atoms."""
        if name not in self._cells:
            cell = CellFormula.parse(name)
            region = " ".join(f"{element}{round(5 * cell.fraction(element))}" for element in cell.elements)
            self._cells[name] = (cell.reduced, region, cell.n_atoms)
        return self._cells[name]


_NOTHING = np.zeros(4)


def _group(arm: Arm) -> Node:
    return ("group", arm.method, arm.cell)


def _leaf(arm: Arm) -> Node:
    return ("arm", arm.method, arm.cell, arm.host)


def _odds(rate: float) -> float:
    return rate / (1 - rate)


def choose(
    arms: Sequence[Arm], book: Book, slots: int, rng: Callable[[int], np.random.Generator], samples: int
) -> list[tuple[Arm, int]]:
    """Spread the slots of a round over arms: (arm, candidates) in the order of the picks.

    Args:
        arms: in a fixed order.
        book: what is known; picks are recorded in it as under way.
        slots: candidates to give away.
        rng: from the number of the pick to its random numbers.
        samples: candidates a pick of an arm with a host; other arms get one.
    """
    settings = book.settings
    picks: list[tuple[Arm, int]] = []
    given: Counter[str] = Counter()  # candidates by method
    values = _Values(arms, book)
    while slots > 0 and arms:
        even = not settings.feedback or book.empty or _due(len(picks), settings.floor)
        arm = _least_tried(arms, book, given) if even else values.best(rng(len(picks)))
        count = min(samples if arm.host else 1, slots)
        picks.append((arm, count))
        given[arm.method] += count
        slots -= count
        for _ in range(count):
            book.record(arm, None)
        values.refresh(arm)
    return picks


def _due(number: int, floor: float) -> bool:
    """Whether the pick of this number belongs to the floor: the share ``floor`` of all numbers, evenly spread."""
    return math.floor((number + 1) * floor) > math.floor(number * floor)


class _Values:
    """Beta parameters and expected work of all methods and cells as arrays, kept up to date while picks are made."""

    def __init__(self, arms: Sequence[Arm], book: Book) -> None:
        self.book = book
        self.groups: dict[Node, list[Arm]] = {}
        for arm in arms:
            self.groups.setdefault(_group(arm), []).append(arm)
        self.place = {node: i for i, node in enumerate(self.groups)}
        first = [some[0] for some in self.groups.values()]
        self.beta = np.array([book.beta(arm) for arm in first]).reshape(-1, 2)
        self.work = np.array([book.work(arm) for arm in first])

    def best(self, rng: np.random.Generator) -> Arm:
        """The method and cell with the largest drawn reward a unit of work; of their frameworks the one drawn best."""
        drawn = rng.beta(self.beta[:, 0], self.beta[:, 1]) / self.work
        some = list(self.groups.values())[int(np.argmax(drawn))]
        if len(some) == 1:
            return some[0]
        a, b = np.array([self.book.host_beta(arm) for arm in some]).T
        return some[int(np.argmax(rng.beta(a, b)))]

    def refresh(self, arm: Arm) -> None:
        """Read one arm again."""
        self.beta[self.place[_group(arm)]] = self.book.beta(arm)


def _least_tried(arms: Sequence[Arm], book: Book, given: Mapping[str, int]) -> Arm:
    """Methods take turns; within a method the arm tried least, the first of equals."""
    return min(arms, key=lambda arm: (given.get(arm.method, 0), *book.tried(arm)))


class Novelty:
    """Which crystal each candidate is, and how often each was seen; told in the order of the candidates' names."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()  # by the name of the first candidate that was this crystal
        self._first: dict[str, str] = {}
        self._distinct = DistinctCrystals(RELAXED)
        self._compared: list[str] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Look at the next candidate."""
        name = row["candidate"]
        self._first[name] = first = self._identify(row)
        self.seen[first] += 1

    def once(self, name: str) -> bool:
        """Whether the candidate's crystal was seen only once in the whole search."""
        return self.seen[self._first[name]] == 1

    def new(self, name: str) -> bool:
        """Whether the candidate was the first to be this crystal."""
        return self._first[name] == name

    def _identify(self, row: Mapping[str, Any]) -> str:
        if row["duplicate_of"] is not None:
            return self._first[row["duplicate_of"]]
        if row["e_d"] is None or row["e_d"] > COMPARED:
            return str(row["candidate"])
        same = self._distinct.add(required(row["final"]))
        self._compared.append(row["candidate"])
        return self._compared[-1 if same is None else same]


def bar(rows: Rows, novelty: Novelty, settings: PolicySettings) -> float:
    """E_d (eV/atom) up to which a crystal is rewarded: the window, or the best ``quantile`` if too few lie in it."""
    energies = [row["e_d"] for row in rows if row["e_d"] is not None and novelty.new(row["candidate"])]
    return max(settings.window, float(np.quantile(energies, settings.quantile))) if energies else settings.window


def reward(e_d: float | None, *, once: bool, bar: float) -> float:
    """1 for a crystal on the hull, 1/2 at the bar; nothing above it and for what was seen more than once."""
    if not once or e_d is None or e_d > bar:
        return 0.0
    return min(1.0, 1 - e_d / (2 * bar))


def work(row: Mapping[str, Any], settings: PolicySettings) -> float:
    """Work spent on a candidate, in evaluations of the potential for one atom. Counted, so that no clock decides."""
    relaxing = 0 if row["steps"] is None else row["steps"] + 1
    return float(FIXED_WORK + row["n_atoms"] * (relaxing + settings.evaluation_cost * (row["evaluations"] or 0)))


def work_an_atom(row: Mapping[str, Any], settings: PolicySettings) -> float:
    """The part of a candidate's work that grows with its size, over its atoms."""
    return (work(row, settings) - FIXED_WORK) / float(row["n_atoms"])


def host_class(parent_e_d: float | None, bar: float) -> int:
    """How good the best crystal is in which a framework was found: below the bar, twice, four times it, or worse.

    A framework from a file has no parent and a class of its own.
    """
    if parent_e_d is None:
        return 5
    return 1 + sum(parent_e_d > limit * bar for limit in (1, 2, 4))


def stop_reason(rows: Rows, number: int, settings: PolicySettings) -> str | None:
    """Why no further round is planned; ``rows`` are all that round ``number`` would be planned from."""
    stop = settings.stop
    relaxed = [row for row in rows if row["status"] == "relaxed"]
    best = min((row["e_d"] for row in relaxed), default=math.inf)
    if stop.target is not None and best <= stop.target:
        return f"the target is reached: E_d {best:.4f} eV/atom"
    if stop.candidates is not None and len(rows) >= stop.candidates:
        return f"{len(rows)} candidates are stored, {stop.candidates} were asked for"
    seconds = sum(row[name] or 0.0 for row in rows for name in TIMINGS)
    if stop.cpu_seconds is not None and seconds >= stop.cpu_seconds:
        return f"{seconds:.0f} CPU seconds are spent, {stop.cpu_seconds:g} were allowed"
    since = number - settings.lookahead - 1 - _last_improvement(relaxed, settings.window)
    if stop.patience is not None and rows and since >= stop.patience:
        return f"no formula's E_d below {settings.window:g} eV/atom has fallen for {since} rounds"
    return None


def _last_improvement(relaxed: Rows, window: float) -> int:
    """The last round in which the lowest E_d of a formula, inside the window, fell by a meV/atom; 0 if none."""
    best: dict[str, float] = {}
    last = 0
    for row in sorted(relaxed, key=lambda row: row["candidate"]):
        if row["e_d"] <= min(window, best.get(row["formula"], math.inf) - 1e-3):
            best[row["formula"]], last = row["e_d"], row["round"]
    return last
