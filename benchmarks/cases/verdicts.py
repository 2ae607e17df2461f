"""Whether the answers of ``hostguide verify`` are right, and what they cost.

    python -m benchmarks.cases.verdicts known --json known.json
    python -m benchmarks.cases.verdicts charges --json charges.json
    python -m benchmarks.cases.verdicts phonons --json phonons.json
    python -m benchmarks.cases.verdicts time --run runs/li-si --json time.json

``known``: 200 phases of the library, drawn at random, shifted, reordered and strained by up to 1 %: is each recognised?
``charges``: of the same phases, which are called not balanced; and 50 halides and oxides of metals with one valence
from which one atom was removed: is each called so? ``phonons``: Si, MgO, NaCl, Al and Li2S at Γ, X and L against
phonopy driven by CHGNet's own ASE calculator, from the same relaxed crystal; deviations of all
frequencies above 0.5 THz. ``time``: seconds of CPU for the verdicts with phonons of the ten best crystals of a
run, or of the ten smallest Li-Si phases of the library; two cores need half of that.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.build import bulk
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from model.crystals.crystal import Crystal
from model.library.phases import Phase, packaged_library
from model.potentials.catalog import DEFAULT, load_potential
from model.verification.charge import Balance, charge_balance
from model.verification.phonons import phonons
from model.verification.settings import PhononSettings, VerifySettings
from model.verification.verifier import Verifier

COMPOUNDS, UNBALANCED, MOST_ATOMS, TIMED = 200, 50, 60, 10
VALENCES = dict.fromkeys(["Li", "Na", "K", "Rb", "Cs"], 1) | dict.fromkeys(["Mg", "Ca", "Sr", "Ba", "Zn"], 2)
VALENCES |= dict.fromkeys(["Al", "Sc", "Y", "La"], 3) | dict.fromkeys(["F", "Cl", "Br", "I"], -1) | {"O": -2}
SPECIAL = {"Γ": [0, 0, 0], "X": [0.5, 0, 0.5], "L": [0.5, 0.5, 0.5]}  # of the face-centred lattice
LOW = 0.5  # THz, frequencies below are the translations


def main() -> None:
    """Measure one thing, print it and store it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["known", "charges", "phonons", "time"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", help="folder of a run, for time")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(arguments.seed)
    if arguments.what == "time":
        found = _time(arguments.run)
    elif arguments.what == "phonons":
        found = {name: _deviation(crystal) for name, crystal in _salts().items()}
    else:
        found = _known(rng) if arguments.what == "known" else _charges(rng)
    print(json.dumps(found, indent=2, ensure_ascii=False))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def _drawn(rng: np.random.Generator) -> list[Phase]:
    """Compounds of the library."""
    library, found = packaged_library(), list[Phase]()
    for name in rng.permutation(sorted(library.material_ids)).tolist():
        phase = library.phase(name)
        if phase.n_atoms <= MOST_ATOMS and len(set(phase.crystal.symbols)) > 1:
            found.append(phase)
        if len(found) == COMPOUNDS:
            break
    return found


def _known(rng: np.random.Generator) -> dict[str, Any]:
    missed = []
    for phase in _drawn(rng):
        crystal = phase.crystal
        strain = rng.uniform(-0.01, 0.01) * np.eye(3)
        order = rng.permutation(len(crystal))
        moved = crystal.select(order)
        moved = moved.replace(lattice=moved.lattice @ (np.eye(3) + strain), fractional=moved.fractional + rng.random(3))
        if packaged_library().known(moved) != phase.material_id:
            missed.append(f"{phase.material_id}: {packaged_library().known(moved)}")
    return {"compounds": COMPOUNDS, "recognised": COMPOUNDS - len(missed), "missed": missed}


def _charges(rng: np.random.Generator) -> dict[str, Any]:
    drawn = _drawn(rng)
    verdicts = [charge_balance(phase.crystal) for phase in drawn]
    suspicious = [phase.material_id for phase, one in zip(drawn, verdicts, strict=True) if not one.fine]
    broken = [charge_balance(crystal).kind for crystal in _unbalanced(rng)]
    return {
        "compounds": len(drawn),
        "fine": len(drawn) - len(suspicious),
        "suspicious": suspicious,
        "kinds": dict(Counter(str(one.kind) for one in verdicts)),
        "unbalanced": len(broken),
        "unbalanced_found": broken.count(Balance.NONE),
    }


def _unbalanced(rng: np.random.Generator) -> list[Crystal]:
    """Salts of one valence without one of their atoms."""
    library, found = packaged_library(), list[Crystal]()
    for name in rng.permutation(sorted(library.material_ids)).tolist():
        crystal = library.phase(name).crystal
        elements = set(crystal.symbols)
        if not elements <= set(VALENCES) or len(crystal) > MOST_ATOMS or len(elements) < 2:
            continue
        if sum(VALENCES[symbol] for symbol in crystal.symbols):
            continue
        less = crystal.select(np.arange(len(crystal)) != rng.integers(len(crystal)))
        if set(less.symbols) == elements:
            found.append(less)
        if len(found) == UNBALANCED:
            break
    return found


def _salts() -> dict[str, Crystal]:
    atoms = {
        "Si": bulk("Si"),
        "MgO": bulk("MgO", "rocksalt", a=4.21),
        "NaCl": bulk("NaCl", "rocksalt", a=5.64),
        "Al": bulk("Al"),
        "Li2S": bulk("SLi2", "fluorite", a=5.71),
    }
    return {name: Crystal.from_ase(one) for name, one in atoms.items()}


def _deviation(crystal: Crystal) -> dict[str, float]:
    """Largest relative difference of the frequencies at each special point."""
    from chgnet.model.dynamics import CHGNetCalculator

    settings = PhononSettings()
    found = phonons(crystal, load_potential(DEFAULT), settings)
    own = found.crystal
    cell = PhonopyAtoms(numbers=own.numbers, cell=own.lattice, scaled_positions=own.fractional)
    stock = Phonopy(cell, supercell_matrix=found.supercell.T, primitive_matrix="P")
    stock.generate_displacements(distance=settings.displacement)
    calculator, forces = CHGNetCalculator(use_device="cpu"), []
    for one in stock.supercells_with_displacements or ():
        atoms = Crystal(one.cell, one.scaled_positions, one.numbers).to_ase()
        atoms.calc = calculator
        forces.append(atoms.get_forces())
    stock.forces = forces
    stock.produce_force_constants(show_drift=False)
    stock.symmetrize_force_constants(show_drift=False)
    expected = np.array(stock.run_qpoints(list(SPECIAL.values())).frequencies)
    ours, deviations = found.frequencies(list(SPECIAL.values())), {}
    for name, one, other in zip(SPECIAL, ours, expected, strict=True):
        counted = np.abs(other) > LOW
        deviations[name] = float(np.max(np.abs(one[counted] / other[counted] - 1), initial=0.0))
    return deviations


def _time(run: str | None) -> dict[str, Any]:
    from search.storage.paths import run_path
    from search.studies.verify import run_subjects

    if run:
        crystals = [one.crystal for one in run_subjects(run_path(run), DEFAULT, top=TIMED)]
    else:
        phases = [one for one in packaged_library().phases(["Li", "Si"]) if len(set(one.crystal.symbols)) == 2]
        crystals = [one.crystal for one in sorted(phases, key=lambda one: one.n_atoms)[:TIMED]]
    verifier, rows = Verifier(DEFAULT, VerifySettings()), []
    for crystal in crystals:
        began = time.process_time()
        found = verifier.verify(crystal)
        seconds = time.process_time() - began
        rows.append({"formula": crystal.formula, "atoms": len(crystal), "cpu_seconds": round(seconds, 1)})
        rows[-1]["lowest"] = None if found.vibrations is None else round(found.vibrations.lowest.frequency, 2)
        rows[-1]["problem"] = found.problem
        print(json.dumps(rows[-1]), flush=True)
    return {"crystals": len(rows), "cpu_seconds": sum(row["cpu_seconds"] for row in rows), "each": rows}


if __name__ == "__main__":
    main()
