"""Test policy settings without a potential: outcomes are drawn from recorded runs or from an artificial system.

python benchmarks/search/simulate.py [RUN ...] [--set exploration_rate=0.3 ...] [--repeats 20] [--work 300000]

With run folders, the outcomes of every arm (generator, cell) are drawn with replacement from those recorded in the
runs. Otherwise, each of 30 artificial cells has 80 crystals, which each of five generators finds with its own
probabilities. A framework counts as its cell. Printed are the distinct crystals below the window for the same work, by
each generator alone, by equal shares, by the policy, and by the policy with each changed setting.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from model.crystals.matching import DistinctCrystals
from search.config import PolicySettings
from search.planning.history import ENOUGH
from search.planning.policy import Arm, ArmOutcome, ArmStatistics, Choice, value, work
from search.storage.results import load_results
from search.storage.rows import unpack_or_raise


@dataclass(frozen=True)
class Result:
    """Outcome of one candidate of an arm: fields of `HistoryRow`, and which crystal it is."""

    identity: int  # of the crystal
    e_d: float | None
    steps: int | None
    n_independent_atoms: int
    evaluations: int
    n_atoms: int


World = dict[Arm, list[Result]]


def recorded(runs: Sequence[str]) -> World:
    """Outcomes of all arms with at least eight candidates in the runs."""
    frames = [load_results(run, structures=False) for run in runs]
    frame = pd.concat(frames, ignore_index=True)
    distinct = DistinctCrystals()
    world: World = defaultdict(list)
    for row in frame.to_dict("records"):
        known = pd.notna(row["e_d"])
        identity = -1
        if known:
            known_as = distinct.add(unpack_or_raise(row["final"]))
            identity = distinct._seen - 1 if known_as is None else known_as
        steps = None if pd.isna(row["steps"]) else int(row["steps"])
        evaluations = 0 if pd.isna(row["evaluations"]) else int(row["evaluations"])
        independent = 0 if steps is None else int(row["n_independent_atoms"])
        outcome = Result(identity, row["e_d"] if known else None, steps, independent, evaluations, int(row["n_atoms"]))
        world[Arm(row["generator"], row["cell_formula"])].append(outcome)
    return {arm: outcomes for arm, outcomes in world.items() if len(outcomes) >= 8}


def made_up(seed: int) -> World:
    """30 cells of a binary system; five generators that find their crystals with different probabilities."""
    rng = np.random.default_rng(seed)
    world: World = {}
    heat = {"diffusion": 0.06, "random": 0.12, "ion_substitution": 0.03, "inpainting": 0.04, "symmetric": 0.05}
    steps = {"diffusion": 25, "random": 45, "ion_substitution": 30, "inpainting": 15, "symmetric": 15}
    cells = [(li, si) for n in range(3, 13) for si in range(1, n) if (li := n - si) > si][:30]
    for number, (li, si) in enumerate(cells):
        n = li + si
        floor = abs(rng.normal(0, 0.04))
        energies = floor + np.cumsum(rng.exponential(0.4 / n**2, size=80))
        for method, temperature in heat.items():
            luck = rng.normal(0, 1.5, size=80) - (energies - floor) / (temperature * rng.uniform(0.5, 2))
            if method == "ion_substitution":
                luck[rng.permutation(80)[: 80 - rng.integers(0, 6)]] = -np.inf
            failing = rng.uniform(0.1, 0.4) if np.isfinite(luck).any() else 1.0
            chances = np.where(np.isfinite(luck), np.exp(luck - luck.max()), 0.0) if failing < 1 else np.ones(80)
            drawn = rng.choice(80, size=400, p=chances / chances.sum())
            evaluations = 0 if method in ("random", "ion_substitution") else 31
            world[Arm(method, f"Li{li}Si{si}")] = [
                Result(-1, None, None, 0, evaluations, n)
                if rng.random() < failing
                else Result(100 * number + k, float(energies[k]), int(rng.poisson(steps[method])), n, evaluations, n)
                for k in drawn
            ]
    return world


def simulate(world: World, settings: PolicySettings, budget: float, seed: int) -> tuple[int, float, int]:
    """Search until the work is spent: distinct crystals below the window, lowest E_d, work until it was found."""
    arms, rows, found = sorted(world, key=str), [], Counter()
    spent, best, when = 0.0, np.inf, 0.0
    low: set[int] = set()
    rng = np.random.default_rng(seed)
    while spent < budget:
        first = {row["identity"]: row["e_d"] for row in rows if row["e_d"] is not None}
        known = list(first.values())
        limit = settings.energy_window
        if sum(e_d <= limit for e_d in known) < ENOUGH:
            limit = max(limit, float(np.quantile(known, settings.quantile))) if known else 0.1
        statistics = ArmStatistics(settings)
        for row in rows:
            worth = float(value(np.array(np.nan if row["e_d"] is None else row["e_d"]), limit))
            counts = worth > 0
            once = counts and found[row["identity"]] == 1
            statistics.record(row["arm"], ArmOutcome(1, worth, counts, once, row["work"]))
        for arm, _ in Choice(arms, statistics).pick(settings.candidates_per_round, lambda _: rng, 1):
            outcome = world[arm][rng.integers(len(world[arm]))]
            row: dict[str, Any] = {"arm": arm, "work": work(outcome, settings), **vars(outcome)}
            spent += row["work"]
            rows.append(row)
            if outcome.e_d is not None and spent < budget:
                found[outcome.identity] += 1
                if outcome.e_d < settings.energy_window:
                    low.add(outcome.identity)
                if outcome.e_d < best - 1e-3:
                    best, when = outcome.e_d, spent
    return len(low), best, int(when)


def contenders(world: World, changes: Sequence[str]) -> dict[str, tuple[World, PolicySettings]]:
    """Each generator alone, equal shares, the policy, and the policy with changed settings."""
    plain = PolicySettings(candidates_per_round=64)
    even = plain.model_copy(update={"feedback": False})
    generators = sorted({arm.generator for arm in world})
    single = {name: ({arm: o for arm, o in world.items() if arm.generator == name}, even) for name in generators}
    varied = {}
    for change in changes:
        updates = dict(pair.split("=") for pair in change.split(","))
        varied[change] = (world, PolicySettings.model_validate({**plain.model_dump(), **updates}))
    return {**single, "equal shares": (world, even), "policy": (world, plain), **varied}


def main() -> None:
    """Simulate all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*")
    parser.add_argument(
        "--set", action="append", default=[], help="settings to try, for example exploration_rate=0.3,prior_weight=8"
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--work", type=float, default=500_000)
    arguments = parser.parse_args()
    worlds = [recorded(arguments.runs)] if arguments.runs else [made_up(seed) for seed in range(3)]
    for name in contenders(worlds[0], arguments.set):
        scores = [
            simulate(*contenders(world, arguments.set)[name], arguments.work, seed)
            for world in worlds
            for seed in range(arguments.repeats)
        ]
        distinct, best, when = np.array(scores).T
        print(
            f"{name:<40} distinct {np.median(distinct):6.1f} ({distinct.min():.0f}-{distinct.max():.0f})"
            f"   best {1e3 * np.mean(best):6.1f} meV/atom after {np.median(when):8.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
