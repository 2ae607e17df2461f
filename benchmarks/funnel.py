"""What a funnel saves and what it loses, on the 100 crystals of generated.extxyz: eight or nine of twelve compositions.

    python benchmarks/funnel.py --json funnel.json

Every way of the list relaxes the crystals of one composition after another; ``full`` is all of them without a funnel.
A *winner* is the lowest crystal of its composition. It is lost where a way's lowest lies more than 2 meV/atom above
``full``'s; ``regret`` is that difference. The file is written after every composition: the same command goes on.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before anything below loads a thread pool

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms

from model.crystal import Crystal
from model.funnel import funnel
from model.potential import CHGNetPotential
from model.relax import RelaxSettings, usable

GENERATED = Path(__file__).with_name("generated.extxyz")
FULL = RelaxSettings(optimizer="lbfgs")
WAYS = {
    "full": FULL,
    "hopeless 0.05": FULL.model_copy(update={"hopeless": 0.05}),
    "hopeless 0.02": FULL.model_copy(update={"hopeless": 0.02}),
    "half after single points": FULL.model_copy(update={"share": 0.5, "guest_steps": 0}),
    "third after single points": FULL.model_copy(update={"share": 1 / 3, "guest_steps": 0}),
    "half after guests": FULL.model_copy(update={"share": 0.5}),
}


def measure(frames: list[Atoms], settings: RelaxSettings, potential: CHGNetPotential) -> dict[str, Any]:
    guests = [np.asarray(atoms.arrays["placed"], dtype=bool) for atoms in frames]
    start = time.process_time()
    results = funnel([Crystal.from_ase(atoms) for atoms in frames], potential, settings, guests=guests)
    seconds = time.process_time() - start
    energies = [result.energy_final for result in results if usable(result)]
    return {"lowest": min(energies), "cpu_seconds": seconds, "reasons": [result.reason for result in results]}


def summarise(families: dict[str, dict[str, Any]]) -> dict[str, Any]:
    rows = {}
    for way in WAYS:
        regret = [1e3 * (found[way]["lowest"] - found["full"]["lowest"]) for found in families.values()]
        seconds = [sum(found[name]["cpu_seconds"] for found in families.values()) for name in (way, "full")]
        rows[way] = {
            "cpu_seconds": seconds[0],
            "saved": 1 - seconds[0] / seconds[1],
            "winners_lost": float(np.mean([gap > 2.0 for gap in regret])),
            "regret_mean_meV": float(np.mean(regret)),
            "regret_largest_meV": float(np.max(regret)),
        }
    return {"compositions": len(families), "ways": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--limit", type=int, help="number of compositions; all when left out")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    frames: dict[str, list[Atoms]] = defaultdict(list)
    for atoms in ase.io.read(GENERATED, ":"):
        frames[atoms.info["family"]].append(atoms)
    families = json.loads(args.json.read_text())["families"] if args.json.exists() else {}
    potential = CHGNetPotential()
    for family in sorted(frames, key=lambda name: len(frames[name][0]))[: args.limit]:
        if family in families:
            continue
        families[family] = {way: measure(frames[family], settings, potential) for way, settings in WAYS.items()}
        args.json.write_text(json.dumps({"summary": summarise(families), "families": families}, indent=1))
        print(f"{len(families)} of {len(frames)}: {family}", flush=True)
    print(json.dumps(summarise(families), indent=1))


if __name__ == "__main__":
    main()
