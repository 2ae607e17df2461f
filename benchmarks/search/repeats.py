"""How many of the crystals that a search rejects as repeats before relaxation would have become other crystals.

    python benchmarks/search/repeats.py runs/li-si runs/zn-p-s

The rejected repeats of the runs, and what they repeat where that was given up, are relaxed in full with the settings of
their tasks. Then each choice of tests is applied to the crystals of every task as they were made, as
`model.stages.Relaxer` does; what it calls a repeat is wrongly called so if the two relaxed crystals are not the same by
`model.crystals.matching.RELAXED`. Printed are the number of repeats, how many of them are wrong and how many of these
end low (below 0.05 eV/atom), the true repeats of the broadest tests that others miss, and the share of all
relaxation that these cost.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before anything below loads a thread pool

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import pandas as pd
import torch

from model.crystals.crystal import Crystal
from model.crystals.matching import RELAXED, DistinctCrystals, DistinctSettings
from model.potentials.catalog import load_potential
from model.reasons import Reason
from model.relaxation.relax import Relaxation, RelaxSettings, relax
from search.storage.results import ResultStore
from search.storage.rows import Row

LOW = 0.05  # eV/atom
POLISHED = 0.01  # eV/Å
GEOMETRIC = RELAXED.model_copy(update={"energy_tolerance": None, "matches": None})
CHOICES = {
    "defaults": DistinctSettings(),
    "as RELAXED": GEOMETRIC,
    **{f"stol {stol}": DistinctSettings(stol=stol) for stol in (0.2, 0.1, 0.05, 0.02, 0.01)},
}


@dataclass(frozen=True)
class Outcome:
    """A candidate as it was made and as it was relaxed; E_d in eV/atom, work in evaluations for one atom."""

    made: Crystal
    final: Crystal
    e_d: float
    work: int


def outcomes(run: Path) -> Iterator[list[Outcome]]:
    """Per task, the candidates that passed the screening and have a relaxed crystal."""
    store = ResultStore(run)
    rows = [row for row in store.rows(sorted(store.tasks())) if row.e_d is not None or row.reason == Reason.DUPLICATE]
    hull = {row.formula: row.energy - row.e_d for row in rows if row.energy is not None and row.e_d is not None}
    repeated = {name for row in rows if row.reason == Reason.DUPLICATE for name in (row.candidate, row.duplicate_of)}
    again = [row for row in rows if row.candidate in repeated]
    settings = RelaxSettings.model_validate_json(rows[0].relaxation_settings).model_copy(update={"energy_ceiling": None})
    potential = load_potential(rows[0].potential)
    first = relax([_made(row) for row in again], potential, settings)
    finer = settings.model_copy(update={"fmax": POLISHED, "max_steps": 500})
    second = relax([result.final for result in first], potential, finer)
    relaxed = dict(zip([row.candidate for row in again], zip(first, second, strict=True), strict=True))
    for _, task in groupby(rows, key=attrgetter("task")):
        yield [_outcome(row, relaxed.get(row.candidate), hull[row.formula]) for row in task]


def _made(row: Row) -> Crystal:
    assert row.initial is not None
    return row.initial.crystal


def _outcome(row: Row, relaxed: tuple[Relaxation, Relaxation] | None, hull: float) -> Outcome:
    if relaxed is None:
        assert row.final is not None and row.e_d is not None
        work = (row.n_independent_atoms or 0) * ((row.steps or 0) + 1)
        return Outcome(_made(row), row.final.crystal, row.e_d, work)
    first, polished = relaxed
    return Outcome(
        _made(row), polished.final, polished.energy_final - hull, first.n_independent_atoms * (first.steps + 1)
    )


def pairs(task: Sequence[Outcome], settings: DistinctSettings) -> dict[int, int]:
    """Repeat -> what it repeats, by place in the task."""
    distinct = DistinctCrystals(settings)
    found = {place: distinct.add(one.made) for place, one in enumerate(task)}
    return {place: original for place, original in found.items() if original is not None}


def same(one: Outcome, other: Outcome) -> bool:
    distinct = DistinctCrystals(RELAXED)
    distinct.add(one.final, energy=one.e_d)
    return distinct.add(other.final, energy=other.e_d) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    torch.set_num_threads(1)
    tasks = [task for run in parser.parse_args().runs for task in outcomes(run)]
    everything = sum(one.work for task in tasks for one in task)
    true = {
        (number, place)
        for number, task in enumerate(tasks)
        for place, original in pairs(task, DistinctSettings()).items()
        if same(task[original], task[place])
    }
    table = []
    for name, settings in CHOICES.items():
        called = [(n, place, original) for n, task in enumerate(tasks) for place, original in pairs(task, settings).items()]
        wrong = [(n, place) for n, place, original in called if not same(tasks[n][original], tasks[n][place])]
        missed = true - {(n, place) for n, place, _ in called}
        table.append(
            {
                "tests": name,
                "repeats": len(called),
                "wrong": len(wrong),
                "wrong and low": sum(tasks[n][place].e_d < LOW for n, place in wrong),
                "true but missed": len(missed),
                "their work": sum(tasks[n][place].work for n, place in missed) / everything,
            }
        )
    print(pd.DataFrame(table).round(4).to_string(index=False))


if __name__ == "__main__":
    main()
