"""Guests put back into hosts that everyone knows: the tables of docs/hosts.md.

    python benchmarks/cases/hosts.py --out hosts
    python benchmarks/cases/hosts.py --out hosts --relax-host

The known crystal loses its guests, and the functions behind `hostguide inpaint` place as many again, relax and polish.
The known crystal is relaxed and polished alike, and the two are compared. Without --relax-host the host keeps the
shape that it has with its guests; with it, the empty host is relaxed first.

Every case is stored in a folder of OUT named after all settings and computed only once: stop at any time, and rerun the
same command to resume. The table is table.md in that folder. Takes some minutes on one free core.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before anything below loads a thread pool

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from model.crystals.crystal import Crystal
from model.crystals.matching import RELAXED, DistinctCrystals
from model.crystals.parquet import read_columns, read_crystals
from model.crystals.screening import ScreenSettings
from model.potentials.catalog import DEFAULT
from model.relaxation.relax import RelaxSettings, relax
from model.stages import CrystalMaker, Rejected, Relaxer
from model.symmetry.space_group import space_group
from search.studies.inpaint import Filled, fill, make_templates, polish_fillings, refine_fillings

SAME = RELAXED.model_copy(update={"energy_tolerance": 1e-3})  # of polished crystals, which have settled
CASES = {  # crystal -> guest, and where the crystal comes from: an entry of the Materials Project, or a key of `BUILT`
    "LiCoO2": ("Li", "mp-22526"),
    "LiFePO4": ("Li", "mp-19017"),
    "LiMn2O4": ("Li", "spinel"),
    "LiTiS2": ("Li", "mp-9615"),
    "LiV2O5-delta": ("Li", "mp-19013"),
    "LiV2O5-gamma": ("Li", "mp-19408"),
    "Na3V2(PO4)3": ("Na", "mp-776557"),
    "MgMo6S8": ("Mg", "Chevrel phase"),
    "LiTiO2": ("Li", "mp-38280"),
    "LiC6": ("Li", "mp-1001581"),
    "Na2MnFe(CN)6": ("Na", "Prussian white"),
}


def of_materials_project(data: Path, name: str) -> Structure:
    """An entry of the table of structures."""
    columns = ["cell", "atomic_numbers", "frac_coords"]
    found = read_columns(data, columns, see="docs/training.md", filters=[("material_id", "=", name)])
    if found.empty:
        raise ValueError(f"{data} has no entry {name}: give the table of structures with --data")
    return read_crystals(found)[0].to_pymatgen()


def spinel(data: Path) -> Structure:
    """LiMn2O4 at room temperature, where Mn3+ and Mn4+ share a site: a = 8.24 Å, u = 0.263 (0.388 in this setting)."""
    places = [[0, 0, 0], [0.625] * 3, [0.388] * 3]
    return Structure.from_spacegroup("Fd-3m", Lattice.cubic(8.24), ["Li", "Mn", "O"], places)


def chevrel_phase(data: Path) -> Structure:
    """Mo6S8 with Mg in the middle of the cavity between eight clusters.

    The middle is the average: each Mg lies on one of several places around it.
    """
    structure = of_materials_project(data, "mp-2164")
    return structure.append("Mg", [0, 0, 0])


def prussian_white(data: Path) -> Structure:
    """Na2Mn[Fe(CN)6] without water, which is rhombohedral (Song et al., J. Am. Chem. Soc. 137, 2658 (2015)).

    The places are no refinement but a model: linear Fe-C-N of 1.92 and 1.17 Å that end 2.16 Å from Mn, and Na half-way
    between Fe and Mn on the threefold axis.
    """
    places = [[0, 0, 0.25], [0, 0, 0.5], [0, 0, 0], [0.2101, -0.0476, 0.0587], [0.3381, -0.0766, 0.0944]]
    return Structure.from_spacegroup("R-3", Lattice.hexagonal(6.6, 18.9), ["Na", "Mn", "Fe", "C", "N"], places)


BUILT = {"spinel": spinel, "Chevrel phase": chevrel_phase, "Prussian white": prussian_white}


def known_crystal(source: str, data: Path) -> Crystal:
    """The known crystal in its primitive cell."""
    structure = BUILT[source](data) if source in BUILT else of_materials_project(data, source)
    return Crystal.from_pymatgen(structure.get_primitive_structure())


def run(name: str, arguments: argparse.Namespace, maker: CrystalMaker, relaxer: Relaxer) -> dict[str, Any]:
    """Take the guests out, put them back, and compare."""
    element, source = CASES[name]
    crystal = known_crystal(source, arguments.data)
    guest = np.array(crystal.symbols) == element
    group = space_group(crystal)
    known = relaxed_alike(crystal, guest, relaxer)
    (published,) = relax([crystal], relaxer.potential, relaxer.relaxation.model_copy(update={"keep_symmetry": True}))
    host = crystal.select(~guest)
    if arguments.relax_host:
        host = relax([host], relaxer.potential, relaxer.relaxation)[0].final
    samples, seed = arguments.samples, arguments.seed
    began = time.process_time()
    filled, dropped = fill(
        make_templates(host, {element: int(guest.sum())}, samples=samples, seed=seed), maker, relaxer
    )
    for number in range(1, arguments.refine + 1 if filled else 0):
        filled, more = refine_fillings(filled, maker, relaxer, samples=samples, seed=(seed, number))
        dropped += more
    found, repeated = polish_fillings(filled, relaxer)
    return {
        "source": source,
        "guest": element,
        "guests": int(guest.sum()),
        "atoms": len(crystal),
        "attempts": samples * (1 + arguments.refine),
        "dropped": dropped + repeated,
        "seconds": time.process_time() - began,
        "host_volume_change": host.volume / known.crystal.volume - 1,
        "published": {
            "space_group": group.symbol if group else "P1",
            "above": 1e3 * (published.energy_final - known.relaxation.energy_final),
        },
        "known": described(known),
        "found": [described(one) | compared(one, known) for one in found],
    }


def relaxed_alike(crystal: Crystal, guest: np.ndarray, relaxer: Relaxer) -> Filled:
    """The known crystal, relaxed and polished like an arrangement."""
    (outcome,) = relaxer.relax([crystal])
    if isinstance(outcome, Rejected):
        raise ValueError(f"the known crystal {crystal.formula} was rejected: {outcome.reason}")
    (polished,), _ = polish_fillings([Filled(outcome.final, guest, outcome, "")], relaxer)
    return polished


def described(one: Filled) -> dict[str, Any]:
    """What is stored of a polished crystal."""
    return {
        "energy": one.relaxation.energy_final,
        "max_force": one.relaxation.max_force,
        "space_group": one.space_group,
        "structure": one.crystal.to_pymatgen().as_dict(),
    }


def compared(one: Filled, known: Filled) -> dict[str, Any]:
    """Energy (meV/atom) above the known crystal, whether it is the same one, and how far atoms are apart (Å)."""
    same = DistinctCrystals(SAME)
    for crystal in (known, one):
        repeats = same.add(crystal.crystal, energy=crystal.relaxation.energy_final)
    apart = StructureMatcher().get_rms_dist(known.crystal.to_pymatgen(), one.crystal.to_pymatgen())
    length = np.cbrt(known.crystal.volume / len(known.crystal))
    return {
        "above": 1e3 * (one.relaxation.energy_final - known.relaxation.energy_final),
        "same": repeats is not None,
        "rms": None if apart is None else float(apart[0] * length),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mp_structures.parquet"))
    parser.add_argument("--out", type=Path, default=Path("hosts"))
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--refine", type=int, default=0, help="rounds of refinement, as of hostguide inpaint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--relax-host", action="store_true", help="relax the empty host first")
    parser.add_argument("--weights", help="score model; the packaged one when left out")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), metavar="CASE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    maker, relaxer = CrystalMaker(arguments.weights), Relaxer(DEFAULT, RelaxSettings(), ScreenSettings())
    settings = [maker.version, f"{arguments.samples}", f"{arguments.refine}", f"{arguments.seed}"]
    folder = arguments.out / "-".join([*settings, "relaxed" if arguments.relax_host else "as-given"])
    folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.cases:
        path = folder / f"{name}.json"
        if path.exists():
            continue
        result = run(name, arguments, maker, relaxer)
        unfinished = folder / "unfinished"
        unfinished.write_text(json.dumps(result))
        unfinished.replace(path)
        print(row(name, result), flush=True)
    results = {name: json.loads(path.read_text()) for name in CASES if (path := folder / f"{name}.json").exists()}
    (folder / "table.md").write_text(table(results))
    print(f"{len(results)} of {len(CASES)} cases are done: {folder}")


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown table, one row per case."""
    rows = [
        "| crystal | atoms, guests | space group as published | above the polished one, meV/atom | polished "
        "| best found | the same crystal | rms Å | best above known, meV/atom | distinct, of attempts | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*rows, *(row(name, result) for name, result in results.items())]) + "\n"


def signed(energy: float) -> str:
    """An energy with its sign, which zero lacks."""
    return f"{energy:+.1f}" if round(energy, 1) else "0.0"


def row(name: str, result: dict[str, Any]) -> str:
    """One row of the table."""
    best = result["found"][0] if result["found"] else {"space_group": "–", "above": np.nan, "same": False, "rms": None}
    rank = next((place for place, one in enumerate(result["found"], start=1) if one["same"]), None)
    cells = [
        name,
        f"{result['atoms']}, {result['guests']} {result['guest']}",
        result["published"]["space_group"],
        signed(result["published"]["above"]),
        result["known"]["space_group"],
        best["space_group"],
        "yes" if rank == 1 else f"no, number {rank} is" if rank else "no",
        "–" if best["rms"] is None else f"{best['rms']:.3f}",
        signed(best["above"]),
        f"{len(result['found'])} of {result['attempts']}",
        f"{result['seconds']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
