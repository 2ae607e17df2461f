"""Tune samplers on validation crystals: the reconstruction task with the same crystals and weights for all.

    python benchmarks/samplers.py --data structures.parquet --json samplers.json [--limit 40] [--samples 4]

The crystals are those of split ``val`` that resemble the test split: near the hull, with an anion and one of Li, Na, Mg
and Ca, at least three elements. They are written next to the results. Finished cases are stored; rerun the same command
to resume. The test split is not used here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from pymatgen.core import Element

from search.commands.models.benchmark import reconstruct

GUESTS = ("Li", "Na", "Mg", "Ca")
ANIONS = ("O", "S", "Se", "Te", "F", "Cl", "Br", "I", "N", "P")
METHODS = (
    "ancestral",
    "ancestral:temperature=0.7",
    "ancestral:temperature=0.5",
    "ancestral:temperature=0.3",
    "ancestral:temperature=0.2",
    "ancestral:temperature=0.05",
    "ancestral:rho=5,sigma_max=5",
    "ancestral:sigma_max=2",
    "ancestral:rho=2",
    "voids+ancestral:sigma_max=1",
    "symmetric+ancestral",
    "heun",
)


def ionic_cases(data: Path, limit: int) -> pd.DataFrame:
    """Rows of split ``val`` with a guest, at most ``limit`` per guest element, the same in every call."""
    frame = pd.read_parquet(data)
    frame = frame[(frame["split"] == "val") & (frame["n_atoms"] <= 60) & (frame["e_above_hull"] < 0.005)]
    anions = {Element(symbol).Z for symbol in ANIONS}
    parts = []
    for guest in GUESTS:
        number = Element(guest).Z
        kinds = [set(numbers) for numbers in frame["atomic_numbers"]]
        fit = np.array([number in kind and len(kind) >= 3 and bool(kind & anions) for kind in kinds])
        chosen = frame[fit].sample(frac=1.0, random_state=0).head(limit)
        parts.append(chosen.assign(guest=guest))
    return pd.concat(parts, ignore_index=True)


def main() -> None:
    """Run all methods and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--method", action="append", help="as of `hostguide benchmark reconstruct`; may be repeated")
    parser.add_argument("--limit", type=int, default=40, help="crystals a guest")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--weights")
    parser.add_argument("--rank", action="store_true", help="rank by CHGNet as well")
    parser.add_argument("--shard", default="1/1")
    options = parser.parse_args()
    cases = options.json.with_suffix(".parquet")
    ionic_cases(options.data, options.limit).to_parquet(cases)
    reconstruct(
        cases,
        split="val",
        method=options.method or list(METHODS),
        samples=options.samples,
        rank=options.rank,
        residual=True,
        train=options.data,
        weights=options.weights,
        shard=options.shard,
        json_file=options.json,
    )


if __name__ == "__main__":
    main()
