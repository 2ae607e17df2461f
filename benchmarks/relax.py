"""Relaxations per core-second: chgnet's StructOptimizer compared with ours, on 100 crystals generated as in a search.

    python benchmarks/relax.py --json relax.json
    python benchmarks/relax.py --structures mine.extxyz --limit 20 --json relax.json

All three end at 0.1 eV/Å on forces and scaled stress, or after 500 steps; ours also wait until energy and volume have
settled. Each runs on one thread. Groups
of a dozen crystals are relaxed with our FIRE and our L-BFGS (in batches) and with the package's FIRE (one by one) in
alternation, so that other work on the machine affects all three equally; times are CPU seconds of this process. The
families of crystals alternate, so that any part of the list is representative. The file is written after every step;
rerun the same command to resume. The summary covers the crystals that all three have relaxed.

In ``summary``, ``within_2meV`` is the share of crystals relaxed by the package for which our final energy is at most
2 meV/atom above the package's, for the worse of our two optimizers. ``higher`` lists the others, and ``lower`` counts
those that lie more than 2 meV/atom below.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before anything below loads a thread pool

import argparse
import json
import platform
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from chgnet.model import CHGNet, StructOptimizer

from model.crystals.crystal import Crystal
from model.potentials.chgnet.potential import CHGNetPotential
from model.relaxation.relax import RelaxSettings, may_be_ranked, relax

GENERATED = Path(__file__).with_name("generated.extxyz")
TOGETHER = 12
FMAX, STEPS = 0.1, 500
OURS = {
    "fire": RelaxSettings(optimizer="fire", fmax=FMAX, max_steps=STEPS),
    "lbfgs": RelaxSettings(fmax=FMAX, max_steps=STEPS),
}


def in_turn(frames: list[Atoms]) -> list[Atoms]:
    """The first of every family, then the second of every family, and so on."""
    families: dict[str, list[Atoms]] = defaultdict(list)
    for atoms in frames:
        families[atoms.info.get("family", "")].append(atoms)
    return [atoms for row in zip_longest(*families.values()) for atoms in row if atoms is not None]


def by_us(crystals: list[Crystal], potential: CHGNetPotential, settings: RelaxSettings) -> list[dict[str, Any]]:
    return [
        {
            "energy": result.energy_final if may_be_ranked(result) else None,
            "steps": result.steps,
            "converged": result.converged,
            "reason": result.reason,
        }
        for result in relax(crystals, potential, settings, batch_size=TOGETHER)
    ]


def by_package(crystal: Crystal, optimizer: StructOptimizer) -> dict[str, Any]:
    """Relax with the package. It does not report convergence; it has converged if it stopped before the last step."""
    try:
        found = optimizer.relax(crystal.to_pymatgen(), fmax=FMAX, steps=STEPS, verbose=False, assign_magmoms=False)
    except Exception as error:  # the package raises for crystals that it cannot relax
        return {"energy": None, "steps": 0, "converged": False, "reason": repr(error)}
    trajectory = found["trajectory"]
    energy, steps = float(trajectory.energies[-1]) / len(crystal), len(trajectory) - 2  # first and last are extra
    if not np.isfinite(energy):
        return {"energy": None, "steps": steps, "converged": False, "reason": "nan"}
    converged = steps < STEPS
    return {
        "energy": energy,
        "steps": steps,
        "converged": converged,
        "reason": "converged" if converged else "step_limit",
    }


def timed(job: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = job()
    return result, time.process_time() - start


def advance(group: dict[str, Any], potential: CHGNetPotential, package: StructOptimizer) -> bool:
    """Run the next relaxation of a group; False if there is none."""
    crystals = [Crystal(row["lattice"], row["fractional"], row["numbers"]) for row in group["crystals"]]
    for way, settings in OURS.items():
        if way not in group["seconds"]:
            results, group["seconds"][way] = timed(lambda s=settings: by_us(crystals, potential, s))
            for row, result in zip(group["crystals"], results, strict=True):
                row[way] = result
            return True
    for row, crystal in zip(group["crystals"], crystals, strict=True):
        if "package" not in row:
            row["package"], row["package_seconds"] = timed(lambda c=crystal: by_package(c, package))
            return True
    return False


def group_of(frames: list[Atoms], first: int) -> dict[str, Any]:
    rows = []
    for place, atoms in enumerate(frames, first):
        crystal = Crystal.from_ase(atoms)
        content = {"lattice": crystal.lattice, "fractional": crystal.fractional, "numbers": crystal.numbers}
        about = {"crystal": place, "family": atoms.info.get("family", ""), "formula": crystal.formula}
        rows.append(about | {key: value.tolist() for key, value in content.items()})
    return {"seconds": {}, "crystals": rows}


def summarise(groups: list[dict[str, Any]]) -> dict[str, Any]:
    complete = [
        group
        for group in groups
        if set(OURS) <= set(group["seconds"]) and all("package" in row for row in group["crystals"])
    ]
    rows = [row for group in complete for row in group["crystals"]]
    if not rows:
        return {"crystals": 0}
    seconds = {way: sum(group["seconds"][way] for group in complete) for way in OURS}
    seconds["package"] = sum(row["package_seconds"] for row in rows)
    known = [row for row in rows if row["package"]["energy"] is not None]
    excess = {way: [above(row, way) for row in known] for way in OURS}
    within = {way: float(np.mean([gap < 2e-3 for gap in gaps])) for way, gaps in excess.items()}
    return {
        "crystals": len(rows),
        "speedup_fire": seconds["package"] / seconds["fire"],
        "speedup_best": seconds["package"] / seconds["lbfgs"],
        "within_2meV": min(within.values()),
        "within_2meV_fire": within["fire"],
        "within_2meV_best": within["lbfgs"],
        "lower": {way: sum(gap < -2e-3 for gap in gaps) for way, gaps in excess.items()},
        "cpu_seconds": seconds,
        "mean_steps": {way: float(np.mean([row[way]["steps"] for row in rows])) for way in seconds},
        "outcomes": {way: Counter(row[way]["reason"] for row in rows) for way in seconds},
        "higher": [
            {
                "crystal": row["crystal"],
                "formula": row["formula"],
                "optimizer": way,
                "meV_per_atom": 1e3 * gap if np.isfinite(gap) else None,
            }
            for way, gaps in excess.items()
            for row, gap in zip(known, gaps, strict=True)
            if gap >= 2e-3
        ],
    }


def above(row: dict[str, Any], way: str) -> float:
    """Energy (eV/atom) relative to the package's; infinite if we have none."""
    return np.inf if row[way]["energy"] is None else row[way]["energy"] - row["package"]["energy"]


def stored(path: Path, structures: Path) -> list[dict[str, Any]]:
    """Stored results of an earlier run on the same structures."""
    if not path.exists():
        return []
    record = json.loads(path.read_text())
    if record["structures"] != str(structures):
        raise ValueError(f"{path} is about {record['structures']}: choose another --json for {structures}")
    return record["groups"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--limit", type=int, help="number of crystals; all when left out")
    parser.add_argument("--structures", type=Path, default=GENERATED, help="any file of crystals that ASE reads")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad")
    torch.set_num_threads(1)

    frames = in_turn(ase.io.read(args.structures, ":"))[: args.limit]
    potential = CHGNetPotential()
    model = CHGNet.load(use_device="cpu", verbose=False)
    package = StructOptimizer(model=model, use_device="cpu", on_isolated_atoms="ignore")
    groups = stored(args.json, args.structures)
    potential.evaluate([Crystal.from_ase(frames[0])])  # both are warm
    model.predict_structure(Crystal.from_ase(frames[0]).to_pymatgen())
    host = {"host": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1}
    for start in range(0, len(frames), TOGETHER):
        if start // TOGETHER == len(groups):
            groups.append(group_of(frames[start : start + TOGETHER], start))
        while advance(groups[start // TOGETHER], potential, package):
            record = {"summary": summarise(groups), **host, "structures": str(args.structures), "groups": groups}
            temporary = args.json.with_suffix(".part")
            temporary.write_text(json.dumps(record))
            temporary.replace(args.json)
            print(
                f"{sum('package' in row for group in groups for row in group['crystals'])} of {len(frames)}", flush=True
            )
    print(json.dumps(summarise(groups), indent=1))


if __name__ == "__main__":
    main()
