"""What the stored candidates of a search say, read round after round.

Of each candidate only some numbers are kept, and of the distinct low ones the crystal in few bytes.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from model.crystals.crystal import Crystal
from model.crystals.matching import DistinctCrystals, DistinctSettings, distance_fingerprints
from search.config import PolicySettings
from search.planning.frameworks import FrameworkPool
from search.planning.policy import Outcome, value, work
from search.storage.results import TIMINGS, required

Row = Mapping[str, Any]
COMPARED = 0.3  # eV/atom; crystals above are so many and so little worth that they are not compared with each other
# The same minimum is reached to 0.1 Å, and so to a few meV/atom.
RELAXED = DistinctSettings(
    volume_tolerance=0.05, distance_tolerance=0.2, rms_tolerance=0.12, energy_tolerance=0.01, matches=8
)


SPENT = ("generator", "cell_formula", "framework", "parent", "lattice_system")  # columns that `Spent.by` reads


class Spent(NamedTuple):
    """Whom a candidate counts for: its generator, its cell, what it was made from and the lattice it was made in."""

    generator: str
    cell: str
    origin: str  # framework, or crystal that was changed; empty where there is none, likewise the lattice
    lattice: str

    @classmethod
    def by(cls, row: Row) -> Spent:
        """That of a row, which need not have results yet."""
        origin, lattice = row.get("framework") or row.get("parent"), row.get("lattice_system")
        return cls(row["generator"], row["cell_formula"], origin or "", lattice or "")


class Parent(NamedTuple):
    """A relaxed crystal that may be changed."""

    name: str  # of the candidate
    cell: str  # formula of its cell
    content: bytes  # see `Crystal.to_bytes`
    e_d: float  # eV/atom
    lattice_system: str | None

    @property
    def crystal(self) -> Crystal:
        """The crystal."""
        return Crystal.from_bytes(self.content)


class Novelty:
    """Which crystal each candidate is, and so how often each was seen; candidates in the order of their names."""

    def __init__(self) -> None:
        self._first = array("i")  # of each candidate, the place of the first candidate that was this crystal
        self._distinct = DistinctCrystals(RELAXED)
        self._compared = array("i")  # places of those that were compared

    def read(self, rows: Sequence[Row]) -> np.ndarray:
        """Look at the next candidates: whole tasks, because repeats within a task are known by name.

        Returns:
            of each, the place of the first candidate of the search that was its crystal.
        """
        crystals = {number: required(row["final"]) for number, row in enumerate(rows) if _is_compared(row)}
        fingerprints = dict(zip(crystals, distance_fingerprints(list(crystals.values())), strict=True))
        places: dict[str, int] = {}
        for number, row in enumerate(rows):
            places[row["candidate"]] = first = len(self._first)
            if row["duplicate_of"] is not None:
                first = self._first[places[row["duplicate_of"]]]
            elif number in crystals:
                self._compared.append(first)
                same = self._distinct.add(crystals[number], energy=row["e_d"], fingerprint=fingerprints[number])
                first = first if same is None else self._compared[same]
            self._first.append(first)
        return np.array(self._first[len(self._first) - len(rows) :], dtype=np.intp)

    def once(self) -> np.ndarray:
        """Of each candidate, whether its crystal was seen only once in the whole search."""
        first = np.array(self._first, dtype=np.intp)
        once: np.ndarray = np.bincount(first, minlength=len(first))[first] == 1
        return once

    def new(self) -> np.ndarray:
        """Of each candidate, whether it was the first to be its crystal."""
        return np.array(self._first) == np.arange(len(self._first))


def _is_compared(row: Row) -> bool:
    return row["duplicate_of"] is None and row["e_d"] is not None and row["e_d"] <= COMPARED


class Ending:
    """Whether there is reason to end a search before all its rounds are done."""

    def __init__(self, policy: PolicySettings) -> None:
        self.policy = policy
        self.candidates, self.seconds, self.best = 0, 0.0, math.inf
        self._formulas: dict[str, float] = {}  # lowest E_d of each, inside the window
        self._improved = 0  # the last round in which one of these fell by a meV/atom

    def read(self, row: Row) -> None:
        """Look at the next candidate, in the order of their names."""
        self.candidates += 1
        self.seconds += sum(row[name] or 0.0 for name in TIMINGS)
        if row["status"] != "relaxed":
            return
        e_d, formula = row["e_d"], row["formula"]
        self.best = min(self.best, e_d)
        if e_d <= min(self.policy.window, self._formulas.get(formula, math.inf) - 1e-3):
            self._formulas[formula], self._improved = e_d, row["round"]

    def reason(self, number: int) -> str | None:
        """Why round ``number`` is not planned from what was read; None if it should be."""
        stop, window = self.policy.stop, self.policy.window
        if stop.target is not None and self.best <= stop.target:
            return f"the target is reached: E_d {self.best:.4f} eV/atom"
        if stop.candidates is not None and self.candidates >= stop.candidates:
            return f"{self.candidates} candidates are stored, {stop.candidates} were asked for"
        if stop.cpu_seconds is not None and self.seconds >= stop.cpu_seconds:
            return f"{self.seconds:.0f} CPU seconds are spent, {stop.cpu_seconds:g} were allowed"
        cost = self.seconds / 3600 * (stop.price or 0.0)
        if stop.money is not None and cost >= stop.money:
            return f"{cost:.3g} are spent at {stop.price:g} an hour, {stop.money:g} were allowed"
        since = number - self.policy.lookahead - 1 - self._improved
        if stop.patience is not None and self.candidates and since >= stop.patience:
            return f"no formula's E_d below {window:g} eV/atom has fallen for {since} rounds"
        return None


class Known:
    """What the next round is planned from.

    Args:
        policy: of the search.
        pool: frameworks from files, to which those of the candidates are added.
        whole: whether rows are kept, without their crystals, because settings are tuned.

    Attributes:
        pool: all frameworks.
        rows: the rows, if they are kept.
        volumes: Å³/atom of the lowest relaxed structure of each reduced formula.
        found: lowest energy (eV/atom) of each reduced formula that relaxed below the reference hull.
        parents: distinct relaxed crystals up to `COMPARED`, by the names of the candidates.
        ending: whether there is reason to end.
    """

    def __init__(self, policy: PolicySettings, pool: FrameworkPool, *, whole: bool = False) -> None:
        self.policy, self.pool, self.whole = policy, pool, whole
        self.rows: list[Row] = []
        self.found: dict[str, float] = {}
        self.parents: dict[str, Parent] = {}
        self.novelty, self.ending = Novelty(), Ending(policy)
        self._lowest: dict[str, tuple[float, float]] = {}  # formula -> E_d and volume of the lowest
        self._held: set[int] = set()  # crystals that `parents` holds, as `Novelty` counts them
        self._spent: dict[Spent, int] = {}  # in the order in which they were met
        self._number, self._work, self._e_d = array("i"), array("d"), array("d")  # of each candidate

    def __len__(self) -> int:
        """Candidates that were read."""
        return len(self._e_d)

    @property
    def volumes(self) -> dict[str, float]:
        """See above."""
        return {formula: volume for formula, (_, volume) in self._lowest.items()}

    def read(self, rows: Iterable[Row]) -> None:
        """Read further rows: whole rounds, later ones than those read before, in any order."""
        ordered = sorted(rows, key=lambda row: row["candidate"])
        for _, some in groupby(ordered, key=lambda row: row["round"]):
            self._read_round(list(some))

    def _read_round(self, rows: Sequence[Row]) -> None:
        crystals = self.novelty.read(rows).tolist()
        self.pool.read(rows)
        for row, crystal in zip(rows, crystals, strict=True):
            self.ending.read(row)
            self._number.append(self._spent.setdefault(Spent.by(row), len(self._spent)))
            self._work.append(work(row, self.policy))
            self._e_d.append(math.nan if row["e_d"] is None else row["e_d"])
            if row["status"] == "relaxed":
                self._relaxed(row, crystal)
        if self.whole:
            self.rows += [{**row, "final": None, "frameworks": None} for row in rows]

    def _relaxed(self, row: Row, crystal: int) -> None:
        formula, e_d = row["formula"], row["e_d"]
        if e_d < self._lowest.get(formula, (math.inf, 0.0))[0]:
            self._lowest[formula] = (e_d, row["volume_per_atom"])
        if e_d < 0:
            self.found[formula] = min(row["energy"], self.found.get(formula, math.inf))
        if e_d <= COMPARED and crystal not in self._held:
            self._held.add(crystal)
            name, content = row["candidate"], required(row["final"]).to_bytes()
            self.parents[name] = Parent(name, row["cell_formula"], content, e_d, row["lattice_system"])

    def bar(self) -> float:
        """E_d (eV/atom) up to which a crystal is rewarded: the window, or the best ``quantile`` if few lie in it."""
        e_d = np.array(self._e_d)
        energies = e_d[self.novelty.new() & ~np.isnan(e_d)]
        if not len(energies):
            return self.policy.window
        return max(self.policy.window, float(np.quantile(energies, self.policy.quantile)))

    def spent(self, bar: float) -> Iterator[tuple[Spent, Outcome]]:
        """What came of the candidates of all that candidates count for, in the order in which they were met."""
        if not self._spent:
            return
        numbers = np.array(self._number, dtype=np.intp)
        values = value(np.array(self._e_d), bar)
        low = values > 0
        weights = (None, values, low, low & self.novelty.once(), np.array(self._work))
        yield from zip(
            self._spent,
            map(Outcome._make, zip(*(np.bincount(numbers, some).tolist() for some in weights), strict=True)),
            strict=True,
        )
