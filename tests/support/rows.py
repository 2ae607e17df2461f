"""Rows of results without a search."""

from typing import Any

from model.crystals.matching import distance_fingerprints, packed
from search.storage.rows import Row, Status

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
