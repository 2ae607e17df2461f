"""Whether the crystals that a run lists are what they are said to be, judged by the stock package.

Every listed crystal is relaxed on with ``chgnet.StructOptimizer`` (FIRE, all atoms and the cell free) to 0.005 eV/Å.
Printed are by how much the energies fall, how many listed crystals are the same afterwards, and how many have another
space group at 0.01 Å than the one reported.

    python benchmarks/polished.py runs/li-si --top 50 --json polished.json
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import torch
from chgnet.model import StructOptimizer

from model.crystals.crystal import Crystal
from model.crystals.matching import RELAXED, DistinctCrystals
from model.symmetry.space_group import REPORTED, space_group
from search.storage.paths import run_path
from search.storage.ranking import rank
from search.storage.results import load_results
from search.storage.rows import unpack_or_raise

FMAX, STEPS = 0.005, 1000


def main() -> None:
    """Relax, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a run")
    parser.add_argument("--top", type=int, default=50, help="listed crystals")
    parser.add_argument("--json", type=Path, help="file for the summary")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    listed = rank(load_results(run_path(arguments.run), structures=False), top=arguments.top)
    optimizer, distinct = StructOptimizer(use_device="cpu"), DistinctCrystals(RELAXED)
    falls, same, other = [], 0, 0
    for row in listed.to_dict("records"):
        crystal = unpack_or_raise(row["final"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optimizer.relax(crystal.to_pymatgen(), fmax=FMAX, steps=STEPS, verbose=False, assign_magmoms=False)
        energy = float(found["trajectory"].energies[-1]) / len(crystal)
        falls.append(1e3 * (row["energy"] - energy))
        final = Crystal.from_pymatgen(found["final_structure"])
        same += distinct.add(final, energy=energy) is not None
        group = space_group(crystal, REPORTED, -1.0)
        other += (group.number if group else 1) != row["space_group_number"]
        print(f"{row['formula']:>12} {row['space_group']:>10} fell by {falls[-1]:6.2f} meV/atom", flush=True)
    values = np.array(falls)
    summary = {
        "listed": len(values),
        "polished": int(listed["polished"].sum()),
        "fell_mean": float(values.mean()),
        "fell_most": float(values.max()),
        "share_within_1": float((values <= 1).mean()),
        "same_afterwards": same,
        "other_group": other,
    }
    print(json.dumps(summary, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
