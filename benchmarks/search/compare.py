"""Search one chemical system with several strategies for the same CPU time, and compare the results.

python benchmarks/search/compare.py --system Li-Si --seeds 3 --seconds 300 --json li-si.json
    [--formulas ZnP2S6 Zn2P2S7] [--max-atoms 12] [--guests Zn] [--volume 24] [--contenders papers full ...]
    [--patience 3] [--phases structures.parquet]

All strategies have the same potential, reference, score model, screening and relaxation, one process, one thread, and
the same CPU seconds (in total: planning, sampling, relaxation, symmetry). The known phases of the system are hidden
from all of them. All but `papers` use the same samplers:

    random       random sensible crystals with symmetry and minimum distances, relaxed (AIRSS)
    ion_substitution
                 known prototypes with substituted elements
    diffusion    unconditional diffusion
    papers       unconditional diffusion, frameworks, three inpaintings each, no feedback (CHGGen), with its sampler:
                 200 levels, 5 correctors, r 3, j 10
    stages       the same with our sampler
    off          all generators, equal shares
    on           all generators except those on orbits of the host; the policy distributes the budget, and stops
                 unpromising relaxations early
    full         the same with all generators: what `hostguide search` does

If both `full` and `off` take part, `off` then continues until it gets as low as `full` did, for at most `patience`
times the seconds.

Runs are stored in a folder next to the JSON file and resumed, so a longer --seconds continues a shorter one. --phases
gives a file with the columns of `hostguide benchmark reconstruct`; known phases of the system are then searched for
among the results.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition

from model.crystals.composition import parse_system
from model.crystals.crystal import Crystal
from model.crystals.matching import DistinctCrystals
from model.crystals.parquet import read_crystals
from model.generators.registry import GENERATORS, starting_from
from model.generators.roles import Start
from search.benchmark.timed_search import TimedSearch
from search.config import SearchConfig
from search.config_file import check_config
from search.storage.rows import Row, Status

WINDOW = 0.05  # eV/atom
LOW_SYMMETRY = {"Li-Si": (1, 2, 6)}  # groups that the paper does not count as symmetric; P1 and P-1 elsewhere
CONTENDERS: dict[str, tuple[tuple[str, ...], bool]] = {
    "random": (("random",), False),
    "ion_substitution": (("ion_substitution",), False),
    "diffusion": (("diffusion",), False),
    "papers": (("diffusion", "inpainting"), False),
    "stages": (("diffusion", "inpainting"), False),
    "off": (tuple(GENERATORS), False),
    "on": (tuple(name for name in GENERATORS if name not in ("symmetric", "subgroup")), True),
    "full": (tuple(GENERATORS), True),
}
PIPELINE = ("papers", "stages")
SINGLE = ("random", "ion_substitution", "diffusion")


def main() -> None:
    """Run all strategies and write the table and the results."""
    arguments = _arguments()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    folder = arguments.json.with_suffix("")
    phases = known_phases(arguments.phases, arguments.system, arguments.max_atoms) if arguments.phases else {}
    outcomes: dict[str, list[dict[str, Any]]] = {name: [] for name in arguments.contenders}
    delays: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        runs: dict[str, TimedSearch] = {}
        for name in arguments.contenders:
            config = configuration(name, seed, arguments)
            runs[name] = TimedSearch(config, folder / f"{name}-{seed}")
            runs[name].search(arguments.seconds)
            outcomes[name].append(assess(runs[name].within(arguments.seconds), phases, arguments.system))
            print(f"{name} seed {seed}: {_line(outcomes[name][-1])}", flush=True)
        if "full" in runs and "off" in runs and outcomes["full"][-1]["best_e_d"] is not None:
            delays.append(delay(outcomes["full"][-1], runs["off"], arguments.patience * arguments.seconds))
            more = "" if delays[-1]["reached"] else "more than "
            print(f"off seed {seed}: as low as full after {more}{delays[-1]['times']:.2f} times as long", flush=True)
    figures = {
        "system": arguments.system,
        "seconds": arguments.seconds,
        "seeds": arguments.seeds,
        "phases": {name: crystal.formula for name, crystal in phases.items()},
        "contenders": outcomes,
        "off_delays": delays,
        "summary": {
            **summarise(outcomes),
            "off_delay": float(np.median([one["times"] for one in delays])) if delays else None,
        },
    }
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(table(outcomes, len(phases)))
    print(json.dumps(figures["summary"], indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", required=True, help="elements joined by hyphens")
    parser.add_argument("--formulas", nargs="*", default=[], help="only these reduced formulas")
    parser.add_argument("--max-atoms", type=int, default=12)
    parser.add_argument("--guests", nargs="*", default=[])
    parser.add_argument("--volume", type=float, help="Å³/atom; estimated from known phases when left out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=300, help="CPU seconds a contender and seed")
    parser.add_argument(
        "--patience", type=float, default=3, help="times the seconds that off has to come as low as full"
    )
    parser.add_argument("--contenders", nargs="*", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--phases", type=Path, help="Parquet of known crystals; their rediscovery is timed")
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    elements = "-".join(sorted(parse_system(arguments.system)))
    arguments.system = elements
    return arguments


def configuration(name: str, seed: int, arguments: argparse.Namespace) -> SearchConfig:
    """The configuration of one strategy."""
    generators, feedback = CONTENDERS[name]
    compositions: dict[str, Any] = {"max_atoms": arguments.max_atoms}
    compositions |= {"formulas": arguments.formulas} if arguments.formulas else {"system": arguments.system}
    builds = not set(generators) <= set(starting_from(Start.NOTHING))
    content = {
        "name": name,
        "seed": seed,
        "blind": True,
        "compositions": compositions,
        "generators": generators,
        "lattices": {"volume_per_atom": arguments.volume},
        "library": {"without_systems": [arguments.system]},
        "relaxation": {"optimizer": "lbfgs", "fmax": 0.05, "max_steps": 200, "keep_symmetry": True},
        "frameworks": {"guests": arguments.guests or None, **({"guest_count_range": 0} if name in PIPELINE else {})},
        "policy": {
            "rounds": 10**6,
            "candidates_per_round": 32,
            "new_share": 0.5 if builds else 1.0,
            "rounds_ahead": 0,
            "batch": 8 if name == "papers" else 32,  # its sampler is slow: so more is done in time
            "feedback": feedback,
        },
    }
    if name == "papers":
        content["sampling"] = {part: {"kind": "predictor-corrector"} for part in ("diffusion", "inpainting")}
    return check_config(content, source=name)


# --- what was found -----------------------------------------------------------------------------------------------


def known_phases(path: Path, system: str, max_atoms: int) -> dict[str, Crystal]:
    """Phases of exactly this system within 30 meV/atom of the hull that fit the atom budget, by identifier."""
    frame = pd.read_parquet(path)
    frame = frame[(frame["n_atoms"] <= max_atoms) & (frame["e_above_hull"] < 0.03)]
    elements = set(system.split("-"))
    frame = frame[[{str(e) for e in Composition(formula).elements} == elements for formula in frame["formula"]]]
    return dict(zip(frame["material_id"].astype(str), read_crystals(frame), strict=True))


def assess(found: Sequence[tuple[float, Row]], phases: dict[str, Crystal], system: str) -> dict[str, Any]:
    """Statistics of one run."""
    relaxed = [(at, row) for at, row in found if row.status == Status.RELAXED]
    best = list(_improvements(relaxed))
    distinct = list(_new_below(relaxed))
    return {
        "candidates": len(found),
        "relaxed": len(relaxed),
        "seconds": found[-1][0] if found else 0.0,
        "best_e_d": best[-1][1] if best else None,
        "seconds_to_best": best[-1][0] if best else None,
        "best_curve": best,
        "distinct": len(distinct),
        "distinct_curve": [(at, number) for number, at in enumerate(distinct, start=1)],
        "best_by_formula": _best_by_formula(relaxed),
        "median_e_d": float(np.median([row.e_d for _, row in relaxed])) if relaxed else None,
        "symmetric": _symmetric(relaxed, LOW_SYMMETRY.get(system, (1, 2))),
        "generators": _shares(found),
        "rediscovered": rediscovered(relaxed, phases),
    }


def _improvements(relaxed: Sequence[tuple[float, Row]]) -> Iterator[tuple[float, float]]:
    best = np.inf
    for at, row in relaxed:
        if row.e_d < best - 1e-3:
            best = row.e_d
            yield at, best


def _new_below(relaxed: Sequence[tuple[float, Row]]) -> Iterator[float]:
    """CPU seconds of every crystal below the window that the matcher finds new."""
    known = DistinctCrystals()
    for at, row in relaxed:
        if row.e_d < WINDOW and known.add(row.final.crystal) is None:
            yield at


def _best_by_formula(relaxed: Sequence[tuple[float, Row]]) -> dict[str, float]:
    best: dict[str, float] = {}
    for _, row in relaxed:
        best[row.formula] = min(row.e_d, best.get(row.formula, np.inf))
    return dict(sorted(best.items(), key=lambda item: item[1]))


def _symmetric(relaxed: Sequence[tuple[float, Row]], low: Sequence[int]) -> dict[str, float]:
    """Share of relaxed crystals above the low groups, by generator."""
    flags: dict[str, list[bool]] = {}
    for _, row in relaxed:
        flags.setdefault(row.generator, []).append((row.space_group_number or 1) not in low)
    return {method: float(np.mean(some)) for method, some in sorted(flags.items())}


def _shares(found: Sequence[tuple[float, Row]]) -> dict[str, int]:
    counts = pd.Series([row.generator for _, row in found]).value_counts()
    return {str(method): int(number) for method, number in counts.items()}


def rediscovered(relaxed: Sequence[tuple[float, Row]], phases: dict[str, Crystal]) -> dict[str, dict[str, Any]]:
    """Known phases that were found: identifier -> CPU seconds, E_d and space group of the first matching crystal."""
    matcher = StructureMatcher()
    found: dict[str, dict[str, Any]] = {}
    structures = {name: crystal.to_pymatgen() for name, crystal in phases.items()}
    for at, row in relaxed:
        for name, phase in structures.items():
            if name in found or phases[name].formula != row.formula or row.e_d > 2 * WINDOW:
                continue
            if matcher.fit(phase, row.final.crystal.to_pymatgen()):
                about = {"formula": row.formula, "e_d": row.e_d, "space_group": row.space_group}
                found[name] = {"seconds": at, **about}
    return found


def summarise(outcomes: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Ratios of the full search to the others, medians over the seeds; None if a strategy did not take part."""
    return {
        "distinct_vs_best_single": _ratio(outcomes, "full", SINGLE),
        "distinct_vs_papers": _ratio(outcomes, "full", ("papers",)),
        "distinct_vs_stages": _ratio(outcomes, "full", ("stages",)),
        "distinct_vs_random": _ratio(outcomes, "full", ("random",)),
        "distinct_vs_off": _ratio(outcomes, "full", ("off",)),
    }


def _ratio(outcomes: dict[str, list[dict[str, Any]]], name: str, others: Sequence[str]) -> float | None:
    """Median over seeds of distinct crystals of ``name`` over those of the best other; None if one is missing."""
    if any(not outcomes.get(contender) for contender in (name, *others)):
        return None
    ratios = [
        one["distinct"] / max(1, *(outcomes[other][seed]["distinct"] for other in others))
        for seed, one in enumerate(outcomes[name])
    ]
    return float(np.median(ratios))


def delay(full: dict[str, Any], off: TimedSearch, budget: float) -> dict[str, Any]:
    """How many times longer `off` needs to get as low as the full search, and whether it did.

    It has the CPU seconds of ``budget``; if these are too few, the true delay is larger than the returned one.
    """
    goal = full["best_e_d"] + 1e-3

    def as_low(row: Row) -> bool:
        return row.e_d is not None and row.e_d <= goal

    off.search(budget, wanted=as_low)
    at = off.reached(as_low)
    return {"times": (off.ends[-1] if at is None else at) / full["seconds_to_best"], "reached": at is not None}


def _line(figures: dict[str, Any]) -> str:
    best = "-" if figures["best_e_d"] is None else f"{1e3 * figures['best_e_d']:.1f}"
    return (
        f"{figures['candidates']} candidates, {figures['distinct']} distinct below {1e3 * WINDOW:.0f} meV/atom, "
        f"best {best} meV/atom, {len(figures['rediscovered'])} known phases"
    )


def table(outcomes: dict[str, list[dict[str, Any]]], looked_for: int) -> str:
    """Markdown table of medians over the seeds, with the spread in brackets, and of known phases if requested."""
    columns = {
        "candidates": ("candidates", 1, 0),
        "relaxed": ("relaxed", 1, 0),
        f"distinct, E_d < {1e3 * WINDOW:.0f} meV/atom": ("distinct", 1, 0),
        "best E_d, meV/atom": ("best_e_d", 1e3, 1),
        "CPU s to best": ("seconds_to_best", 1, 0),
        "median E_d, meV/atom": ("median_e_d", 1e3, 0),
    }
    lines = ["| | " + " | ".join([*columns, "known phases"]) + " |", "|---|" + "---|" * (len(columns) + 1)]
    for name, runs in outcomes.items():
        cells = [_cell([run[key] for run in runs], scale, digits) for key, scale, digits in columns.values()]
        cells.append(_cell([len(run["rediscovered"]) for run in runs], 1, 0) if looked_for else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float | None], scale: float, digits: int) -> str:
    known = [scale * value for value in values if value is not None]
    if not known:
        return "-"
    spread = "" if len(known) == 1 else f" ({min(known):.{digits}f} to {max(known):.{digits}f})"
    return f"{np.median(known):.{digits}f}{spread}"


if __name__ == "__main__":
    main()
