"""How long the planner takes to compare the crystals of a run, and how often StructureMatcher would decide otherwise.

    python benchmarks/duplicates.py runs/li-si runs/li-p-s

The planner looks crystals up by their neighbour distances (`model.crystals.matching.LOOKED_UP`). What is listed, and
what repeats a polished crystal, is decided with the matcher (`RELAXED`).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from model.crystals.crystal import Crystal
from model.crystals.matching import LOOKED_UP, RELAXED, DistinctCrystals, DistinctSettings
from search.config import FrameworkSettings, PolicySettings
from search.planning.frameworks import FrameworkPool
from search.planning.history import COMPARED, SearchHistory
from search.storage.results import ResultStore, load_results
from search.storage.rows import HistoryRow, rows_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    for run in parser.parse_args().runs:
        print(run, reading(run))
        print(agreement(run))


def reading(run: str) -> str:
    """The planner's history of a run, and the time to read it."""
    store = ResultStore(Path(run))
    rows = [row for task in sorted(store.tasks()) for row in rows_of(store.history(task), HistoryRow)]
    history = SearchHistory(PolicySettings(), FrameworkPool(FrameworkSettings().volume_change))
    began = time.process_time()
    history.read(rows)
    milliseconds = 1000 * (time.process_time() - began) / len(rows)
    new, frameworks = history.novelty.new().sum(), len(history.pool.known)
    return f"{len(rows)} candidates, {new} distinct, {frameworks} frameworks: {milliseconds:.2f} ms of CPU a candidate"


def agreement(run: str) -> str:
    """How many of the low crystals of a run are new, by distances and by the matcher."""
    rows = load_results(run)
    rows = rows[(rows["e_d"] <= COMPARED) & rows["duplicate_of"].isna()]
    crystals = [Crystal.from_pymatgen(structure) for structure in rows["structure"]]
    new = {}
    for settings in (LOOKED_UP, RELAXED):
        began = time.process_time()
        new[settings.matcher] = _new(crystals, rows["e_d"].tolist(), settings)
        print(f"  matcher {settings.matcher}: {1e3 * (time.process_time() - began) / len(crystals):.2f} ms a crystal")
    only_distances, only_matcher = len(new[False] - new[True]), len(new[True] - new[False])
    return (
        f"  of {len(crystals)} crystals up to {COMPARED} eV/atom {len(new[False] & new[True])} are new by both, "
        f"{only_distances} only by their distances, {only_matcher} only by the matcher"
    )


def _new(crystals: list[Crystal], energies: list[float], settings: DistinctSettings) -> set[int]:
    distinct = DistinctCrystals(settings)
    pairs = enumerate(zip(crystals, energies, strict=True))
    return {place for place, (crystal, energy) in pairs if distinct.add(crystal, energy=energy) is None}


if __name__ == "__main__":
    main()
