"""Compare samplers on the papers' reconstruction task, side by side on the same crystals and weights.

python benchmarks/samplers.py --data structures.parquet [--split val] [--limit 15] [--samples 4] [--json OUT]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from pymatgen.core import Element

from model.dataset import read_crystals
from model.sampler import HeunSettings, PredictorCorrectorSettings
from model.stages import Generator
from search.reconstruct import Case, reconstruct, summarise

SAMPLERS = {
    "heun 12": HeunSettings(steps=12),
    "heun 16 (default)": HeunSettings(),
    "heun 20": HeunSettings(steps=20),
    "heun 16, from 5 Å": HeunSettings(sigma_max=5.0, rho=5.0, churn_between=(0.3, 3.0)),
    "predictor-corrector, T 60, M 1, r 2, j 10": PredictorCorrectorSettings(
        steps=60, correctors=1, snr=0.2, resamples=2, jump=10, sigma_min=0.01, sigma_max=5.0
    ),
}


def stable_cases(data: Path, split: str, limit: int) -> list[Case]:
    """Crystals on the hull with at least three elements, up to 32 atoms, ``limit`` a guest element."""
    frame = pd.read_parquet(data)
    frame = frame[(frame["split"] == split) & (frame["n_atoms"] <= 32) & (frame["e_above_hull"] < 1e-6)]
    cases = []
    for guest in ("Li", "Na", "Mg", "Ca"):
        number = Element(guest).Z
        holds = [number in set(numbers) and len(set(numbers)) >= 3 for numbers in frame["atomic_numbers"]]
        chosen = frame[holds].sample(frac=1.0, random_state=0).head(limit)
        names = chosen["material_id"]
        cases += [Case(str(n), c, guest) for n, c in zip(names, read_crystals(chosen), strict=True)]
    return cases


def main() -> None:
    """Run all samplers and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--limit", type=int, default=15)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases, generator = stable_cases(arguments.data, arguments.split, arguments.limit), Generator(device="cpu")
    figures = {}
    for name, settings in SAMPLERS.items():
        figures[name] = summarise(reconstruct(cases, generator, settings, samples=arguments.samples))["summary"]
        shown = {key: round(value, 3) for key, value in figures[name].items() if value is not None}
        print(f"{name:<45} {shown}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"summary": figures, "cases": len(cases)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
