"""How many pairs that pymatgen's StructureMatcher alone would call equal are kept apart by the tests before it.

    python benchmarks/duplicates.py runs/li-si runs/li-p-s

The matcher is applied to all pairs of one composition that a search compares (`search.planning.history.COMPARED`), and
each test of `model.crystals.matching.RELAXED` separately to the pairs that match. Printed are the number of pairs that
a test keeps apart, and their differences in energy: relaxations into the same minimum differ by a few meV/atom. Printed
first is the time that the planner needs to read the candidates of each run, nearly all of it for such comparisons.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher

from model.crystals.crystal import Crystal
from model.crystals.matching import RELAXED, distance_fingerprints
from search.config import FrameworkSettings, PolicySettings
from search.planning.frameworks import FrameworkPool
from search.planning.history import COMPARED, SearchHistory
from search.storage.results import ResultStore, load_results
from search.storage.rows import HistoryRow, rows_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    runs = parser.parse_args().runs
    for run in runs:
        print(run, reading(run))
    found = [differences for run in runs for differences in pairs(run)]
    joined = np.array([differences for differences in found if differences is not None])
    volume, mean, rms, energy = joined.T
    print(f"{len(found)} pairs, {len(joined)} of them joined by the matcher; kept apart by")
    apart = {
        "volume": volume > np.log1p(RELAXED.volume_tolerance),
        "mean distances": mean > RELAXED.distance_tolerance,
    }
    apart["either of these"] = apart["volume"] | apart["mean distances"]
    apart["root mean square of all distances"] = rms > RELAXED.rms_tolerance
    apart["energy"] = energy > (RELAXED.energy_tolerance or np.inf)
    apart["all"] = np.any(list(apart.values()), axis=0)
    apart["none"] = ~apart["all"]
    for name, some in apart.items():
        quartiles = 1000 * np.quantile(energy[some], (0.5, 0.9)) if some.any() else (0, 0)
        print(
            "  {}: {}; median of |ΔE_d| {:.1f} meV/atom, nine of ten up to {:.1f}".format(name, some.sum(), *quartiles)
        )


def reading(run: str) -> str:
    """The planner's history of a run, and the time to read it."""
    store = ResultStore(Path(run))
    rows = [row for task in sorted(store.tasks()) for row in rows_of(store.history(task), HistoryRow)]
    history = SearchHistory(PolicySettings(), FrameworkPool(FrameworkSettings().volume_change))
    began = time.process_time()
    history.read(rows)
    milliseconds = 1000 * (time.process_time() - began) / len(rows)
    new, frameworks = history.novelty.new().sum(), len(history.pool.known)
    return f"{len(rows)} candidates, {new} distinct, {frameworks} frameworks: {milliseconds:.1f} ms of CPU a candidate"


def pairs(run: str) -> Iterator[tuple[float, float, float, float] | None]:
    """Differences of each pair in ln(volume), mean and all neighbour distances (Å) and E_d (eV/atom).

    None for pairs that do not match.
    """
    matcher = StructureMatcher(ltol=RELAXED.ltol, stol=RELAXED.stol, angle_tol=RELAXED.angle_tol)
    rows = load_results(run)
    rows = rows[(rows["e_d"] <= COMPARED) & rows["duplicate_of"].isna()]
    for _, some in rows.groupby("formula"):
        crystals = [Crystal.from_pymatgen(structure) for structure in some["structure"]]
        reduced = [
            structure.get_reduced_structure("niggli").get_primitive_structure() for structure in some["structure"]
        ]
        each = zip(reduced, crystals, distance_fingerprints(crystals), some["e_d"], strict=True)
        for one, other in combinations(each, 2):
            if not matcher.fit(one[0], other[0], skip_structure_reduction=True):
                yield None
                continue
            volumes = [crystal.volume / len(crystal) for _, crystal, _, _ in (one, other)]
            distances = one[2] - other[2]
            mean, rms = np.abs(distances[0]).max(), np.sqrt((distances**2).mean())
            yield abs(np.log(volumes[0] / volumes[1])), mean, rms, abs(one[3] - other[3])


if __name__ == "__main__":
    main()
