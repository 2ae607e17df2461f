"""Powder patterns: is the crystal, or the pair of a mixture, first among fifty candidates?

    python -m benchmarks.cases.patterns --sets 20 --json patterns.json

A set is 50 known phases of four randomly drawn elements, as a chemical system has them. From each set five
patterns of one crystal and five of a mixture (60 to 40 in height) are simulated: cells 1.5 % too large or too small,
intensities changed by 0.6 to 1.6 times as by texture, counting noise, and a background with a hump. ``single`` and
``pairs`` in ``summary`` are the shares in which the crystal, and the pair, came first.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from model.crystals.crystal import Crystal
from model.library.phases import packaged_library
from model.verification.pattern_match import rank_patterns
from tests.support.patterns import measured

CANDIDATES, PATTERNS, MOST_ATOMS, ELEMENTS_OF_A_SET = 50, 5, 60, 4
ELEMENTS = "Li-Na-K-Mg-Ca-Ba-Al-Si-P-S-Cl-O-F-N-Ti-V-Mn-Fe-Co-Ni-Cu-Zn-Ge-Se-Sn-Sb-Te"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for number in range(arguments.sets):
        rows += _tried(number, np.random.default_rng([arguments.seed, number]))
        print(json.dumps(_summary(rows)), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"summary": _summary(rows), "patterns": rows}, indent=1) + "\n")


def _tried(number: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    names, crystals = _candidates(rng)
    rows = []
    for k in range(2 * PATTERNS):
        places = rng.choice(CANDIDATES, size=1 + k % 2, replace=False).tolist()
        parts = list(zip([crystals[place] for place in places], [0.6, 0.4], strict=False))
        began = time.process_time()
        ranking = rank_patterns(crystals, measured(parts, seed=1000 * number + k), mixtures=len(places) == 2)
        order = [set(one.crystals) for one in (ranking.single if len(places) == 1 else ranking.pairs)]
        rank = order.index(set(places)) + 1 if set(places) in order else None
        seconds = time.process_time() - began
        rows.append({"set": number, "crystals": [names[i] for i in places], "rank": rank, "cpu_seconds": seconds})
    return rows


def _candidates(rng: np.random.Generator) -> tuple[list[str], list[Crystal]]:
    """Identifiers and crystals of 50 phases of one system."""
    while True:
        phases = packaged_library().phases(
            rng.choice(ELEMENTS.split("-"), size=ELEMENTS_OF_A_SET, replace=False).tolist()
        )
        phases = [one for one in phases if len(one.crystal) <= MOST_ATOMS]
        if len(phases) >= CANDIDATES:
            drawn = [phases[i] for i in rng.choice(len(phases), size=CANDIDATES, replace=False)]
            return [one.material_id for one in drawn], [one.crystal for one in drawn]


def _summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    single = [row["rank"] == 1 for row in rows if len(row["crystals"]) == 1]
    pairs = [row["rank"] == 1 for row in rows if len(row["crystals"]) == 2]
    seconds = float(np.median([row["cpu_seconds"] for row in rows]))
    return {"patterns": len(rows), "single": np.mean(single), "pairs": np.mean(pairs), "cpu_seconds_median": seconds}


if __name__ == "__main__":
    main()
