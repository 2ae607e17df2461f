"""Files of a screen: the table of electrodes as CSV and Parquet, and the crystals as CIF."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from search.electrodes.curves import Electrode, electrode_table
from search.electrodes.rows import Outcome
from search.storage.cif import cif_text
from search.storage.paths import write_whole
from search.storage.rows import unpack_or_raise

CSV, PARQUET, CRYSTALS = "electrodes.csv", "electrodes.parquet", "crystals"


def write_electrodes(electrodes: Sequence[Electrode], frame: pd.DataFrame, folder: Path) -> list[Path]:
    """Write the table, and the empty and all filled hosts as CIF.

    Args:
        electrodes: from `search.electrodes.curves.electrodes_of`.
        frame: rows of the screen.
        folder: for the files; existing ones are replaced.

    Returns:
        the CSV file, the Parquet file and the folder of CIF files.
    """
    table = electrode_table(electrodes)
    csv, parquet, crystals = folder / CSV, folder / PARQUET, folder / CRYSTALS
    crystals.mkdir(parents=True, exist_ok=True)
    write_whole(csv, table.to_csv(index=False).encode())
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_whole(parquet, buffer.getvalue())
    for row in frame[frame["status"].isin([Outcome.EMPTY, Outcome.FILLED])].to_dict("records"):
        text = cif_text(unpack_or_raise(row["final"]), 0.01, -1.0)
        write_whole(crystals / f"{row['host']}-{row['guest']}{int(row['count'])}.cif", text.encode())
    return [csv, parquet, crystals]
