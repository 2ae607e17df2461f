"""The history of a search: its stored candidates, read round by round.

Only a few numbers are kept per candidate; distinct low-energy crystals are kept in compact form.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from model.crystals.crystal import Crystal
from model.crystals.matching import LOOKED_UP, DistinctCrystals, unpacked
from model.stages import PolishedCrystal
from model.thermodynamics.correction import Correction
from search.config import PolicySettings
from search.planning.frameworks import FrameworkPool
from search.planning.policy import ArmOutcome, value, work
from search.storage.rows import HistoryRow, PendingRow, Status

ENOUGH = 5  # distinct crystals in the energy window; once they are found, none above it is rewarded
COMPARED = 0.3  # eV/atom; crystals above are not compared with each other: too many, and of too little value


class ArmKey(NamedTuple):
    """The arm that a candidate belongs to: its generator, its cell, its origin and its Bravais lattice."""

    generator: str
    cell: str
    origin: str  # framework, or crystal that was mutated; empty if there is none
    lattice: str  # likewise

    @classmethod
    def of(cls, row: PendingRow) -> ArmKey:
        """Key of a candidate, with or without results."""
        return cls(row.generator, row.cell_formula, row.framework or row.parent or "", row.bravais_lattice or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A relaxed crystal that may be mutated."""

    name: str  # of the candidate
    cell: str  # formula of its cell
    content: bytes  # see `Crystal.to_bytes`
    e_d: float  # eV/atom
    bravais_lattice: str | None

    @property
    def crystal(self) -> Crystal:
        """The crystal."""
        return Crystal.from_bytes(self.content)


class Novelty:
    """Which candidates are the same crystal, and so how often each was seen; candidates in order of their names.

    Crystals that the judge of the search has relaxed into the same one are the same, too.
    """

    def __init__(self) -> None:
        self._first = array("i")  # for each candidate, the index of the first candidate that is the same crystal
        self._distinct = DistinctCrystals(LOOKED_UP)
        self._polished: dict[str, int] = {}  # index of each polished candidate
        self._compared = array("i")  # indices of the candidates that were compared
        self._by_judge = DistinctCrystals(LOOKED_UP)
        self._judged = array("i")  # likewise as the judge relaxed them

    def read(self, rows: Sequence[HistoryRow]) -> np.ndarray:
        """Add the next candidates: whole tasks, because duplicates within a task are stored by name.

        Returns:
            for each, the index of the first candidate of the search that is the same crystal.
        """
        places = dict(self._polished)
        for row in rows:
            places[row.candidate] = first = len(self._first)
            if row.polished:
                self._polished[row.candidate] = first
            if row.duplicate_of is not None:
                first = self._first[places[row.duplicate_of]]
            elif _is_compared(row):
                assert row.fingerprint is not None
                self._compared.append(first)
                same = self._distinct.add(_final(row), energy=row.e_d, fingerprint=unpacked(row.fingerprint))
                first = first if same is None else self._first[self._compared[same]]
                first = self._seen_by_judge(row, first)
            self._first.append(first)
        return np.array(self._first[len(self._first) - len(rows) :], dtype=np.intp)

    def _seen_by_judge(self, row: HistoryRow, first: int) -> int:
        """The first candidate that the judge relaxed into the same crystal, or ``first``."""
        if row.final_judge is None or row.fingerprint_judge is None:
            return first
        fingerprint = unpacked(row.fingerprint_judge)
        same = self._by_judge.add(row.final_judge.crystal, energy=row.e_d_judge, fingerprint=fingerprint)
        self._judged.append(first if same is None else self._judged[same])
        return self._judged[-1]

    def once(self) -> np.ndarray:
        """For each candidate, whether its crystal was seen only once in the whole search."""
        first = np.array(self._first, dtype=np.intp)
        once: np.ndarray = np.bincount(first, minlength=len(first))[first] == 1
        return once

    def new(self) -> np.ndarray:
        """For each candidate, whether it was the first with its crystal."""
        return np.array(self._first) == np.arange(len(self._first))


def _is_compared(row: HistoryRow) -> bool:
    return row.duplicate_of is None and row.e_d is not None and row.e_d <= COMPARED


def _final(row: HistoryRow) -> Crystal:
    assert row.final is not None
    return row.final.crystal


class StoppingCriteria:
    """Checks whether a search should stop before all its rounds are done."""

    def __init__(self, policy: PolicySettings) -> None:
        self.policy = policy
        self.candidates, self.seconds, self.best = 0, 0.0, math.inf
        self._formulas: dict[str, float] = {}  # lowest E_d of each, within the energy window
        self._improved = 0  # the last round in which one of these fell by at least 1 meV/atom

    def read(self, row: HistoryRow) -> None:
        """Add the next candidate, in order of their names."""
        self.candidates += 1
        self.seconds += row.seconds
        if row.status != Status.RELAXED or row.e_d is None:
            return
        self.best = min(self.best, row.e_d)
        if row.e_d <= min(self.policy.energy_window, self._formulas.get(row.formula, math.inf) - 1e-3):
            self._formulas[row.formula], self._improved = row.e_d, row.round

    def reason(self, number: int) -> str | None:
        """Reason to stop before round ``number``; None if the round should be planned."""
        stop, window = self.policy.stop, self.policy.energy_window
        if stop.target is not None and self.best <= stop.target:
            return f"target reached: E_d {self.best:.4f} eV/atom"
        if stop.candidates is not None and self.candidates >= stop.candidates:
            return f"candidate limit of {stop.candidates} reached ({self.candidates} stored)"
        if stop.cpu_seconds is not None and self.seconds >= stop.cpu_seconds:
            return f"CPU budget of {stop.cpu_seconds:g} s is used up ({self.seconds:.0f} s)"
        cost = self.seconds / 3600 * (stop.cost_per_actor_hour or 0.0)
        if stop.max_cost is not None and cost >= stop.max_cost:
            return f"budget of {stop.max_cost:g} is used up ({cost:.3g} at {stop.cost_per_actor_hour:g} per actor-hour)"
        since = number - self.policy.rounds_ahead - 1 - self._improved
        if stop.patience_rounds is not None and self.candidates and since >= stop.patience_rounds:
            return f"no lower E_d below {window:g} eV/atom for {since} rounds"
        return None


class SearchHistory:
    """The results on which the plan of the next round is based.

    Args:
        policy: of the search.
        pool: frameworks from files, to which those of the candidates are added.
        whole: whether to keep the rows (without their crystals), needed when settings are tuned.

    Attributes:
        pool: all frameworks.
        rows: the rows, if they are kept.
        volumes: Å³/atom of the lowest relaxed structure of each reduced formula.
        found_phases: lowest energy (eV/atom) of each reduced formula that relaxed below the reference hull.
        polished: the polished crystals of each reduced formula.
        parents: distinct relaxed crystals up to `COMPARED`, by the names of the candidates.
        stopping: the stopping criteria.
        correction: what the judge has said so far; None without a judge.

    With a judge, the E_d that counts is the judge's, or what is expected of it. That of frameworks, parents and
    stopping criteria is the one expected when the candidate was read.
    """

    def __init__(
        self,
        policy: PolicySettings,
        pool: FrameworkPool,
        *,
        whole: bool = False,
        correction: Correction | None = None,
    ) -> None:
        self.policy, self.pool, self.whole, self.correction = policy, pool, whole, correction
        self.rows: list[HistoryRow] = []
        self.found_phases: dict[str, float] = {}
        self.polished: dict[str, list[PolishedCrystal]] = {}
        self.parents: dict[str, Parent] = {}
        self.novelty, self.stopping = Novelty(), StoppingCriteria(policy)
        self._lowest: dict[str, tuple[float, float]] = {}  # formula -> E_d and volume of the lowest
        self._held: set[int] = set()  # crystals in `parents`, by their index in `Novelty`
        self._spent: dict[ArmKey, int] = {}  # in the order in which they were met
        self._number, self._work = array("i"), array("d")  # of each candidate
        self._e_d, self._judged, self._formula = array("d"), array("d"), array("i")  # likewise
        self._formulas: dict[str, int] = {}

    def __len__(self) -> int:
        """Candidates that were read."""
        return len(self._e_d)

    @property
    def volumes(self) -> dict[str, float]:
        """See above."""
        return {formula: volume for formula, (_, volume) in self._lowest.items()}

    def read(self, rows: Iterable[HistoryRow]) -> None:
        """Read further rows: whole rounds, later ones than those read before, in any order."""
        ordered = sorted(rows, key=attrgetter("candidate"))
        for _, some in groupby(ordered, key=attrgetter("round")):
            self._read_round(list(some))

    def _read_round(self, rows: Sequence[HistoryRow]) -> None:
        crystals = self.novelty.read(rows).tolist()
        for row in rows:
            self._number.append(self._spent.setdefault(ArmKey.of(row), len(self._spent)))
            self._work.append(work(row, self.policy))
            self._e_d.append(math.nan if row.e_d is None else row.e_d)
            self._judged.append(math.nan if row.e_d_judge is None else row.e_d_judge)
            self._formula.append(self._formulas.setdefault(row.formula, len(self._formulas)))
            if row.status == Status.RELAXED and row.e_d is not None and row.e_d < 0:
                assert row.energy is not None
                self.found_phases[row.formula] = min(row.energy, self.found_phases.get(row.formula, math.inf))
            if self.correction is not None and row.e_d is not None and row.e_d_judge is not None:
                self.correction.add(row.formula, row.e_d, row.e_d_judge)
        believed = [replace(row, e_d=self._believed(row)) for row in rows] if self.correction is not None else rows
        self.pool.read(believed)
        for row, crystal in zip(believed, crystals, strict=True):
            self.stopping.read(row)
            if row.status == Status.RELAXED:
                self._relaxed(row, crystal)
        if self.whole:
            self.rows += [replace(row, final=None, final_judge=None, frameworks=None) for row in rows]

    def _relaxed(self, row: HistoryRow, crystal: int) -> None:
        formula, e_d = row.formula, row.e_d
        assert e_d is not None and row.energy is not None and row.volume_per_atom is not None
        if e_d < self._lowest.get(formula, (math.inf, 0.0))[0]:
            self._lowest[formula] = (e_d, row.volume_per_atom)
        if row.polished:
            known = PolishedCrystal(candidate=row.candidate, content=_final(row).to_bytes(), energy=row.energy)
            self.polished.setdefault(formula, []).append(known)
        if e_d <= COMPARED and crystal not in self._held:
            self._held.add(crystal)
            content = _final(row).to_bytes()
            self.parents[row.candidate] = Parent(
                name=row.candidate,
                cell=row.cell_formula,
                content=content,
                e_d=e_d,
                bravais_lattice=row.bravais_lattice,
            )

    def _believed(self, row: HistoryRow) -> float | None:
        """E_d (eV/atom) by the judge, or what is expected of it."""
        if row.e_d is None or row.e_d_judge is not None:
            return row.e_d_judge
        assert self.correction is not None
        return self.correction.shift(row.formula).expected(row.e_d)

    def believed(self) -> np.ndarray:
        """For each candidate, E_d (eV/atom) by the judge, or what is expected of it by now; NaN without energy."""
        e_d = np.array(self._e_d)
        if self.correction is None or not len(e_d):
            return e_d
        shifts = [self.correction.shift(formula) for formula in self._formulas]
        formula, judged = np.array(self._formula), np.array(self._judged)
        offset, slope = np.array([(shift.offset, shift.slope) for shift in shifts])[formula].T
        return np.where(np.isnan(judged), offset + (1 + slope) * e_d, judged)

    def reward_threshold(self) -> float:
        """E_d (eV/atom) up to which a crystal has value: the window, or the ``quantile`` if few are in it."""
        e_d = self.believed()
        energies = e_d[self.novelty.new() & ~np.isnan(e_d)]
        window = self.policy.energy_window
        if not len(energies) or np.count_nonzero(energies <= window) >= ENOUGH:
            return window
        return max(window, float(np.quantile(energies, self.policy.quantile)))

    def polish_below(self, lowest: int) -> float:
        """E_d (eV/atom) up to which crystals are polished.

        It is that of the last of the ``lowest`` distinct ones, but not below the hull; and `COMPARED` as long as fewer
        are known.
        """
        e_d = self.believed()
        energies = np.sort(e_d[self.novelty.new() & (e_d <= COMPARED)])
        return max(0.0, float(energies[lowest - 1])) if len(energies) >= lowest else COMPARED

    def judge_below(self, lowest: int) -> float:
        """E_d (eV/atom) that the judge must be able to put a crystal below, to be asked about it.

        It is that of the last of the ``lowest`` ones by the judge, but not below the hull; and the energy window as
        long as fewer are judged.
        """
        judged = np.array(self._judged)
        energies = np.sort(judged[self.novelty.new() & ~np.isnan(judged)])
        window = self.policy.energy_window
        return min(window, max(0.0, float(energies[lowest - 1]))) if len(energies) >= lowest else window

    def _above_found(self) -> np.ndarray:
        """E_d (eV/atom) of the candidates; of formulas with a crystal below the hull, above the lowest of these."""
        e_d, formula = self.believed(), np.array(self._formula, dtype=np.intp)
        lowest = np.zeros(len(self._formulas))
        np.fmin.at(lowest, formula, e_d)
        above: np.ndarray = e_d - lowest[formula]
        return above

    def spent(self, reward_threshold: float) -> Iterator[tuple[ArmKey, ArmOutcome]]:
        """The arms tried so far and the outcome of their candidates, in order of first appearance."""
        if not self._spent:
            return
        numbers = np.array(self._number, dtype=np.intp)
        values = value(self._above_found(), reward_threshold)
        low = values > 0
        weights = (None, values, low, low & self.novelty.once(), np.array(self._work))
        yield from zip(
            self._spent,
            map(ArmOutcome._make, zip(*(np.bincount(numbers, some).tolist() for some in weights), strict=True)),
            strict=True,
        )
