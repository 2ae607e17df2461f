"""E_d of a run's best candidates by another potential, relative to its own energies of the competing phases.

The other potential evaluates candidates as single points at the geometry relaxed by the run's potential; the competing
phases come from its own reference. If two potentials trained on different functionals agree, an E_d is more reliable.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pymatgen.core import Composition

from model.crystals.crystal import Crystal
from model.potentials.catalog import CATALOG, load_potential
from model.potentials.interface import Evaluation, Potential
from model.thermodynamics.reference import Reference, evaluate_reference, packaged_reference
from model.thermodynamics.stability import Stability
from search.storage.paths import RunPath, run_path, write_whole
from search.storage.ranking import rank
from search.storage.results import load_results, parquet_bytes
from search.storage.rows import unpack_or_raise

FILE = "second_opinion.parquet"
SCHEMA_VERSION = "2"
TOLERANCE = 0.03  # eV/atom, about the error stated by the authors of the potentials
SCHEMA = pa.schema(
    [
        ("candidate", pa.string()),
        ("formula", pa.string()),  # reduced
        ("space_group", pa.string()),
        ("e_d_run", pa.float64()),  # eV/atom, as stored in the run
        ("potential_first", pa.string()),  # of the run
        ("potential", pa.string()),  # the other potential
        ("e_d_first", pa.float64()),  # eV/atom, by the run's potential, with the phases that both references contain
        ("energy", pa.float64()),  # eV/atom, by the other potential
        ("e_d", pa.float64()),  # eV/atom, by the other potential
        ("products", pa.map_(pa.string(), pa.float64())),
        ("difference", pa.float64()),  # eV/atom, e_d - e_d_first
        ("disagrees", pa.bool_()),  # whether the difference exceeds the tolerance
        ("max_force", pa.float64()),  # eV/Å, by the other potential at this geometry
        ("reference", pa.string()),
        ("missing", pa.list_(pa.string())),  # stable phases that the other potential's reference lacks
    ],
    metadata={"schema_version": SCHEMA_VERSION},
)


def missing_phases(first: Reference, other: Reference, elements: Collection[str]) -> list[str]:
    """Formulas of phases on the hull of one reference that the other reference lacks."""
    hull = Stability(first, elements)
    stable = {entry.composition.reduced_formula for entry in hull.diagram.stable_entries}
    return sorted(stable - set(other.of_system(elements)["formula"]))


def second_opinions(
    frame: pd.DataFrame, reference: Reference, potential: Potential, *, tolerance: float = TOLERANCE
) -> list[dict[str, Any]]:
    """Rows of `SCHEMA` for ranked candidates, in the same order.

    The potentials are compared on the phases that both references contain: a stable phase without an energy by the
    other potential is left out of both hulls, and listed in ``missing``.

    Args:
        frame: candidates from `search.storage.ranking.rank`, all by one potential that has a packaged reference.
        reference: competing phases, computed with ``potential``.
        potential: one other than the candidates'.
        tolerance: difference (eV/atom) above which the two potentials disagree.

    Raises:
        ValueError: the reference is for a third potential or lacks an element, or the candidates are by ``potential``.
    """
    if reference.potential != potential.name:
        raise ValueError(f"energies of {potential.name} cannot be compared with a reference of {reference.potential}")
    name = potential_of(frame)
    if name == potential.name:
        raise ValueError(f"{name} cannot give a second opinion on its own candidates; choose another potential")
    whole = packaged_reference(name)
    crystals = [unpack_or_raise(final) for final in frame["final"]]
    elements = {symbol for crystal in crystals for symbol in crystal.symbols}
    first = whole.of_system(elements)
    first = first[first["formula"].isin(reference.of_system(elements)["formula"])]
    hulls = (Stability(replace(whole, phases=first), elements), Stability(reference, elements))
    missing = missing_phases(whole, reference, elements)
    return [
        _row(row, crystal, evaluation, hulls, tolerance) | {"missing": missing}
        for row, crystal, evaluation in zip(
            frame.to_dict("records"), crystals, potential.evaluate(crystals), strict=True
        )
    ]


def potential_of(frame: pd.DataFrame) -> str:
    """The potential with which the candidates were relaxed; raises ValueError if there is not exactly one."""
    names = sorted(set(frame["potential"]))
    if len(names) != 1:
        raise ValueError(f"a second opinion needs candidates of one potential; these are of {', '.join(names)}")
    return str(names[0])


def _another(first: str) -> str:
    """The first potential of the catalogue other than ``first`` that has a packaged reference."""
    others = [row.name for row in CATALOG.values() if row.name != first and row.reference is not None]
    if not others:
        raise ValueError(f"no potential except {first} has a packaged reference: give a potential and structures")
    return others[0]


def _row(
    row: dict[Any, Any], crystal: Crystal, evaluation: Evaluation, hulls: tuple[Stability, Stability], tolerance: float
) -> dict[str, Any]:
    first = hulls[0].decomposition(crystal.composition, row["energy"])
    second = hulls[1].decomposition(crystal.composition, evaluation.energy)
    difference = second.e_d - first.e_d
    return {
        "candidate": row["candidate"],
        "formula": row["formula"],
        "space_group": row["space_group"],
        "e_d_run": row["e_d"],
        "potential_first": hulls[0].reference.potential,
        "potential": hulls[1].reference.potential,
        "e_d_first": first.e_d,
        "energy": evaluation.energy,
        "e_d": second.e_d,
        "products": list(second.products.items()),
        "difference": difference,
        "disagrees": bool(abs(difference) > tolerance),
        "max_force": float(np.linalg.norm(evaluation.forces, axis=1).max()),
        "reference": f"{hulls[1].reference.name} ({hulls[1].reference.potential})",
    }


def take_second_opinion(
    run: RunPath,
    *,
    top: int,
    potential: str | None = None,
    structures: Path | None = None,
    tolerance: float = TOLERANCE,
) -> list[dict[str, Any]]:
    """Evaluate the best candidates of a run with another potential and store the result in second_opinion.parquet.

    Args:
        run: its folder.
        top: number of distinct candidates of lowest E_d.
        potential: the other potential (default: the first other one in the catalogue with a packaged reference).
        structures: Parquet file of structures from which to compute the competing phases (default: packaged table).
        tolerance: difference (eV/atom) above which the two potentials disagree.

    Raises:
        ValueError: the run has no relaxed candidate, or the competing phases are not available.
    """
    best = rank(load_results(run, structures=False), top=top)
    if best.empty:
        raise ValueError(f"{run} has no relaxed candidate yet")
    other = load_potential(potential or _another(potential_of(best)))
    if structures is None:
        reference = packaged_reference(other.name)
    else:
        elements = {str(e) for formula in best["formula"] for e in Composition(formula).elements}
        reference = evaluate_reference(structures, elements, other)
    rows = second_opinions(best, reference, other, tolerance=tolerance)
    write_whole(run / FILE, parquet_bytes(pa.Table.from_pylist(rows, schema=SCHEMA)))
    return rows


def load_second_opinion(run: str | RunPath) -> pd.DataFrame:
    """The stored second opinion of a run, best E_d by the other potential first.

    Raises:
        ValueError: there is none.
    """
    path = run_path(run) / FILE
    if not path.is_file():
        raise ValueError(f"{run} contains no second opinion; run `hostguide second-opinion {run}` first")
    frame = pq.read_table(pa.BufferReader(path.read_bytes())).to_pandas(maps_as_pydicts="strict")
    return frame.sort_values("e_d", ignore_index=True)
