"""Rows of results and of judges without a search."""

from typing import Any

from model.crystals.matching import distance_fingerprints, packed
from search.storage.judgements import JudgementRow
from search.storage.rows import Row, Status, StoredCrystal

REQUIRED = {
    "candidate": "a",
    "task": "task",
    "round": 0,
    "role": "new",
    "generator": "diffusion",
    "cell_formula": "LiSi",
    "generator_settings": "{}",
    "relaxation_settings": "{}",
    "formula": "LiSi",
    "n_atoms": 2,
    "status": Status.RELAXED,
    "reason": "",
    "seed": 0,
    "potential": "none",
    "reference": "none",
}


def row_with(**columns: Any) -> Row:
    """A row with these columns, plain values in those that every row needs, and None in the others.

    A crystal brings its fingerprint with it.
    """
    final = columns.get("final")
    found = {} if final is None else {"fingerprint": packed(distance_fingerprints([final.crystal])[0])}
    return Row(**{**REQUIRED, **found, **columns})


def judgement(candidate: str, **columns: Any) -> JudgementRow:
    """A judge's row on a candidate with these columns, and plain values in the others."""
    plain = {
        "formula": "LiSi",
        "space_group": "P1",
        "e_d": 0.05,
        "potential": "chgnet-0.3.0",
        "judge": "chgnet-r2scan",
        "version": "1",
        "e_d_first": 0.1,
        "e_d_judge": 0.1,
        "energy": -3.0,
        "products": {"Li": 0.5, "Si": 0.5},
        "converged": True,
        "reason": "converged",
        "steps": 3,
        "seconds": 0.1,
        "reference": "none",
        "missing": [],
        "final": StoredCrystal([3.0, 0, 0, 0, 3, 0, 0, 0, 3], [0.0, 0, 0, 0.5, 0.5, 0.5], [3, 14]),
    }
    return JudgementRow(**{"candidate": candidate, **plain, **columns})
