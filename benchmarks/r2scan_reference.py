"""The packaged r2SCAN reference: single points of CHGNet's r2SCAN model, as model/data has them.

    python benchmarks/r2scan_reference.py structures.parquet model/data/reference-chgnet-r2scan.parquet

The structures file is that of docs/training.md. Included are phases of up to three elements, at most one of them Li,
Na, Mg or Zn, the others being main-group elements (up to 0.03 eV/atom above the hull of the file and 60 atoms) or 3d
metals (up to 0.01 eV/atom: the file's hull is one of single points, and relaxation changes most energies by less).
About 169,000 atoms: 12 minutes on one free core.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from model.crystals.crystal import Crystal
from model.crystals.lattice import cell_vectors
from model.potentials.catalog import load_potential
from model.thermodynamics.reference import COLUMNS

POTENTIAL = "chgnet-r2scan"
GUESTS = {"Li", "Na", "Mg", "Zn"}
MAIN = {"H", "B", "C", "N", "O", "F", "Al", "Si", "P", "S", "Cl", "Ge", "Se", "Br", "Sn", "Sb", "Te", "I"}
METALS = {"Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu"}
CHUNK = 64


def in_scope(frame: pd.DataFrame) -> pd.Series:
    elements = frame["formula"].map(lambda formula: frozenset(re.findall("[A-Z][a-z]?", formula)))
    few = (elements.map(len) <= 3) & elements.map(lambda e: len(e & GUESTS) <= 1)
    close = frame["e_above_hull"] <= 0.01
    near = (frame["e_above_hull"] <= 1e-6) | ((frame["e_above_hull"] <= 0.03) & (frame["n_atoms"] <= 60))
    main = elements.map(lambda e: e <= GUESTS | MAIN)
    metal = elements.map(lambda e: e <= GUESTS | MAIN | METALS)
    return few & ((main & near) | (metal & close))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("structures", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    frame = pd.read_parquet(arguments.structures, filters=[("e_above_hull", "<=", 0.03)])
    frame = frame[in_scope(frame)].sort_values("n_atoms", ignore_index=True)
    crystals = [
        Crystal(cell_vectors(r.cell[:3], r.cell[3:]), r.frac_coords, r.atomic_numbers) for r in frame.itertuples()
    ]
    potential, energies, began = load_potential(POTENTIAL), [], time.monotonic()
    for start in range(0, len(crystals), CHUNK):
        energies += [one.energy for one in potential.evaluate(crystals[start : start + CHUNK])]
        print(f"{len(energies)} of {len(crystals)} phases, {time.monotonic() - began:.0f} s", flush=True)
    frame = frame.assign(
        energy_per_atom=pd.Series(energies).round(6),
        volume_per_atom=[round(crystal.volume / len(crystal), 3) for crystal in crystals],
        relaxed=False,
    )
    lowest = frame.sort_values(["energy_per_atom", "material_id"]).drop_duplicates("formula").sort_values("formula")
    about = {
        "name": "Materials Project phases",
        "potential": POTENTIAL,
        "version": "2025.02.12",
        "source": "Materials Project (A. Jain et al., APL Materials 1, 011002 (2013)), CC BY 4.0",
        "made": "single points of CHGNet's r2SCAN model at the database's geometry, of phases near the chgnet-0.3.0 "
        "hull; no corrections; scope in docs/reference.md",
        "units": "energy_per_atom eV, volume_per_atom Å³",
    }
    table = pa.Table.from_pandas(lowest[list(COLUMNS)], preserve_index=False)
    table = table.replace_schema_metadata({"reference": json.dumps(about)})
    pq.write_table(table, arguments.out, compression="zstd", compression_level=19, use_dictionary=False)


if __name__ == "__main__":
    main()
