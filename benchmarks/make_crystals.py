"""Generate the crystals of the relaxation benchmarks as in a search, with the packaged score model.

    python benchmarks/make_crystals.py ../shared/data --out benchmarks/generated.extxyz

Twelve families of crystals: Li-Si and Zn-P-S in random cells, guests in MnO2 hosts, and Na, Mg and Ca placed into hosts
from the test split of the training data, which the packaged model has never seen. A crystal that a search would reject
(for example, because atoms are too close) is replaced by another one. The file contains the family of each crystal, and
for each atom whether it was placed.

Hosts: Materials Project 2025.02.12 (A. Jain et al., APL Materials 1, 011002 (2013)), CC BY 4.0.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before anything below loads a thread pool

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import ase.io
import numpy as np
import pandas as pd
import torch
from ase import Atoms
from pymatgen.core import Element, Structure

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.crystals.lattice import BRAVAIS, sample_lattice
from model.crystals.parquet import read_crystals
from model.crystals.screening import screen
from model.diffusion.sampler import HeunSettings, Template
from model.stages import CrystalMaker
from model.thermodynamics.reference import packaged_reference, volume_per_atom

CELLS = ("Li8Si2", "Li10Si4", "Li13Si4", "Zn2P2S6", "Zn3P2S8", "Zn4P4S12")
HOSTS = (("beta", (1, 1, 2), "Mg", 2), ("delta", (2, 1, 1), "Li", 2), ("gamma", (2, 2, 1), "Zn", 4))
PUT_BACK = (("mp-1105143", "Na"), ("mp-1029378", "Mg"), ("mp-1045787", "Ca"))
Maker = Callable[[int], Template]


def new_cell(name: str) -> Maker:
    cell = CellFormula.parse(name)
    volume = volume_per_atom(packaged_reference(), cell.reduced) * cell.n_atoms

    def make(seed: int) -> Template:
        rng = np.random.default_rng(seed)
        lattice = sample_lattice(BRAVAIS[seed % len(BRAVAIS)], volume, rng)
        crystal = Crystal(lattice, np.zeros((cell.n_atoms, 3)), cell.numbers)
        return Template(crystal=crystal, guest=np.ones(cell.n_atoms, dtype=bool), seed=seed)

    return make


def filled(host: Crystal, guest: str, count: int) -> Maker:
    whole = host.join(Crystal(host.lattice, np.zeros((count, 3)), [Element(guest).Z] * count))
    return lambda seed: Template(crystal=whole, guest=np.arange(len(whole)) >= len(host), seed=seed)


def families(data: Path) -> Iterator[tuple[str, Maker]]:
    for name in CELLS:
        yield name, new_cell(name)
    for phase, repeats, guest, count in HOSTS:
        (path,) = (data / "hosts").glob(f"MnOOH-{phase}-*.cif")
        host = Structure.from_file(path)
        host.remove_species(["H"])
        yield f"{guest} in {phase}-MnO2", filled(Crystal.from_pymatgen(host * repeats), guest, count)
    table = pd.read_parquet(data / "mp_structures.parquet").set_index("material_id")
    for identity, guest in PUT_BACK:
        row = table.loc[[identity]]
        assert row["split"].item() == "test"
        (crystal,) = read_crystals(row)
        out = crystal.numbers == Element(guest).Z
        yield f"{guest} in {identity}", filled(crystal.select(~out), guest, int(out.sum()))


def worth_relaxing(make: Maker, maker: CrystalMaker, count: int, first_seed: int) -> Iterator[tuple[Crystal, Template]]:
    """The first ``count`` crystals that a search would relax."""
    found = 0
    for start in range(first_seed, first_seed + 20 * count, 4):
        templates = [make(seed) for seed in range(start, start + 4)]
        for crystal, template in zip(maker.sample(templates, HeunSettings()).crystals, templates, strict=True):
            if found < count and screen(crystal) is None:
                found += 1
                yield crystal, template
        if found == count:
            return


def to_atoms(crystal: Crystal, template: Template, family: str) -> Atoms:
    atoms = crystal.to_ase()
    atoms.info = {"family": family, "seed": template.seed}
    atoms.arrays["placed"] = template.guest
    return atoms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder with mp_structures.parquet and hosts/")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/generated.extxyz"))
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="other crystals of the same families; below 500")
    args = parser.parse_args()
    if not 0 <= args.seed < 500:
        parser.error(f"--seed must be from 0 to 499, got {args.seed}")
    torch.set_num_threads(1)

    maker = CrystalMaker()
    made: list[Atoms] = []
    every = list(families(args.data))
    for place, (family, make) in enumerate(every):
        count = args.count // len(every) + (place < args.count % len(every))
        some = [to_atoms(*pair, family) for pair in worth_relaxing(make, maker, count, 1000 * place + args.seed)]
        print(f"{family}: {len(some)} crystals of {len(some[0]) if some else 0} atoms", flush=True)
        made += some
        ase.io.write(args.out, made, columns=["symbols", "positions", "placed"])


if __name__ == "__main__":
    main()
