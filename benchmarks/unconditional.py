"""Distance of unconditional samples from a minimum: changes on relaxation with CHGNet (CHGGen, Fig. 4).

    python benchmarks/unconditional.py --formulas Zn2P4S12 Zn2P2S7 --volume 28 --weights base --json unconditional.json

Every crystal is relaxed twice: with fixed cell (``fixed``), and together with the cell (``free``). The root mean square
and the largest distance between the atoms before and after are those of pymatgen's StructureMatcher, as in the paper:
in units of the cube root of the volume per atom. They are None, and omitted from the median, if the two do not match.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from rich.console import Console
from rich.table import Table

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.crystals.lattice import BRAVAIS, sample_lattice
from model.crystals.screening import screen
from model.diffusion.sampler import Template
from model.potentials.chgnet.potential import CHGNetPotential
from model.relaxation.relax import RelaxSettings, relax
from model.stages import CrystalMaker
from search.benchmark.methods import parse_sampler

BATCH = 20


def templates(formulas: Sequence[CellFormula], volume: float, count: int) -> list[Template]:
    """``count`` empty cells, alternating formulas and Bravais lattices, with ``volume`` Å³ per atom."""
    made = []
    for index in range(count):
        formula, bravais = formulas[index % len(formulas)], BRAVAIS[index % len(BRAVAIS)]
        lattice = sample_lattice(bravais, volume * formula.n_atoms, np.random.default_rng([0, index]))
        crystal = Crystal(lattice, np.zeros((formula.n_atoms, 3)), formula.numbers)
        made.append(Template(crystal=crystal, guest=np.ones(formula.n_atoms, dtype=bool), seed=index))
    return made


def figures(crystals: Sequence[Crystal], potential: CHGNetPotential, cell: Literal["fixed", "free"]) -> dict[str, Any]:
    """Medians over the crystals that relax to a minimum."""
    settings = RelaxSettings(cell="fixed" if cell == "fixed" else "full", fmax=0.1, max_steps=300, optimizer="lbfgs")
    done = [one for one in relax(crystals, potential, settings) if one.converged]
    matcher = StructureMatcher(primitive_cell=False)
    ways = [matcher.get_rms_dist(one.initial.to_pymatgen(), one.final.to_pymatgen()) for one in done]
    matched = np.array([way for way in ways if way is not None])
    return {
        "converged": len(done) / len(crystals),
        "energy_change": float(np.median([one.energy_initial - one.energy_final for one in done])),
        "matched": len(matched) / len(done),
        "rms": float(np.median(matched[:, 0])) if len(matched) else None,
        "largest": float(np.median(matched[:, 1])) if len(matched) else None,
        "volume": float(np.median([one.final.volume / len(one.final) for one in done])),
    }


def main() -> None:
    """Run all samplers on the same cells and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formulas", nargs="+", default=["Zn2P4S12", "Zn2P2S7"])
    parser.add_argument("--volume", type=float, default=28.0, help="Å³ an atom")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--samplers", nargs="+", default=["ancestral", "ancestral:temperature=0.2"])
    parser.add_argument("--weights", help="score model: small, base or a file; small when left out")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    empty = templates([CellFormula.parse(f) for f in arguments.formulas], arguments.volume, arguments.count)
    maker, potential = CrystalMaker(arguments.weights, device="cpu"), CHGNetPotential()
    found: dict[str, dict[str, Any]] = {}
    table = Table("sampler", "too close", "cell", "ΔE, eV/atom", "matched", "rms", "largest", "volume, Å³/atom")
    for name in arguments.samplers:
        settings = parse_sampler(name)
        batches = [empty[start : start + BATCH] for start in range(0, len(empty), BATCH)]
        crystals = [crystal for batch in batches for crystal in maker.sample(batch, settings).crystals]
        good = [crystal for crystal in crystals if screen(crystal) is None]
        found[name] = {"violations": 1 - len(good) / len(crystals)}
        for cell in ("fixed", "free"):
            one = found[name][cell] = figures(good, potential, cell)
            numbers = [one[key] for key in ("energy_change", "matched", "rms", "largest", "volume")]
            shown = ["" if number is None else f"{number:.3f}" for number in numbers]
            table.add_row(name, f"{found[name]['violations']:.2f}", cell, *shown)
    Console().print(table)
    if arguments.json:
        keys = ("formulas", "volume", "count")
        about = {key: getattr(arguments, key) for key in keys} | {"score_model": maker.version}
        arguments.json.write_text(json.dumps({"summary": found, **about}, indent=2) + "\n")


if __name__ == "__main__":
    main()
