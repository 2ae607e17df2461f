"""Rebuild known phases whose geometry is not at hand, from the structure types of others.

    python -m benchmarks.potentials.rebuilt_phases energies.parquet rebuilt-phases.parquet --max-elements 3

Of each phase on the hull without a crystal in the library, the formula, the number of atoms and CHGNet's energy are
known. Crystals of other compounds with as many atoms get its elements, are relaxed with CHGNet, and are compared with
that energy. A single point at the database's geometry lies a few meV/atom above the relaxed crystal: what ends within
`WINDOW` of it is taken for the phase. The folder next to the output keeps what was tried; run again to go on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pymatgen.core import Composition

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.generation.ion_substitution import Substitution, assignments, electronegativity, substitutions
from model.library.build import build_library
from model.library.phases import packaged_library
from model.potentials.catalog import DEFAULT, load_potential
from model.potentials.interface import Potential
from model.relaxation.relax import RelaxSettings, relax
from model.thermodynamics.reference import packaged_reference, volume_per_atom

WINDOW = (-0.025, 0.002)  # eV/atom, relaxed energy minus that of the single point
STAND_IN = 0.01  # eV/atom above it up to which the lowest crystal stands in for the phase
AT_ONCE = 24
SETTINGS = RelaxSettings(fmax=0.02, keep_symmetry=True, max_steps=100)


def crystals_like(formula: str, n_atoms: int) -> list[Crystal]:
    """Crystals of other compounds with these elements in their place, the most similar first, at a likely volume."""
    units = n_atoms / Composition(formula).num_atoms
    counts = {str(element): round(count * units) for element, count in Composition(formula).items()}
    cell = CellFormula.from_counts(counts)
    volume = n_atoms * volume_per_atom(packaged_reference(), formula)
    found: list[Substitution] = list(substitutions(cell))
    if found:
        return [one.crystal(volume) for one in found]
    wanted = {Composition(name).elements[0].Z: count for name, count in counts.items()}
    ranked = []
    for phase in packaged_library().of_stoichiometry(formula, n_atoms):
        crystal = phase.crystal
        places = {z: int((crystal.numbers == z).sum()) for z in np.unique(crystal.numbers).tolist()}
        for elements in assignments(places, wanted):
            distance = np.mean([abs(electronegativity(z) - electronegativity(elements[z])) for z in places])
            numbers = np.array([elements[z] for z in crystal.numbers.tolist()])
            lattice = crystal.lattice * np.cbrt(volume / crystal.volume)
            ranked.append((float(distance), phase.material_id, crystal.replace(lattice=lattice, numbers=numbers)))
    return [crystal for *_, crystal in sorted(ranked, key=lambda one: one[:2])]


def rebuilt(formula: str, n_atoms: int, energy: float, potential: Potential) -> tuple[Crystal, float] | None:
    """The crystal with this energy (eV/atom, single point), and its relaxed energy; None if none comes near."""
    candidates, best = crystals_like(formula, n_atoms), None
    for start in range(0, len(candidates), AT_ONCE):
        for one in relax(candidates[start : start + AT_ONCE], potential, SETTINGS):
            above = one.energy_final - energy
            if one.converged and WINDOW[0] <= above <= STAND_IN and (best is None or one.energy_final < best[1]):
                best = one.final, one.energy_final
        if best is not None and best[1] - energy <= WINDOW[1]:
            return best
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("energies", help="Parquet: material_id, formula, n_atoms, energy_per_atom, e_above_hull")
    parser.add_argument("out", type=Path)
    parser.add_argument("--max-elements", type=int, default=2)
    parser.add_argument("--max-atoms", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=np.inf)
    options = parser.parse_args()
    torch.set_num_threads(1)
    frame, library, began = pd.read_parquet(options.energies), packaged_library(), time.monotonic()
    frame = frame[(frame["e_above_hull"] <= 1e-4) & (frame["n_atoms"] <= options.max_atoms)]
    frame["elements"] = [len(Composition(formula)) for formula in frame["formula"]]
    frame = frame[frame["elements"] <= options.max_elements].sort_values(["elements", "n_atoms", "material_id"])
    folder, potential = options.out.with_suffix(""), load_potential(DEFAULT)
    folder.mkdir(parents=True, exist_ok=True)
    for row in frame.itertuples():
        path = folder / f"{row.material_id}.json"
        if path.exists() or library.find(row.formula) or time.monotonic() - began > 60 * options.minutes:
            continue
        found = rebuilt(row.formula, row.n_atoms, row.energy_per_atom, potential)
        record = {"material_id": row.material_id, "formula": row.formula, "n_atoms": row.n_atoms}
        if found is not None:
            crystal, energy = found
            lattice = crystal.to_pymatgen().lattice
            record |= {
                "above": energy - row.energy_per_atom,
                "cell": [*lattice.abc, *lattice.angles],
                "atomic_numbers": crystal.numbers.tolist(),
                "frac_coords": crystal.wrapped().fractional.ravel().tolist(),
                "e_above_hull": max(0.0, row.e_above_hull),
            }
        path.write_text(json.dumps(record))
        print(row.formula, row.n_atoms, f"{1e3 * record['above']:+.1f} meV/atom" if found else "not found", flush=True)
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    table = pd.DataFrame([record for record in records if "cell" in record]).drop(columns="above")
    table.to_parquet(folder / "structures.parquet")
    count = build_library(
        folder / "structures.parquet",
        options.out,
        within=1.0,
        version="1",
        source="rebuilt from structure types of the Materials Project (2025.02.12, CC BY 4.0) by their CHGNet energies",
    )
    print(f"{count} of {len(records)} phases in {options.out}")


if __name__ == "__main__":
    main()
