"""Savings and losses of a funnel, on the 100 crystals of generated.extxyz: eight or nine for each of 12 compositions.

    python benchmarks/funnel.py --json funnel.json

Every crystal is relaxed once in full with L-BFGS, and, if it has a host, once more after 30 steps of its guests alone.
The result of each variant of `model.relaxation.candidate_funnel` follows from the energies of all steps. Costs are
evaluations times atoms. A *winner* is the lowest crystal of its composition; it is lost if the lowest crystal of a
variant lies more than 2 meV/atom above it; ``regret`` is that difference. The file is written after every crystal;
rerun the same command to resume.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before anything below loads a thread pool

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.potentials.chgnet.potential import CHGNetPotential
from model.potentials.interface import BatchEvaluation
from model.relaxation.relax import RelaxSettings, relax

GENERATED = Path(__file__).with_name("generated.extxyz")
FULL = RelaxSettings(optimizer="lbfgs")
GUESTS = FULL.model_copy(update={"cell": "fixed", "max_steps": 30})
Row = dict[str, Any]
Outcome = tuple[int, float]  # evaluations times atoms, lowest energy in eV/atom


class Recording(CHGNetPotential):
    """Records the energies of the one crystal that it evaluates."""

    def compute(self, batch: Batch, symmetry: Any = None) -> BatchEvaluation:
        found = super().compute(batch, symmetry)
        (energy,) = found.energy.tolist()
        self.energies.append(energy)
        return found

    def relax(self, crystal: Crystal, settings: RelaxSettings, free: np.ndarray | None) -> tuple[Crystal, list[float]]:
        """The relaxed crystal, and the energies of all steps in eV/atom."""
        self.energies: list[float] = []
        (result,) = relax([crystal], self, settings, free=[free])
        return result.final, self.energies


def record(atoms: Atoms, potential: Recording) -> Row:
    crystal, guests = Crystal.from_ase(atoms), np.asarray(atoms.arrays["placed"], dtype=bool)
    row = {"family": atoms.info["family"], "atoms": len(atoms), "full": potential.relax(crystal, FULL, None)[1]}
    if not guests.all():
        settled, row["guests"] = potential.relax(crystal, GUESTS, guests)
        row["after"] = potential.relax(settled, FULL, None)[1]
    return row


def in_full(rows: list[Row]) -> Outcome:
    return sum(row["atoms"] * len(row["full"]) for row in rows), min(row["full"][-1] for row in rows)


def lowest_after(stage: str, share: float) -> Callable[[list[Row]], Outcome]:
    def way(rows: list[Row]) -> Outcome:
        cheap = [row.get(stage, row["full"][:1]) for row in rows]
        kept = np.argsort([energies[-1] for energies in cheap], kind="stable")[: math.ceil(share * len(rows))]
        full = {i: rows[i].get("after", rows[i]["full"]) if stage == "guests" else rows[i]["full"] for i in kept}
        cost = sum(row["atoms"] * len(energies) for row, energies in zip(rows, cheap, strict=True))
        cost += sum(rows[i]["atoms"] * len(energies) for i, energies in full.items())
        return cost, min(energies[-1] for energies in full.values())

    return way


WAYS: dict[str, Callable[[list[Row]], Outcome]] = {
    "share 0.67 after single points": lowest_after("single", 0.67),
    "share 0.5 after single points": lowest_after("single", 0.5),
    "share 0.34 after single points": lowest_after("single", 0.34),
    "share 0.67 after the guests": lowest_after("guests", 0.67),
    "share 0.5 after the guests": lowest_after("guests", 0.5),
    "share 0.34 after the guests": lowest_after("guests", 0.34),
}


def summarise(rows: list[Row]) -> dict[str, Any]:
    families: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        families[row["family"]].append(row)
    everything = [in_full(some) for some in families.values()]
    ways = {}
    for name, way in WAYS.items():
        found = [way(some) for some in families.values()]
        regret = [1e3 * (mine - best) for (_, mine), (_, best) in zip(found, everything, strict=True)]
        ways[name] = {
            "saved": 1 - sum(cost for cost, _ in found) / sum(cost for cost, _ in everything),
            "winners_lost": float(np.mean([gap > 2.0 for gap in regret])),
            "regret_mean_meV": float(np.mean(regret)),
            "regret_largest_meV": float(np.max(regret)),
        }
    return {"crystals": len(rows), "compositions": len(families), "ways": ways}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    frames = ase.io.read(GENERATED, ":")
    rows = json.loads(args.json.read_text())["rows"] if args.json.exists() else {}
    potential = Recording()
    for place in sorted(range(len(frames)), key=lambda i: len(frames[i])):
        if str(place) in rows:
            continue
        rows[str(place)] = record(frames[place], potential)
        args.json.write_text(json.dumps({"summary": summarise(list(rows.values())), "rows": rows}))
        print(f"{len(rows)} of {len(frames)}", flush=True)
    print(json.dumps(summarise(list(rows.values())), indent=1))


if __name__ == "__main__":
    main()
