"""Making the library of known phases from a table of structures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pymatgen.core import Composition

from model.crystals.crystal import Crystal, reduced_formula
from model.crystals.parquet import read_columns, read_crystals
from model.files import written_whole
from model.library.phases import ABOUT, SCALE
from model.symmetry.space_group import REPORTED, space_group

COLUMNS = ("material_id", "formula", "n_atoms", "cell", "atomic_numbers", "frac_coords", "e_above_hull")
SEE = "docs/reference.md"
AT_ONCE = 1000  # phases between two reports
MOST_ATOMS = 2**15 - 1  # in a cell; n_atoms is stored in 16 bits


def build_library(
    structures_parquet: str | Path,
    out: str | Path,
    *,
    within: float = 0.01,
    version: str,
    source: str,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write the library: the phases of a file that lie near the hull, with their geometry, sorted by chemical system.

    Args:
        structures_parquet: material_id, formula, n_atoms, cell (a, b, c, α, β, γ; Å and degrees), atomic_numbers,
            frac_coords (flattened) and e_above_hull (eV/atom).
        out: the file to write.
        within: eV/atom above the hull.
        version: of the database.
        source: of the phases, for credit, and their licence.
        report: called with the number of finished phases and of all.

    Returns:
        the number of phases.

    Raises:
        ValueError: a file or column is missing, no phase is near the hull, or an identifier occurs twice.
    """
    frame = read_columns(structures_parquet, COLUMNS, see=SEE, filters=[("e_above_hull", "<=", within)])
    if frame.empty:
        raise ValueError(f"{structures_parquet} has no phase within {within} eV/atom of the hull: raise --within")
    if (twice := frame["material_id"][frame["material_id"].duplicated()]).size:
        raise ValueError(f"{structures_parquet} has {twice.iloc[0]} twice; each phase needs an identifier of its own")
    if frame["n_atoms"].max() > MOST_ATOMS:
        raise ValueError(f"{structures_parquet} has a cell of {frame['n_atoms'].max()} atoms; at most {MOST_ATOMS}")
    compositions = {formula: Composition(formula) for formula in set(frame["formula"])}
    frame["system"] = frame["formula"].map({name: one.chemical_system for name, one in compositions.items()})
    frame["anonymous"] = frame["formula"].map({name: one.anonymized_formula for name, one in compositions.items()})
    frame["formula"] = frame["formula"].map({name: reduced_formula(name) for name in compositions})
    frame = frame.sort_values(["system", "formula", "e_above_hull", "material_id"], ignore_index=True)
    groups: list[int] = []
    for start in range(0, len(frame), AT_ONCE):
        groups += [_group_number(crystal) for crystal in read_crystals(frame.iloc[start : start + AT_ONCE])]
        report(len(groups), len(frame))
    about = {
        "source": source,
        "version": version,
        "within": within,
        "made": f"phases within {within} eV/atom of the hull, with the database's own geometry",
        "units": f"cell Å and degrees; frac_coords in 1/{SCALE}; e_above_hull eV/atom; space_group at {REPORTED} Å",
    }
    table = _table(frame, groups).replace_schema_metadata({ABOUT: json.dumps(about)})
    with written_whole(Path(out)) as temporary:
        pq.write_table(table, temporary, compression="zstd", compression_level=19)
    return len(frame)


def _group_number(crystal: Crystal) -> int:
    group = space_group(crystal, REPORTED, -1.0)
    return 1 if group is None else group.number


def _table(frame: pd.DataFrame, groups: list[int]) -> pa.Table:
    columns = {
        "material_id": pa.array(frame["material_id"], pa.string()),
        "formula": pa.array(frame["formula"], pa.string()),
        "system": pa.array(frame["system"], pa.string()),
        "anonymous": pa.array(frame["anonymous"], pa.string()),
        "n_atoms": pa.array(frame["n_atoms"], pa.int16()),
        "space_group": pa.array(groups, pa.int16()),
        "e_above_hull": pa.array(frame["e_above_hull"].round(5), pa.float32()),
        "cell": pa.array(frame["cell"], pa.list_(pa.float32())),
        "atomic_numbers": pa.array(frame["atomic_numbers"], pa.list_(pa.uint8())),
        "frac_coords": pa.array([_steps(one) for one in frame["frac_coords"]], pa.list_(pa.uint16())),
    }
    return pa.table(columns)


def _steps(fractional: np.ndarray) -> np.ndarray:
    """Fractional coordinates as steps of 1/`SCALE` in the cell."""
    return (np.rint(np.asarray(fractional) * SCALE).astype(np.int64) % SCALE).astype(np.uint16)
