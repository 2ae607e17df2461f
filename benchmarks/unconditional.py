"""How close to a minimum unconditional samples are: energy and atoms' way when CHGNet relaxes them (CHGGen, Fig. 4).

python benchmarks/unconditional.py [--formulas Zn4P8S24 Zn4P4S14] [--volume 24] [--count 100] [--json OUT]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher

from model.composition import CellFormula
from model.crystal import Crystal
from model.lattice import BRAVAIS, sample_lattice
from model.potential import CHGNetPotential
from model.relax import Relaxation, RelaxSettings, relax
from model.sampler import AncestralSettings, Blank, HeunSettings, PredictorCorrectorSettings
from model.screen import screen
from model.stages import Generator

BATCH = 20
SAMPLERS = {
    "predictor-corrector, T 60, M 1": PredictorCorrectorSettings(
        steps=60, correctors=1, snr=0.2, sigma_min=0.01, sigma_max=5.0
    ),
    "heun 16": HeunSettings(),
    "ancestral 39, temperature 1": AncestralSettings(temperature=1.0),
    "ancestral 39, temperature 0.7": AncestralSettings(temperature=0.7),
    "ancestral 39, temperature 0.5": AncestralSettings(),
}


def blanks(formulas: Sequence[CellFormula], volume: float, count: int) -> list[Blank]:
    """``count`` empty cells, formulas and Bravais lattices in turn, at ``volume`` Å³ an atom."""
    made = []
    for index in range(count):
        formula, bravais = formulas[index % len(formulas)], BRAVAIS[index % len(BRAVAIS)]
        lattice = sample_lattice(bravais, volume * formula.n_atoms, np.random.default_rng([0, index]))
        crystal = Crystal(lattice, np.zeros((formula.n_atoms, 3)), formula.numbers)
        made.append(Blank(crystal, np.ones(formula.n_atoms, dtype=bool), index))
    return made


def displacement(one: Relaxation) -> tuple[float, float] | None:
    """(root mean square, largest) way of the atoms in Å, cells brought to one volume; None without a match."""
    matcher = StructureMatcher(stol=1.0, ltol=0.5, angle_tol=20, primitive_cell=False)
    found = matcher.get_rms_dist(one.initial.to_pymatgen(), one.final.to_pymatgen())
    size = np.cbrt(one.final.volume / len(one.final))
    return None if found is None else (float(found[0] * size), float(found[1] * size))


def figures(crystals: Sequence[Crystal], potential: CHGNetPotential) -> dict[str, Any]:
    """Share too close or too thin, and medians over those that relax to a minimum."""
    good = [crystal for crystal in crystals if screen(crystal) is None]
    outcomes = relax(good, potential, RelaxSettings(fmax=0.1, max_steps=300, optimizer="lbfgs"))
    done = [one for one in outcomes if one.converged]
    ways = [way for one in done if (way := displacement(one)) is not None]
    return {
        "violations": 1 - len(good) / len(crystals),
        "converged": len(done) / max(1, len(good)),
        "energy_change": float(np.median([one.energy_initial - one.energy_final for one in done])),
        "rmsd": float(np.median([way[0] for way in ways])),
        "largest": float(np.median([way[1] for way in ways])),
        "matched": len(ways) / len(done),
        "steps": float(np.median([one.steps for one in done])),
        "energy_best_tenth": float(np.quantile([one.energy_final for one in done], 0.1)),
    }


def main() -> None:
    """Run all samplers on the same cells and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formulas", nargs="+", default=["Zn2P4S12", "Zn2P2S7"])
    parser.add_argument("--volume", type=float, default=24.0, help="Å³ an atom")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--samplers", type=int, nargs="+", default=list(range(len(SAMPLERS))))
    parser.add_argument("--weights", help="score model; the packaged one when left out")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    empty = blanks([CellFormula.parse(f) for f in arguments.formulas], arguments.volume, arguments.count)
    generator, potential, table = Generator(arguments.weights, device="cpu"), CHGNetPotential(), {}
    for number in arguments.samplers:
        name, settings = next(islice(SAMPLERS.items(), number, None))
        began = time.perf_counter()
        batches = [empty[start : start + BATCH] for start in range(0, len(empty), BATCH)]
        made = [generator.generate(batch, settings) for batch in batches]
        seconds = (time.perf_counter() - began) / len(empty)
        crystals = [crystal for batch in made for crystal in batch.crystals]
        table[name] = {
            **figures(crystals, potential), "evaluations": made[0].evaluations[0], "seconds_per_sample": seconds
        }  # fmt: skip
        print(f"{name:<32}", {key: round(value, 3) for key, value in table[name].items()}, flush=True)
    if arguments.json:
        about = {"formulas": arguments.formulas, "count": arguments.count, "score_model": generator.version}
        arguments.json.write_text(json.dumps({"summary": table, **about}, indent=2) + "\n")


if __name__ == "__main__":
    main()
