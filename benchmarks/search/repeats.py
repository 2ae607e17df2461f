"""How many of the crystals that a search rejects as repeats before relaxation would have become other crystals.

    python benchmarks/search/repeats.py runs/li-si runs/zn-p-s

The broadest tests, stol 0.3, are applied to all candidates of each task as they were made. Those that they call repeats
and what these repeat are relaxed in full with the settings of the run, and on to 0.01 eV/Å. Then narrower tests are
applied; a repeat is wrong if the two relaxed crystals are not the same by `model.crystals.matching.RELAXED`. Most wrong
ones differ by less than 1 meV/atom: soft crystals, whose volumes still differ. Printed are, for each choice of tests,
the number of repeats; how many are wrong, how many of these by more than 1 meV/atom, and how many of those end
below 0.05 eV/atom; the true repeats of the broadest tests that are missed; and the share of all relaxation that these
cost.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before anything below loads a thread pool

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import pandas as pd
import torch

from model.crystals.crystal import Crystal
from model.crystals.matching import RELAXED, UNRELAXED, DistinctCrystals, DistinctSettings
from model.potentials.catalog import load_potential
from model.reasons import Reason
from model.relaxation.relax import RelaxSettings, relax
from model.symmetry.space_group import space_group
from search.storage.results import ResultStore

LOW = 0.05  # eV/atom
APART = 1e-3  # eV/atom
POLISHED = 0.01  # eV/Å
BROADEST = DistinctSettings()
CHOICES = {
    **{f"stol {stol}": BROADEST.model_copy(update={"stol": stol}) for stol in (0.3, 0.2, 0.1, 0.05, 0.02, 0.01)},
    **{
        f"stol {stol}, same group": UNRELAXED.model_copy(update={"stol": stol})
        for stol in (0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
    },
}


@dataclass
class Candidate:
    """A candidate that passed the screening; ``final`` and ``e_d`` (eV/atom) of the polished crystal, if needed.

    ``work`` is that of its relaxation, in evaluations of the potential for one atom.
    """

    made: Crystal
    group: int | None  # that the relaxation keeps
    hull: float  # eV/atom
    work: int
    final: Crystal | None = None
    e_d: float = float("nan")


def read(run: Path) -> list[list[Candidate]]:
    """Per task, the candidates that passed the screening, relaxed as far as needed."""
    store = ResultStore(run)
    rows = [row for row in store.rows(sorted(store.tasks())) if row.e_d is not None or row.reason == Reason.DUPLICATE]
    hull = {row.formula: row.energy - row.e_d for row in rows if row.energy is not None and row.e_d is not None}
    settings = RelaxSettings.model_validate_json(rows[0].relaxation_settings).model_copy(
        update={"energy_ceiling": None}
    )
    tasks = []
    for _, task in groupby(rows, key=attrgetter("task")):
        tasks.append(some := [])
        for row in task:
            assert row.initial is not None
            made = row.initial.crystal
            kept = space_group(made, settings.symprec, -1) if settings.keep_symmetry else None
            work = (row.n_independent_atoms or 0) * ((row.steps or 0) + 1)
            some.append(Candidate(made, None if kept is None else kept.number, hull[row.formula], work))
    potential = load_potential(rows[0].potential)
    pairs = [(task, pair) for task in tasks for tests in CHOICES.values() for pair in repeats(task, tests).items()]
    needed = list({id(task[place]): task[place] for task, pair in pairs for place in pair}.values())
    first = relax([one.made for one in needed], potential, settings)
    finer = settings.model_copy(update={"fmax": POLISHED, "max_steps": 500})
    second = relax([result.final for result in first], potential, finer)
    for one, result, polished in zip(needed, first, second, strict=True):
        one.work = result.n_independent_atoms * (result.steps + 1)
        one.final, one.e_d = polished.final, polished.energy_final - one.hull
    return tasks


def repeats(task: Sequence[Candidate], tests: DistinctSettings) -> dict[int, int]:
    """Repeat -> what it repeats, by place in the task."""
    distinct = DistinctCrystals(tests)
    found = {place: distinct.add(one.made, one.group) for place, one in enumerate(task)}
    return {place: original for place, original in found.items() if original is not None}


def same(one: Candidate, other: Candidate) -> bool:
    assert one.final is not None and other.final is not None
    distinct = DistinctCrystals(RELAXED)
    distinct.add(one.final, energy=one.e_d)
    return distinct.add(other.final, energy=other.e_d) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    torch.set_num_threads(1)
    tasks = [task for run in parser.parse_args().runs for task in read(run)]
    everything = sum(one.work for task in tasks for one in task)
    broadest = {
        (number, place)
        for number, task in enumerate(tasks)
        for place, original in repeats(task, BROADEST).items()
        if same(task[original], task[place])
    }
    table = []
    for name, tests in CHOICES.items():
        found = [
            (n, place, original) for n, task in enumerate(tasks) for place, original in repeats(task, tests).items()
        ]
        pairs = [(tasks[n][place], tasks[n][original]) for n, place, original in found]
        wrong = [(one, other) for one, other in pairs if not same(one, other)]
        apart = [one for one, other in wrong if abs(one.e_d - other.e_d) > APART]
        missed = broadest - {(n, place) for n, place, _ in found}
        table.append(
            {
                "tests": name,
                "repeats": len(found),
                "wrong": len(wrong),
                "by > 1 meV": len(apart),
                "and low": sum(one.e_d < LOW for one in apart),
                "true missed": len(missed),
                "cost": sum(tasks[n][place].work for n, place in missed) / everything,
            }
        )
    print(f"{len(tasks)} tasks, {sum(map(len, tasks))} candidates")
    print(pd.DataFrame(table).round(4).to_string(index=False))


if __name__ == "__main__":
    main()
