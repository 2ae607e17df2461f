"""What to do next, and why: a lower confidence bound on the best decomposition energy. No Ray, no randomness.

An arm is a composition (new crystals in random lattices) or a framework (guests put back into it). Its value is

    v = E_best − c·sqrt(ln(1 + n_all) / (1 + n))

with E_best the lowest E_d (eV/atom) that came out of the arm, n the candidates spent on it, n_all those spent on all
arms of its kind. The lowest value goes first; each pick counts at once as spent, so that a round spreads out.
Compositions that were never tried come before all others; a framework that was never tried starts with the E_d of
the crystal it was taken from.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from model.distinct import DistinctCrystals, DistinctSettings
from model.settings import Settings
from search.results import required

Rows = Sequence[Mapping[str, Any]]
HOPELESS = 1.0  # eV/atom, stands for arms of which nothing could be relaxed
SAME_FRAMEWORK = DistinctSettings(same_space_group=True)


class PolicySettings(Settings):
    """Length and balance of a search."""

    rounds: int = Field(10, ge=1)
    generated: int = Field(16, ge=1)  # new crystals a round
    inpainted: int = Field(16, ge=0)  # inpainted crystals a round, once there are frameworks
    samples: int = Field(3, ge=1)  # inpainted crystals a framework and pick
    exploration: float = Field(0.05, ge=0)  # c, eV/atom
    lookahead: int = Field(1, ge=0)  # rounds planned before the results of the latest are in, so that no core waits
    feedback: bool = True  # False: every arm counts alike, E_d decides nothing
    batch: int = Field(8, ge=1)  # crystals a task

    @property
    def candidates(self) -> int:
        """The most that a search can make; the first rounds have no frameworks to inpaint."""
        return self.rounds * self.generated + self.all_inpainted

    @property
    def all_inpainted(self) -> int:
        """Those of `candidates` that are inpainted."""
        return max(0, self.rounds - self.lookahead - 1) * self.inpainted


@dataclass
class Arm:
    """What is known of one arm."""

    spent: int = 0
    best: float = math.inf  # eV/atom


@dataclass
class Ledger:
    """Arms of one kind and what was spent on them."""

    settings: PolicySettings
    arms: dict[Hashable, Arm] = field(default_factory=dict)

    def add(self, key: Hashable, *, best: float = math.inf) -> None:
        """Make an arm known; ``best`` is what its origin suggests."""
        arm = self.arms.setdefault(key, Arm())
        arm.best = min(arm.best, best)

    def record(self, key: Hashable, e_d: float | None) -> None:
        """Count one candidate and its E_d (None when it has none)."""
        arm = self.arms.setdefault(key, Arm())
        arm.spent += 1
        if e_d is not None:
            arm.best = min(arm.best, e_d)

    def pick(self, count: int) -> Hashable:
        """The arm with the lowest value; ``count`` candidates are charged to it."""
        total = sum(arm.spent for arm in self.arms.values())
        key = min(self.arms, key=lambda k: self._rank(k, total))
        self.arms[key].spent += count
        return key

    def _rank(self, key: Hashable, total: int) -> tuple[bool, float, str]:
        arm = self.arms[key]
        if not self.settings.feedback:
            return False, float(arm.spent), str(key)
        bonus = self.settings.exploration * math.sqrt(math.log(1 + total) / (1 + arm.spent))
        untried = arm.spent == 0 and math.isinf(arm.best)
        return not untried, min(arm.best, HOPELESS) - bonus, str(key)


def composition_ledger(cells: Sequence[str], rows: Rows, waiting: Rows, settings: PolicySettings) -> Ledger:
    """What generated and inpainted candidates say of each cell formula; ``waiting`` are origins without a result."""
    ledger = Ledger(settings)
    for cell in cells:
        ledger.add(cell)
    for row in [*rows, *waiting]:
        if row["cell_formula"] in ledger.arms:
            ledger.record(row["cell_formula"], row.get("e_d"))
    return ledger


@dataclass(frozen=True)
class KnownFramework:
    """A framework of the pool, as stored, and the candidate that it came from."""

    record: Mapping[str, Any]
    parent: Mapping[str, Any]


def framework_ledger(rows: Rows, waiting: Rows, settings: PolicySettings) -> tuple[Ledger, dict[str, KnownFramework]]:
    """Distinct frameworks found so far, each judged by its parent until it has children.

    Two frameworks are the same when guests and space group agree and the matcher maps one host onto the other; the
    first one found stands for all.
    """
    ledger, known = Ledger(settings), {}
    distinct: dict[str, DistinctCrystals] = {}
    for row in rows:
        for record in row["frameworks"] or ():
            pool = distinct.setdefault(str(sorted(record["guests"].items())), DistinctCrystals(SAME_FRAMEWORK))
            if pool.add(required(record["host"]), record["space_group_number"]) is not None:
                continue
            known[record["framework"]] = KnownFramework(record, row)
            ledger.add(record["framework"], best=math.inf if row["e_d"] is None else row["e_d"])
    children: dict[str, list[float | None]] = {}
    for row in rows:
        if row["framework"] in known:
            children.setdefault(row["framework"], []).append(row["e_d"])
    for key, energies in children.items():
        ledger.arms[key].best = math.inf
        for e_d in energies:
            ledger.record(key, e_d)
    for origin in waiting:
        if origin.get("framework") in known:
            ledger.record(origin["framework"], None)
    return ledger, known
