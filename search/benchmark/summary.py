"""Statistics of the reconstruction benchmark: success rates by guest element, by bin and by ranking criterion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from search.benchmark.reconstruct import Placement, Record

SUMMARY = ("raw_match", "ranked_match", "oracle_match", "rmse_median", "evaluations", "seconds_per_sample")
ATOMS = ((0, 10), (10, 20), (20, 40), (40, 10**6))
FRACTIONS = ((0.0, 0.1), (0.1, 0.2), (0.2, 0.4), (0.4, 1.0))
CLEARLY = 1e-3  # eV/atom, by which another arrangement must lie below the original to be called preferred


def summarise(records: Iterable[Record]) -> dict[str, Any]:
    """All statistics of one method: by guest element (``guests``), their mean (``summary``), and by bin (``bins``)."""
    records = list(records)
    groups: dict[str, list[Record]] = {}
    for one in records:
        groups.setdefault(one.guest, []).append(one)
    guests = {guest: figures(some) for guest, some in sorted(groups.items())}
    keys = {key: None for one in guests.values() for key in one if key != "cases"}
    return {
        "summary": {key: _mean([one.get(key) for one in guests.values()]) for key in keys},
        "guests": guests,
        "bins": _bins(records),
    }


def figures(records: Sequence[Record]) -> dict[str, Any]:
    """Success rates and medians of some cases. Values that were not measured are None.

    - raw_match, raw_match_std: of single attempts, mean and standard deviation over the runs (run i consists of the
      i-th attempts; a requested attempt that was not made is a failure).
    - ranked_match: the crystal of lowest energy after its guests have relaxed.
    - ranked_single_point, ranked_residual: the raw crystal of lowest single-point energy, and of lowest residual.
    - oracle_match: at least one raw attempt matches; oracle_relaxed: at least one after relaxation.
    - potential_prefers_other: no match although the best lies more than 1 meV/atom below the original, relaxed alike:
      it is the potential that disagrees. not_recovered: no match, and the best lies above the original.
    - unfinished: guests-only relaxations that ran out of steps.
    """
    runs = np.array(
        [[*(a.matched for a in one.attempts), *[False] * (one.samples - len(one.attempts))] for one in records]
    )
    attempts = [a for one in records for a in one.attempts]
    rmse = [a.rmse for a in attempts if a.rmse is not None]
    return {
        "cases": len(records),
        "raw_match": float(runs.mean()),
        "raw_match_std": float(runs.mean(axis=0).std()),
        "ranked_match": _ranked(records, lambda a: a.relaxed, lambda a: bool(a.relaxed_matched)),
        "ranked_single_point": _ranked(records, lambda a: a.single_point, lambda a: a.matched),
        "ranked_residual": _ranked(records, lambda a: a.residual, lambda a: a.matched),
        "oracle_match": float(runs.any(axis=1).mean()),
        "oracle_relaxed": _mean(
            [any(a.relaxed_matched for a in one.attempts) for one in records if one.original is not None]
        ),
        "rmse_median": float(np.median(rmse)) if rmse else None,
        "rmse_ranked_median": _quantile([best.relaxed_rmse for one in records if (best := _best(one))], 0.5),
        "potential_prefers_other": _mean([_verdict(one) == "preferred" for one in records if one.original is not None]),
        "not_recovered": _mean([_verdict(one) == "in vain" for one in records if one.original is not None]),
        "unfinished": _mean([not a.converged for a in attempts if a.converged is not None]),
        "max_force_median": _quantile([one.max_force for one in records], 0.5),
        "max_force_75": _quantile([one.max_force for one in records], 0.75),
        "energy_drop_median": _quantile([one.energy_drop for one in records], 0.5),
        "energy_drop_75": _quantile([one.energy_drop for one in records], 0.75),
        "evaluations": float(np.mean([one.evaluations for one in records])),
        "seconds_per_sample": float(np.mean([one.seconds for one in records])),
    }


def _ranked(
    records: Sequence[Record], key: Callable[[Placement], float | None], good: Callable[[Placement], bool]
) -> float | None:
    """Share of cases whose attempt of lowest key is good; None if no attempt has a key."""
    if all(key(a) is None for one in records for a in one.attempts):
        return None
    return float(np.mean([good(best) if (best := _lowest(one, key)) else False for one in records]))


def _lowest(record: Record, key: Callable[[Placement], float | None]) -> Placement | None:
    known = [(value, index) for index, a in enumerate(record.attempts) if (value := key(a)) is not None]
    return record.attempts[min(known)[1]] if known else None


def _best(record: Record) -> Placement | None:
    return _lowest(record, lambda a: a.relaxed)


def _verdict(record: Record) -> str:
    best = _best(record)
    if best is None or best.relaxed is None or record.original is None:
        return "in vain"
    if best.relaxed_matched:
        return "matched"
    return "preferred" if best.relaxed < record.original - CLEARLY else "in vain"


def _bins(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Number of cases and success rates by number of atoms, guest fraction, and whether the host is new."""
    chosen: dict[str, list[Record]] = {}
    for low, high in ATOMS:
        name = f"atoms {low + 1}-{high}" if high < 10**6 else f"atoms > {low}"
        chosen[name] = [one for one in records if low < one.atoms <= high]
    for bottom, top in FRACTIONS:
        chosen[f"guest fraction {bottom:g}-{top:g}"] = [one for one in records if bottom < one.guest_fraction <= top]
    chosen["host known from training"] = [one for one in records if one.new_host is False]
    chosen["host new"] = [one for one in records if one.new_host is True]
    keys = ("cases", "raw_match", "ranked_match", "oracle_match", "rmse_median")
    return {name: {key: figures(some)[key] for key in keys} for name, some in chosen.items() if some}


def _mean(values: Sequence[float | bool | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _quantile(values: Sequence[float | None], share: float) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.quantile(known, share)) if known else None
