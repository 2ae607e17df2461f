"""The packaged structure types for ion exchange, as model/data has them.

    python benchmarks/prototypes.py structures.parquet model/data/prototypes.parquet

The structures file is that of docs/training.md. Only its split `train` is read, so that no phase of a system that is
held back for rediscovery is in the table. Taken are phases on the hull, or up to --above it, with two to four elements.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from model.crystals.parquet import read_crystals
from model.generation.ion_substitution import SCALE, collect

CHUNK = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--above", type=float, default=0.0, help="eV/atom above the hull")
    parser.add_argument("--max-atoms", type=int, default=16)
    arguments = parser.parse_args()
    limits = [
        ("split", "==", "train"),
        ("e_above_hull", "<=", arguments.above),
        ("n_atoms", "<=", arguments.max_atoms),
    ]
    frame = pd.read_parquet(arguments.structures, filters=limits)
    frame = frame[frame["atomic_numbers"].map(lambda numbers: 2 <= len(np.unique(numbers)) <= 4)]
    frame = frame.sort_values(["e_above_hull", "material_id"], ignore_index=True)
    types = collect(_crystals(frame)).sort_values(["compounds", "name"], ascending=[False, True])
    about = {
        "source": "Materials Project (A. Jain et al., APL Materials 1, 011002 (2013)), version 2025.02.12, CC BY 4.0",
        "made": f"{len(types)} structure types of {len(frame)} compounds; coordinates in 1/{SCALE} of the cell",
    }
    table = pa.Table.from_pandas(types, preserve_index=False)
    table = table.replace_schema_metadata({"prototypes": json.dumps(about)})
    pq.write_table(table, arguments.out, compression="zstd", compression_level=19)
    print(f"{len(types)} structure types of {len(frame)} compounds, {arguments.out.stat().st_size / 1e6:.2f} MB")


def _crystals(frame):
    for start in range(0, len(frame), CHUNK):
        part = frame.iloc[start : start + CHUNK]
        yield from zip(part["material_id"], read_crystals(part), strict=True)
        print(f"{min(start + CHUNK, len(frame))} of {len(frame)}", flush=True)


if __name__ == "__main__":
    main()
