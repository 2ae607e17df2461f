"""Ranking the candidates of a run by energy, each distinct crystal once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from model.crystals.composition import CellFormula
from model.crystals.matching import RELAXED, TIED, DistinctCrystals
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
    """The ``top`` relaxed candidates of lowest E_d (eV/atom, of the judge if there is one).

    If ``distinct``, only the best of equal crystals; crystals that the search's judge has relaxed into the same one are
    equal, too.
    """
    chosen = frame[(frame["status"] == Status.RELAXED) & frame["e_d"].notna()]
    if formula is not None:
        wanted = CellFormula.parse(formula).reduced
        chosen = chosen[chosen["formula"] == wanted]
    if role is not None:
        chosen = chosen[chosen["role"] == role]
    if e_d_below is not None:
        chosen = chosen[chosen["e_d_believed"] <= e_d_below]
    if not distinct:
        return chosen.head(top)
    polished = set(chosen.loc[chosen["polished"] == True, "candidate"])  # noqa: E712  (empty where not relaxed)
    energies = {"final": "energy", "final_judge": "energy_judge"}  # columns of crystals, and of their energies
    seen, keep = {final: _Seen() for final in energies}, []
    for index, row in chosen[~chosen["duplicate_of"].isin(polished)].iterrows():
        before = [seen[final].before(row[final], row[energy]) for final, energy in energies.items() if row[final]]
        if not any(before):
            keep.append(index)
        if len(keep) == top:
            break
    return chosen.loc[keep]


class _Seen:
    """Crystals of one potential, to tell which come again."""

    def __init__(self) -> None:
        self.alike = [DistinctCrystals(RELAXED), DistinctCrystals(TIED)]

    def before(self, packed: Mapping[str, Any], energy: float) -> bool:
        """Whether it has been seen, with an energy in eV/atom; it has now."""
        crystal = unpack_or_raise(packed)
        repeated = [known.add(crystal, energy=energy) for known in self.alike]
        return repeated != [None, None]


def new_below_hull(frame: pd.DataFrame) -> pd.DataFrame:
    """What a search has found: the distinct crystals below the hull that are polished and no known phases.

    E_d is that of the judge if there is one.
    """
    best = rank(frame, top=len(frame), e_d_below=0.0)
    return best[(best["e_d_believed"] < 0) & (best["polished"] == True) & best["known"].isna()]  # noqa: E712  (may be empty)


def remark(row: Mapping[str, Any]) -> str:
    """What a reader of a table should know about a candidate besides its numbers; empty if nothing."""
    remarks = [f"known: {row['known']}"] if isinstance(row["known"], str) else []
    if row["judges_disagree"]:
        remarks.append("potentials disagree")
    if not row["polished"]:
        remarks.append("not polished")
    elif row["saddle_fall"] > 0:
        remarks.append(f"left a saddle point (−{1e3 * row['saddle_fall']:.0f} meV/atom)")
    return ", ".join(remarks)


def products_text(products: Mapping[str, float], single_points: Collection[str] = ()) -> str:
    """Products for people, those whose energy is a single point marked.

    >>> products_text({"Li7Si3": 0.84, "Li15Si4": 0.16}, ["Li15Si4"])
    '0.84 Li7Si3 + 0.16 Li15Si4*'
    """
    return " + ".join(f"{share:.2f} {name}{'*' * (name in single_points)}" for name, share in products.items())
