"""Statistics of the electrode benchmark: errors of voltages, taken apart, and a correction fitted on other pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pymatgen.core import Composition

METALS = ("Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Mo", "W", "Nb")
ANIONS = ("O", "F", "S", "Se")
FOLDS = 10
RIDGE = 3.0  # prior weight of 0, in pairs, of the correction of each metal
HUBER = 0.2  # V; larger residuals count linearly
ROUNDS = 50  # of reweighting, more than enough to settle

Record = dict[str, Any]


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """Statistics of pairs.

    Returns:
        ``summary``: pairs, mae, median, bias (V), sites_found (share of the pairs with a known filled crystal in which
        it was matched, or something lower), seconds_median; the same errors after the correction (``corrected``); the
        two parts of the error where the filled crystal is known (``potential``, ``sites``); ``volume_change``; and the
        errors by split, ion, metal and anion.
    """
    good = [one for one in records if not one["problem"]]
    known = [one for one in good if one.get("known")]
    errors = _errors(good)
    corrected = dict(zip([one["name"] for one in good], errors - cross_validated(good), strict=True)) if good else {}
    summary = {
        "pairs": len(good),
        "failed": len(records) - len(good),
        **_statistics(errors),
        "sites_found": _share([one["sites"] != "higher" for one in known]),
        "sites_matched": _share([one["matched"] for one in known]),
        "known": len(known),
        "seconds_median": _median([one["seconds"] for one in records]),
        "corrected": _statistics(np.array(list(corrected.values()))),
        "potential": _statistics(np.array([one["voltage_known"] - one["reference"] for one in known])),
        "sites": _statistics(np.array([one["voltage"] - one["voltage_known"] for one in known])),
        "volume_change": _statistics(
            np.array(
                [
                    abs(one["volume_change"]) - one["reference_volume_change"]
                    for one in good
                    if math.isfinite(one["reference_volume_change"])
                ]
            )
        ),
        "host_kept": _share([one["host_kept"] for one in good]),
    }

    def grouped(key: Callable[[Record], Sequence[str]]) -> dict[str, Any]:
        names = sorted({name for one in good for name in key(one)})
        return {name: _group([one for one in good if name in key(one)], corrected) for name in names}

    return {
        "summary": summary,
        "by_split": grouped(lambda one: [one["split"] or "unknown"]),
        "by_ion": grouped(lambda one: [one["ion"]]),
        "by_metal": grouped(lambda one: [metal for metal in METALS if metal in Composition(one["host"])]),
        "by_anion": grouped(lambda one: [anion for anion in ANIONS if anion in Composition(one["host"])]),
        "correction": dict(zip(("constant", *METALS), fit(good).round(4).tolist(), strict=True)) if good else {},
    }


def fit(records: Sequence[Record]) -> np.ndarray:
    """The correction of voltages: a constant, and one number per metal of the host (V), to be subtracted.

    A least-squares fit of the errors that counts those beyond `HUBER` linearly, with `RIDGE` pairs' weight on 0 for
    each metal.
    """
    features, errors = _features(records), _errors(records)
    weights, found = np.ones(len(errors)), np.zeros(features.shape[1])
    prior = RIDGE * np.eye(features.shape[1])
    prior[0, 0] = 1e-9
    for _ in range(ROUNDS):
        weighted = features.T * weights
        found = np.linalg.solve(weighted @ features + prior, weighted @ errors)
        weights = HUBER / np.maximum(np.abs(errors - features @ found), HUBER)
    return found


def cross_validated(records: Sequence[Record]) -> np.ndarray:
    """(n,) the correction of each pair in V, fitted on pairs of other hosts only."""
    hosts = sorted({one["host"] for one in records})
    fold = np.array([hosts.index(one["host"]) % FOLDS for one in records])
    found = np.zeros(len(records))
    for number in set(fold.tolist()):
        others = [one for one, own in zip(records, fold, strict=True) if own != number]
        if others:
            here = [one for one, own in zip(records, fold, strict=True) if own == number]
            found[fold == number] = _features(here) @ fit(others)
    return found


def _features(records: Sequence[Record]) -> np.ndarray:
    hosts = [Composition(one["host"]) for one in records]
    return np.array([[1.0, *(float(metal in host) for metal in METALS)] for host in hosts])


def _errors(records: Sequence[Record]) -> np.ndarray:
    return np.array([one["voltage"] - one["reference"] for one in records])


def _group(records: Sequence[Record], corrected: dict[str, float]) -> dict[str, Any]:
    after = np.array([corrected[one["name"]] for one in records])
    return {"pairs": len(records), **_statistics(_errors(records)), "corrected": _statistics(after)}


def _statistics(errors: np.ndarray) -> dict[str, float | None]:
    if not len(errors):
        return {"mae": None, "median": None, "bias": None}
    size = np.abs(errors)
    return {"mae": float(size.mean()), "median": float(np.median(size)), "bias": float(errors.mean())}


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None
