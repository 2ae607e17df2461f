"""Ranking the candidates of a run by energy, each distinct crystal once."""

from __future__ import annotations

import pandas as pd

from model.crystals.composition import CellFormula
from model.crystals.matching import DistinctCrystals, DistinctSettings
from search.storage.rows import Status, unpack_or_raise


def rank(
    frame: pd.DataFrame,
    *,
    top: int,
    formula: str | None = None,
    role: str | None = None,
    distinct: bool = True,
    e_d_below: float | None = None,
) -> pd.DataFrame:
    """The ``top`` relaxed candidates of lowest E_d (eV/atom); if ``distinct``, only the best of equal crystals."""
    chosen = frame[(frame["status"] == Status.RELAXED) & frame["e_d"].notna()]
    if formula is not None:
        wanted = CellFormula.parse(formula).reduced
        chosen = chosen[chosen["formula"] == wanted]
    if role is not None:
        chosen = chosen[chosen["role"] == role]
    if e_d_below is not None:
        chosen = chosen[chosen["e_d"] <= e_d_below]
    if not distinct:
        return chosen.head(top)
    known, keep = DistinctCrystals(DistinctSettings(same_space_group=True)), []
    for index, row in chosen.iterrows():
        number = row["space_group_number"]
        if known.add(unpack_or_raise(row["final"]), None if pd.isna(number) else int(number)) is None:
            keep.append(index)
        if len(keep) == top:
            break
    return chosen.loc[keep]
