"""Relaxations per second on one core: chgnet's StructOptimizer against ours, in one run.

    python benchmarks/relax.py --limit 20 --json relax.json
    python benchmarks/relax.py --structures generated.extxyz --json relax.json

Without a file the crystals are known phases, strained and shaken. All three relax with the same criterion (0.1 eV/Å on
forces and scaled stress, at most 500 steps). ``within_2meV`` is the share of crystals whose energy after our FIRE
agrees with the package's within 2 meV/atom (lower counts for the fast optimizer: ``best_not_higher``).
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase.build import bulk
from chgnet.model import CHGNet, StructOptimizer

from model.crystal import Crystal
from model.potential import CHGNetPotential
from model.relax import Relaxation, RelaxSettings, relax

PHASES = [
    bulk("NaCl", "rocksalt", a=5.64, cubic=True), bulk("Si", "diamond", a=5.43, cubic=True),
    bulk("LiF", "rocksalt", a=4.03), bulk("ZnS", "zincblende", a=5.41, cubic=True), bulk("Al", cubic=True),
    bulk("CsCl", "cesiumchloride", a=4.12), bulk("Mg"), bulk("CaF2", "fluorite", a=5.46, cubic=True),
    bulk("GaN", "wurtzite", a=3.19),
    bulk("MgO", "rocksalt", a=4.21, cubic=True) * (1, 1, 2),
    bulk("Li2S", "fluorite", a=5.7) * (2, 1, 1),
]  # fmt: skip


def perturbed(count: int) -> list[Crystal]:
    rng = np.random.default_rng(0)
    crystals = []
    for i in range(count):
        crystal = Crystal.from_ase(PHASES[i % len(PHASES)])
        lattice = crystal.lattice @ (np.eye(3) + rng.normal(0, 0.04, (3, 3)))
        shaken = crystal.cartesian @ np.linalg.inv(crystal.lattice) @ lattice + rng.normal(0, 0.2, (len(crystal), 3))
        crystals.append(crystal.replace(lattice=lattice, fractional=shaken @ np.linalg.inv(lattice)))
    return crystals


def timed(job: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = job()
    return result, time.perf_counter() - start


def by_package(crystals: list[Crystal]) -> list[tuple[float, int, bool]]:
    """Energy (eV/atom), steps and convergence of each crystal; NaN where the package raises."""
    model = CHGNet.load(use_device="cpu", verbose=False)
    optimizer = StructOptimizer(model=model, use_device="cpu", on_isolated_atoms="ignore")
    results = []
    for crystal in crystals:
        try:
            trajectory = optimizer.relax(crystal.to_ase(), verbose=False, assign_magmoms=False)["trajectory"]
            steps = len(trajectory) - 2  # the start, and the end is written twice
            results.append((trajectory.energies[-1] / len(crystal), steps, steps < 500))
        except Exception as error:  # the package raises for crystals that it cannot relax
            print(f"{crystal.formula}: {type(error).__name__}: {error}")
            results.append((float("nan"), 0, False))
    return results


def describe(results: list[Relaxation], seconds: float) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "steps": [r.steps for r in results],
        "energies": [r.energy_final for r in results],
        "reasons": [r.reason for r in results],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--limit", type=int, default=22, help="number of crystals")
    parser.add_argument("--structures", type=Path, help="any file of crystals that ASE reads")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad")
    torch.set_num_threads(1)

    crystals = perturbed(args.limit)
    if args.structures:
        crystals = [Crystal.from_ase(atoms) for atoms in ase.io.read(args.structures, ":")[: args.limit]]
    potential = CHGNetPotential()
    relax(crystals[:1], potential)  # warm
    fire, fire_seconds = timed(lambda: relax(crystals, potential))
    best, best_seconds = timed(lambda: relax(crystals, potential, RelaxSettings(optimizer="lbfgs")))
    stock, stock_seconds = timed(lambda: by_package(crystals))

    reference = np.array([energy for energy, _, _ in stock])
    fire_gap = np.array([r.energy_final for r in fire]) - reference
    best_gap = np.array([r.energy_final for r in best]) - reference
    valid = np.isfinite(reference)
    summary = {
        "crystals": len(crystals),
        "speedup_fire": stock_seconds / fire_seconds,
        "speedup_best": stock_seconds / best_seconds,
        "within_2meV": float((np.abs(fire_gap[valid]) < 2e-3).mean()),
        "best_not_higher": float((best_gap[valid] < 2e-3).mean()),
        "steps_package": float(np.mean([steps for _, steps, _ in stock])),
        "steps_fire": float(np.mean([r.steps for r in fire])),
        "steps_best": float(np.mean([r.steps for r in best])),
        "converged_package": float(np.mean([converged for _, _, converged in stock])),
        "converged_fire": float(np.mean([r.converged for r in fire])),
        "converged_best": float(np.mean([r.converged for r in best])),
    }
    record = {
        "summary": summary,
        "host": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": "cpu, one core",
        "sizes": [len(crystal) for crystal in crystals],
        "settings": RelaxSettings().model_dump(),
        "fire": describe(fire, fire_seconds),
        "lbfgs": describe(best, best_seconds),
        "package": {"seconds": stock_seconds, "energies": reference.tolist(), "steps": [row[1] for row in stock]},
    }
    args.json.write_text(json.dumps(record, indent=1))
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
