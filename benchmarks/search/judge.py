"""What a judge in the search is worth: the same CPU time with and without it, blind.

    python benchmarks/search/judge.py --system Na-Ge --judge 7net-l3i5 --seconds 600 --json judge.json

Both searches look for crystals within 20 meV/atom of the hull. They run in this process, one after the other, and stop
after this CPU time, judging included. Afterwards the judge relaxes the ten first crystals of each list, and without a
judge the ``--listed`` first, to count how many lie within 20 meV/atom of its own hull: crystals that are distinct after
its relaxation. With the judge, the difference between what was expected and what it said tests its correction: mean
error, and the standard deviation in units of the error bar.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from model.crystals.crystal import Crystal
from model.crystals.matching import RELAXED, DistinctCrystals
from model.potentials.catalog import load_potential
from model.thermodynamics.judge import Judgement, judge
from model.thermodynamics.reference import Reference
from model.thermodynamics.stability import Stability
from search.config import SearchConfig
from search.config_file import check_config
from search.planning.prepare import load_judge_reference, load_reference
from search.running.pipeline import load_stages, search_here
from search.storage.ranking import rank
from search.storage.results import ResultStore, load_results
from search.storage.rows import unpack_or_raise

NEAR = 0.02  # eV/atom above the judge's hull
TOP = 10
SECONDS = ("seconds_generate", "seconds_relax", "seconds_analyse", "seconds_judge")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", required=True)
    parser.add_argument("--judge", default="7net-l3i5")
    parser.add_argument("--max-atoms", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--listed", type=int, default=50)
    parser.add_argument("--folder", type=Path, default=Path("runs/judge"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = {name: measured(arguments, judging=name == "with") for name in ("without", "with")}
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps({"arguments": vars(arguments), **found}, indent=2, default=str) + "\n")


def settings(arguments: argparse.Namespace, *, judging: bool) -> SearchConfig:
    content: dict[str, Any] = {
        "name": arguments.system.lower(),
        "seed": arguments.seed,
        "blind": True,
        "compositions": {"system": arguments.system, "max_atoms": arguments.max_atoms},
        "policy": {"rounds": 10_000, "batch": 16, "rounds_ahead": 0, "energy_window": NEAR},
    }
    if judging:
        content["judge"] = {"potential": arguments.judge}
    return check_config(content, source="benchmark")


def measured(arguments: argparse.Namespace, *, judging: bool) -> dict[str, Any]:
    config = settings(arguments, judging=judging)
    reference = load_reference(config)
    own = load_judge_reference(settings(arguments, judging=True))
    assert own is not None
    store = ResultStore(arguments.folder / f"{arguments.system}-{arguments.seed}-{'with' if judging else 'without'}")
    stages = load_stages(config, reference, own if judging else None)
    began = time.process_time()
    for _ in search_here(config, reference, store, stages):
        if time.process_time() - began > arguments.seconds:
            break
    spent = time.process_time() - began
    frame = load_results(store.folder.parent)
    listed = rank(frame, top=TOP if judging else arguments.listed)
    said = _by_judge(listed, arguments.judge, own, config)
    first = [one for one in said[:TOP] if one.e_d <= NEAR]
    if judging:
        judged = frame[frame["e_d_judge"] <= NEAR].sort_values("e_d_judge")
        near = _distinct([unpack_or_raise(value) for value in judged["final_judge"]], judged["energy_judge"])
    else:
        low = sorted((one for one in said if one.e_d <= NEAR), key=lambda one: one.e_d)
        near = _distinct([one.crystal for one in low], [one.energy for one in low])
    e_d = [one.e_d for one in said[:TOP]]
    return {
        "candidates": len(frame),
        "cpu_seconds": spent,
        "top_within_20_mev": len(first),
        "top_distinct": _distinct([one.crystal for one in first], [one.energy for one in first]),
        "top_by_judge": [round(1e3 * value, 1) for value in e_d],
        "top_formulas": listed["formula"].head(TOP).tolist(),
        "order": float(pd.Series(e_d).corr(pd.Series(range(len(e_d))), method="spearman")),
        "near": near,
        "near_per_cpu_second": near / spent,
        **(_correction(frame) if judging else {}),
    }


def _by_judge(rows: pd.DataFrame, name: str, own: Reference, config: SearchConfig) -> list[Judgement]:
    crystals = [unpack_or_raise(value) for value in rows["final"]]
    return judge(crystals, load_potential(name), Stability(own, config.compositions.elements))


def _distinct(crystals: Iterable[Crystal], energies: Iterable[float]) -> int:
    """How many of these crystals of a judge differ."""
    known = DistinctCrystals(RELAXED)
    return sum(known.add(one, energy=energy) is None for one, energy in zip(crystals, energies, strict=True))


def _correction(frame: pd.DataFrame) -> dict[str, Any]:
    """Errors of what was expected, once twenty crystals had been judged."""
    judged = frame.dropna(subset=["e_d_judge"]).sort_values("candidate").iloc[20:]
    error = judged["e_d_judge"] - judged["e_d_expected"]
    before = judged["e_d_judge"] - judged["e_d"]
    return {
        "judged": len(judged) + 20,
        "expected_mean_error": float(error.abs().mean()),
        "fast_mean_error": float(before.abs().mean()),
        "error_in_error_bars": float((error / judged["e_d_expected_error"]).std()),
        "judge_share_of_seconds": float(frame["seconds_judge"].sum() / frame[list(SECONDS)].sum().sum()),
    }


if __name__ == "__main__":
    main()
