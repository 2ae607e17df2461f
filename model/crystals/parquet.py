"""Reading the user's Parquet files; errors name what is missing and the page that explains it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pymatgen.core import Lattice

from model.crystals.crystal import Crystal


def read_columns(
    path: str | Path, columns: Sequence[str], *, optional: Sequence[str] = (), see: str, filters: Any = None
) -> pd.DataFrame:
    """Read columns of a Parquet file.

    Args:
        path: the file.
        columns: required.
        optional: read if present.
        see: the page that explains them, for the error message.
        filters: as in `pyarrow.parquet.read_table`.

    Raises:
        ValueError: there is no such file, it is not Parquet, or a column is missing; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    try:
        there = pq.read_schema(path).names
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a Parquet file: {error}") from error
    missing = [name for name in columns if name not in there]
    if missing:
        raise ValueError(
            f"{path} has no column {', '.join(missing)}; there are {', '.join(there)}. "
            f"Rename or add the missing ones: {see} explains them"
        )
    wanted = [*columns, *(name for name in optional if name in there)]
    return pd.read_parquet(path, columns=wanted, filters=filters)


def read_crystals(frame: pd.DataFrame) -> list[Crystal]:
    """Crystals from the columns ``cell`` (a, b, c, α, β, γ), ``atomic_numbers`` and ``frac_coords`` (flattened)."""
    return [
        Crystal(Lattice.from_parameters(*cell).matrix, np.asarray(fractional).reshape(-1, 3), numbers)
        for cell, fractional, numbers in zip(frame["cell"], frame["frac_coords"], frame["atomic_numbers"], strict=True)
    ]
