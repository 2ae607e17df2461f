"""The best candidates of a run, judged again by CHGNet's r2SCAN model against r2SCAN energies of the competing phases.

Both sides are single points: candidates at the geometry that CHGNet 0.3.0 relaxed, competing phases at the database's.
Where two potentials that were trained on different functionals agree, an E_d deserves more trust.
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
from model.potentials.chgnet.potential import CHGNetPotential
from model.potentials.interface import Evaluation, Potential
from model.thermodynamics.reference import PACKAGED, Reference, load_table, packaged_reference, score_reference
from model.thermodynamics.stability import Stability
from search.storage.paths import RunPath, run_path, write_whole
from search.storage.ranking import rank
from search.storage.results import load_results, parquet_bytes
from search.storage.rows import unpack_or_raise

FILE = "second_opinion.parquet"
SCHEMA_VERSION = "1"
FIRST = "chgnet-0.3.0"
PACKAGED_R2SCAN = PACKAGED.with_name("reference-chgnet-r2scan.parquet")
TOLERANCE = 0.03  # eV/atom, the error that CHGNet's authors give
SCHEMA = pa.schema(
    [
        ("candidate", pa.string()),
        ("formula", pa.string()),  # reduced
        ("space_group", pa.string()),
        ("e_d_run", pa.float64()),  # eV/atom, as the run has it
        ("e_d_first", pa.float64()),  # eV/atom, CHGNet 0.3.0 against the phases that both potentials know
        ("energy", pa.float64()),  # eV/atom, r2SCAN
        ("e_d", pa.float64()),  # eV/atom, r2SCAN
        ("products", pa.map_(pa.string(), pa.float64())),
        ("difference", pa.float64()),  # eV/atom, e_d - e_d_first
        ("disagrees", pa.bool_()),  # whether the difference exceeds the tolerance
        ("max_force", pa.float64()),  # eV/Å, of the r2SCAN model at this geometry
        ("reference", pa.string()),
        ("missing", pa.list_(pa.string())),  # stable phases that have no r2SCAN energy
    ],
    metadata={"schema_version": SCHEMA_VERSION},
)


def packaged_r2scan() -> Reference:
    """The table that comes with the package: single points of CHGNet's r2SCAN model, see docs/reference.md."""
    return load_table(PACKAGED_R2SCAN)


def missing_phases(reference: Reference, elements: Collection[str]) -> list[str]:
    """Formulas on the CHGNet 0.3.0 hull of a system that a reference knows nothing of."""
    first = Stability(packaged_reference(), elements)
    stable = {entry.composition.reduced_formula for entry in first.diagram.stable_entries}
    return sorted(stable - set(reference.of_system(elements)["formula"]))


def second_opinions(
    frame: pd.DataFrame, reference: Reference, potential: Potential, *, tolerance: float = TOLERANCE
) -> list[dict[str, Any]]:
    """Rows of `SCHEMA` for ranked candidates, in their order.

    Both potentials are compared on the phases that both know: a stable phase without an r2SCAN energy is left out of
    both hulls, and named.

    Args:
        frame: candidates as `search.storage.ranking.rank` gives them, of a search with CHGNet 0.3.0.
        reference: competing phases, computed with ``potential``.
        potential: CHGNet's r2SCAN model.
        tolerance: eV/atom beyond which the two potentials disagree.

    Raises:
        ValueError: the reference is another potential's or lacks an element, or the candidates are not of CHGNet 0.3.0.
    """
    if reference.potential != f"{potential.name} {potential.version}":
        raise ValueError(
            f"a reference of {reference.potential} cannot judge energies of {potential.name} {potential.version}"
        )
    others = sorted(set(frame["potential"]) - {FIRST})
    if others:
        raise ValueError(f"a second opinion needs candidates of {FIRST}, these are of {', '.join(others)}")
    crystals = [unpack_or_raise(final) for final in frame["final"]]
    elements = {symbol for crystal in crystals for symbol in crystal.symbols}
    first = packaged_reference().of_system(elements)
    first = first[first["formula"].isin(reference.of_system(elements)["formula"])]
    hulls = (
        Stability(replace(packaged_reference(), phases=first), elements),
        Stability(reference, elements),
    )
    missing = missing_phases(reference, elements)
    return [
        _row(row, crystal, evaluation, hulls, tolerance) | {"missing": missing}
        for row, crystal, evaluation in zip(
            frame.to_dict("records"), crystals, potential.evaluate(crystals), strict=True
        )
    ]


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
    run: RunPath, *, top: int, structures: Path | None = None, tolerance: float = TOLERANCE
) -> list[dict[str, Any]]:
    """Judge the best candidates of a run again and store the answer in its second_opinion.parquet.

    Args:
        run: its folder.
        top: so many distinct candidates of lowest E_d.
        structures: Parquet of structures to compute the competing phases from; the packaged table when left out.
        tolerance: eV/atom beyond which the two potentials disagree.

    Raises:
        ValueError: the run has no relaxed candidate, or the competing phases are not known.
    """
    best = rank(load_results(run, structures=False), top=top)
    if best.empty:
        raise ValueError(f"{run} has no relaxed candidate yet")
    potential = CHGNetPotential("r2scan")
    if structures is None:
        reference = packaged_r2scan()
    else:
        elements = {str(e) for formula in best["formula"] for e in Composition(formula).elements}
        reference = score_reference(structures, elements, potential)
    rows = second_opinions(best, reference, potential, tolerance=tolerance)
    write_whole(run / FILE, parquet_bytes(pa.Table.from_pylist(rows, schema=SCHEMA)))
    return rows


def load_second_opinion(run: str | RunPath) -> pd.DataFrame:
    """The stored second opinion of a run, best r2SCAN E_d first.

    Raises:
        ValueError: there is none.
    """
    path = run_path(run) / FILE
    if not path.is_file():
        raise ValueError(f"{run} holds no second opinion; `hostguide second-opinion {run}` gives one")
    frame = pq.read_table(pa.BufferReader(path.read_bytes())).to_pandas(maps_as_pydicts="strict")
    return frame.sort_values("e_d", ignore_index=True)
