"""What a search loses and saves by giving up relaxations, replayed on the energies of relaxations that were completed.

    python benchmarks/search/giving_up.py
    python benchmarks/search/giving_up.py --record configs/zn-p-s.yaml configs/li-si.yaml --rounds 12 6 --seeds 2 1
        --runs runs/recorded

`trajectories.parquet` has the energy (eV/atom above the hull) and the volume (Å³/atom) at every step of all candidates
that were relaxed in some searches, to the end also of those that the searches gave up. The rules are applied to the
batches in which the candidates were relaxed, with the hull and what has converged in the batch as the lowest known
energies, as `model.relaxation.relax.relax` does. Work is that of `search.planning.policy.work`. Printed is, for each
rule, the share of all candidates that is given up; the shares of those below the hull, below 0.05 and below 0.1 eV/atom
that are lost; the work, and the crystals below 0.05 eV/atom per work, both relative to a search that never gives up.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before anything below loads a thread pool

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.potentials.chgnet.potential import CHGNetPotential
from model.potentials.interface import BatchEvaluation
from model.reasons import Reason
from model.relaxation.coordinates import cell_volume
from model.relaxation.relax import EXTRAPOLATION_FACTOR, FIRST_ASKED, Relaxation, RelaxSettings, relax
from model.relaxation.state import HISTORY_STEPS
from model.stages import PolishRequest, Rejected, Relaxer
from search.config import SearchConfig
from search.config_file import load_config
from search.planning.policy import FIXED_WORK
from search.planning.prepare import hull_energies, load_reference
from search.running.pipeline import load_stages, search_here
from search.storage.results import ResultStore

STORED = Path(__file__).with_name("trajectories.parquet")
LOW = 0.05  # eV/atom


class Recording(CHGNetPotential):
    """Keeps the energies (eV/atom) and volumes (Å³/atom) of all crystals that it evaluates."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[np.ndarray] = []

    def compute(self, batch: Batch, symmetry: Any = None) -> BatchEvaluation:
        found = super().compute(batch, symmetry)
        volume = cell_volume(batch.lattice) / batch.counts
        self.calls.append(torch.stack([found.energy, volume], 1).cpu().numpy())
        return found

    def take(self, relaxed: Sequence[Relaxation]) -> list[np.ndarray]:
        """Per crystal (steps + 1, 2), what was kept of crystals that began together; each left when it was done."""
        evaluations = np.array([outcome.steps + 1 for outcome in relaxed], dtype=int)
        owners = [np.flatnonzero(evaluations > step) for step in range(evaluations.max(initial=0))]
        assert [len(call) for call in self.calls] == [len(owner) for owner in owners]
        values, owner = np.concatenate([np.empty((0, 2)), *self.calls]), np.concatenate([np.empty(0), *owners])
        self.calls.clear()
        return [values[owner == index] for index in range(len(relaxed))]


class RecordingRelaxer(Relaxer):
    """Keeps the trajectories of all crystals; those that are given up are relaxed to the end for this alone.

    Nothing is polished.
    """

    def __init__(self, config: SearchConfig, hull: Mapping[str, float]) -> None:
        super().__init__(config.models.potential, config.relaxation, config.screening, hull)
        self.potential = self.recording = Recording()
        self.trajectories: list[dict[str, Any] | None] = []  # of the last task; None for what was not relaxed

    def relax(
        self,
        crystals: Sequence[Crystal],
        free: Sequence[np.ndarray] | None = None,
        settings: RelaxSettings | None = None,
        guests: Sequence[np.ndarray | None] | None = None,
        request: PolishRequest | None = None,
    ) -> list[Relaxation | Rejected]:
        settings = settings or self.relaxation
        assert settings.share == 1 and len(crystals) <= 32, "so that all crystals of a task step together"
        outcomes = super().relax(crystals, free, settings, guests)
        started = {place: outcome for place, outcome in enumerate(outcomes) if isinstance(outcome, Relaxation)}
        steps = dict(zip(started, self.recording.take(list(started.values())), strict=True))
        given_up = [place for place, outcome in started.items() if outcome.reason == Reason.EARLY_STOPPED]
        to_the_end = settings.model_copy(update={"energy_ceiling": None})
        masks = None if free is None else [free[place] for place in given_up]
        again = relax([started[place].initial for place in given_up], self.recording, to_the_end, free=masks)
        steps |= dict(zip(given_up, self.recording.take(again), strict=True))
        ended = started | dict(zip(given_up, again, strict=True))
        self.trajectories = [
            self._trajectory(ended[place], steps[place], settings) if place in ended else None
            for place in range(len(crystals))
        ]
        return outcomes

    def _trajectory(self, outcome: Relaxation, steps: np.ndarray, settings: RelaxSettings) -> dict[str, Any]:
        formula = outcome.initial.formula
        assert self.hull is not None
        return {
            "formula": formula,
            "orbits": outcome.n_independent_atoms,
            "ceiling": settings.energy_ceiling,
            "converged": outcome.converged,
            "energies": (steps[:, 0] - self.hull[formula]).round(4).astype(np.float32),
            "volumes": steps[:, 1].round(2).astype(np.float32),
        }


def record(config: SearchConfig, folder: Path) -> list[dict[str, Any]]:
    """Run a search in this process; one record per candidate that was relaxed."""
    reference = load_reference(config)
    relaxer = RecordingRelaxer(config, hull_energies(config, reference))
    stages = load_stages(config, reference)._replace(relaxer=relaxer)
    records: list[dict[str, Any]] = []
    began = time.process_time()
    for rows in search_here(config, reference, ResultStore(folder), stages):
        for row, trajectory in zip(rows, relaxer.trajectories, strict=True):
            if trajectory is not None:
                sampling = config.policy.evaluation_cost * row.n_atoms * (row.evaluations or 0)
                about = {"system": config.name, "seed": config.seed, "task": row.task, "generator": row.generator}
                records.append(about | {"other_work": FIXED_WORK + sampling} | trajectory)
        print(f"{config.name} seed {config.seed}: {len(records)} relaxed, {time.process_time() - began:.0f} s")
    return records


class Rule(NamedTuple):
    """Give up when the energy, minus ``factor`` times its fall in ``HISTORY_STEPS`` steps, lies above the ceiling."""

    factor: float = EXTRAPOLATION_FACTOR
    first: int = FIRST_ASKED  # step at which this is asked for the first time
    ceilings: float = 1.0

    def __call__(self, energies: np.ndarray, ceiling: float) -> bool:
        """Whether to give up after these energies; eV/atom above the lowest energy known, as the ceiling."""
        if len(energies) <= self.first:
            return False
        fall = max(energies[-1 - HISTORY_STEPS] - energies[-1], 0.0)
        return bool(energies[-1] - self.factor * fall > self.ceilings * ceiling)


def stops(task: pd.DataFrame, rule: Rule) -> list[int | None]:
    """For each candidate of a task the step at which it is given up; None if it is not."""
    energies, converged = list(task["energies"]), list(task["converged"])
    found: list[int | None] = [None] * len(task)
    lowest: dict[str, float] = {}
    for step in range(max(map(len, energies))):
        done = []
        for index, (formula, ceiling) in enumerate(zip(task["formula"], task["ceiling"], strict=True)):
            if found[index] is not None or step >= len(energies[index]):
                continue
            if step == len(energies[index]) - 1:
                if converged[index]:
                    done.append((formula, energies[index][-1]))
            elif rule(energies[index][: step + 1] - lowest.get(formula, 0.0), ceiling):
                found[index] = step
        for formula, energy in done:
            lowest[formula] = min(energy, lowest.get(formula, 0.0))
    return found


def replay(frame: pd.DataFrame, rule: Rule) -> dict[str, float]:
    """Shares of the low crystals and of those below the hull that are lost, and the work, of one system."""
    every = [step for _, task in frame.groupby("task", sort=False) for step in stops(task, rule)]
    stopped = pd.Series(every, index=frame.index, dtype=float)
    evaluations = frame["energies"].str.len()
    whole = (frame["other_work"] + frame["orbits"] * evaluations).sum()
    work = (frame["other_work"] + frame["orbits"] * (stopped + 1).fillna(evaluations)).sum() / whole
    final, given_up = frame["energies"].str[-1].where(frame["converged"]), stopped.notna()
    lost = {name: given_up[final < limit].mean() for name, limit in (("< 0", 0), ("< 0.05", LOW), ("< 0.1", 2 * LOW))}
    return {"given up": given_up.mean(), **lost, "work": work, "low per work": (1 - lost["< 0.05"]) / work}


RULES = [Rule(factor, first, ceilings) for factor in (3, 4, 6) for first in (5, 10, 15) for ceilings in (1, 1.5)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", nargs="+", default=[], help="configurations; replaces the stored trajectories")
    parser.add_argument("--rounds", type=int, nargs="+", default=[], help="of each configuration")
    parser.add_argument("--seeds", type=int, nargs="+", default=[], help="number of searches with each configuration")
    parser.add_argument("--runs", type=Path, help="folder for the recorded searches")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    records: list[dict[str, Any]] = []
    for path, rounds, seeds in zip(arguments.record, arguments.rounds, arguments.seeds, strict=True):
        config = load_config(path)
        policy = config.policy.model_copy(update={"rounds": rounds})
        for seed in range(seeds):
            one = config.model_copy(update={"seed": seed, "policy": policy})
            records += record(one, arguments.runs / f"{one.name}-{seed}")
            pd.DataFrame(records).to_parquet(STORED, compression="zstd", index=False)
    for system, frame in pd.read_parquet(STORED).groupby("system", sort=False):
        final = frame["energies"].str[-1].where(frame["converged"])
        counts = [f"{(final < limit).sum()} below {limit}" for limit in (0, LOW, 2 * LOW)]
        print(f"\n{system}: {len(frame)} relaxed, {', '.join(counts)} eV/atom")
        table = pd.DataFrame([rule._asdict() | replay(frame.reset_index(drop=True), rule) for rule in RULES])
        print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
