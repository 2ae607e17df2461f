"""Perturbed and broken crystals of ten kinds, and what a relaxation says of them that cannot be true."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from ase.build import bulk
from numpy.random import Generator

from model.crystals.crystal import Crystal
from model.potentials.interface import Potential
from model.relaxation.relax import Relaxation, RelaxSettings, may_be_ranked, relax
from tests.support.reasons import RELAXED

SETTINGS = RelaxSettings(optimizer="lbfgs", max_steps=30, max_seconds=60)
TOGETHER = 50
PATIENCE = 30.0  # seconds beyond the time of a crystal
ELEMENTS = 94  # that CHGNet knows

KNOWN = [
    Crystal.from_ase(atoms)
    for atoms in (
        bulk("NaCl", "rocksalt", a=5.64), bulk("Si", "diamond", a=5.43, cubic=True), bulk("Mg"), bulk("Fe"),
        bulk("CaF2", "fluorite", a=5.46), bulk("GaN", "wurtzite", a=3.19),
    )
]  # fmt: skip


def known(rng: Generator) -> Crystal:
    """A known structure, with elements of any kind in the size that they had."""
    crystal = KNOWN[rng.integers(len(KNOWN))]
    kinds, place = np.unique(crystal.numbers, return_inverse=True)
    return crystal.replace(numbers=rng.integers(1, ELEMENTS + 1, len(kinds))[place])


def shaken(rng: Generator) -> Crystal:
    crystal = known(rng)
    lattice = crystal.lattice @ (np.eye(3) + rng.normal(0, 0.15, (3, 3)))
    noise = rng.normal(0, 0.4, (len(crystal), 3)) @ np.linalg.inv(lattice)
    return crystal.replace(lattice=lattice, fractional=crystal.fractional + noise)


def fused(rng: Generator) -> Crystal:
    crystal = known(rng)
    fractional = np.vstack([crystal.fractional, crystal.fractional[:1] + rng.choice([0.0, 1e-9, 0.01, 0.1])])
    return Crystal(crystal.lattice, fractional, [*crystal.numbers, rng.integers(1, ELEMENTS + 1)])


def needle(rng: Generator) -> Crystal:
    lengths = rng.permutation([10 ** rng.uniform(-3, 0.5), rng.uniform(1, 4), 10 ** rng.uniform(1, 5)])
    return Crystal(np.diag(lengths), rng.random((2, 3)), rng.integers(1, ELEMENTS + 1, 2))


def slab(rng: Generator) -> Crystal:
    crystal = known(rng)
    scale = np.diag([1, 1, 1 + rng.uniform(10, 30) / np.linalg.norm(crystal.lattice[2])])
    return crystal.replace(lattice=scale @ crystal.lattice, fractional=crystal.fractional @ np.linalg.inv(scale))


def single(rng: Generator) -> Crystal:
    return Crystal(np.eye(3) * 10 ** rng.uniform(-0.5, 3), rng.normal(0, 1e3, (1, 3)), [rng.integers(1, 119)])


def element(rng: Generator) -> Crystal:
    crystal = known(rng)
    return crystal.replace(lattice=crystal.lattice * rng.uniform(0.8, 1.4))


def not_finite(rng: Generator) -> Crystal:
    crystal = known(rng)
    lattice, fractional = crystal.lattice.copy(), crystal.fractional.copy()
    target = lattice if rng.random() < 0.5 else fractional
    target[rng.integers(len(target)), rng.integers(3)] = rng.choice([np.nan, np.inf, -np.inf, 1e300])
    return crystal.replace(lattice=lattice, fractional=fractional)


def flat(rng: Generator) -> Crystal:
    crystal = known(rng)
    lattice = crystal.lattice.copy()
    lattice[2] = lattice[0] + lattice[1] + rng.normal(0, 1, 3) * rng.choice([0.0, 1e-6, 1e-3, 0.3])
    return crystal.replace(lattice=lattice)


def skewed(rng: Generator) -> Crystal:
    crystal = known(rng)
    shear = np.eye(3, dtype=int)
    shear[1, 0], shear[2, 1] = rng.integers(-30, 31, 2)
    lattice = shear @ crystal.lattice
    return crystal.replace(lattice=lattice, fractional=crystal.cartesian @ np.linalg.inv(lattice))


def crowded(rng: Generator) -> Crystal:
    count = int(rng.integers(2, 13))
    return Crystal(np.eye(3) * rng.uniform(1.5, 6), rng.random((count, 3)), rng.integers(1, ELEMENTS + 1, count))


KINDS: tuple[Callable[[Generator], Crystal], ...] = (
    shaken, fused, needle, slab, single, element, not_finite, flat, skewed, crowded,
)  # fmt: skip


def broken(index: int) -> Crystal:
    """Crystal number ``index``, of kind ``index`` modulo ten."""
    return KINDS[index % len(KINDS)](np.random.default_rng(index))


def contradiction(result: Relaxation, settings: RelaxSettings) -> str:
    """What a result says that cannot be true; empty if nothing."""
    if result.reason not in RELAXED:
        return f"unknown reason {result.reason!r}"
    if result.converged != (result.reason == "converged"):
        return f"converged={result.converged} for the reason {result.reason}"
    if result.converged and not result.max_force < settings.fmax:
        return f"converged with {result.max_force} eV/Å"
    sound = np.isfinite(result.energy_final) and np.isfinite(result.final.cartesian).all()
    return f"{result.reason}, but energy or structure are not finite" if may_be_ranked(result) and not sound else ""


def new_record() -> dict[str, Any]:
    """What came of no crystals."""
    faults: dict[str, Any] = {"crashes": [], "contradictions": [], "hangs": []}
    return {"done": 0, "seconds": 0.0, "outcomes": {}, **faults}


def advance(record: dict[str, Any], stop: int, potential: Potential) -> None:
    """Relax the next crystals, and add to the record what came of them."""
    start = record["done"]
    indices = range(start, min(start + TOGETHER, stop))
    began = time.monotonic()
    try:
        results = relax([broken(i) for i in indices], potential, SETTINGS)
    except Exception:
        record["crashes"].append({"from": start, "to": indices.stop, "error": traceback.format_exc()})
        results = []
    seconds = time.monotonic() - began
    for index, result in zip(indices, results, strict=False):
        outcomes = record["outcomes"].setdefault(KINDS[index % len(KINDS)].__name__, {})
        outcomes[result.reason] = outcomes.get(result.reason, 0) + 1
        if wrong := contradiction(result, SETTINGS):
            record["contradictions"].append({"crystal": index, "what": wrong})
        if result.seconds > SETTINGS.max_seconds + PATIENCE:
            record["hangs"].append({"crystal": index, "seconds": result.seconds})
    record["done"], record["seconds"] = indices.stop, record["seconds"] + seconds


def summarise(record: dict[str, Any]) -> dict[str, Any]:
    reasons: Counter[str] = Counter()
    for outcomes in record["outcomes"].values():
        reasons.update(outcomes)
    faults = {key: len(record[key]) for key in ("crashes", "contradictions", "hangs")}
    return {"crystals": record["done"], "reasons": dict(reasons.most_common()), **faults, "seconds": record["seconds"]}
