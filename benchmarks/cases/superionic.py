"""Lithium in LaCl3, with and without an La vacancy: data and figure of docs/superionic.md.

    python benchmarks/cases/superionic.py --out superionic

The host is fixed in every step. Takes about a minute on one free core.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before anything below loads a thread pool

import argparse
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from ase.visualize.plot import plot_atoms

from model.analysis.coordination import coordination_numbers
from model.analysis.migration import BarrierSettings
from model.crystals.crystal import Crystal
from model.crystals.periodic_images import shortest_lengths
from model.crystals.screening import ScreenSettings
from model.potentials.chgnet.potential import CHGNetPotential
from model.relaxation.relax import RelaxSettings
from model.stages import CrystalMaker, Relaxer
from search.storage.cif import write_cif
from search.storage.crystal_files import read_host
from search.studies.guest_paths import Percolation, path_length, percolation
from search.studies.inpaint import fill, make_templates

HOSTS = Path(__file__).resolve().parents[2] / "examples" / "superionic"
CASES = (("LaCl3", 1), ("LaCl3", 2), ("La5Cl18", 3))
COLOURS = {"La": "#8fb8de", "Cl": "#7bc47f", "Li": "#c04fd0"}
VACANCY = np.array([2 / 3, 1 / 3, 1 / 4])  # of La5Cl18


def best(host: Crystal, count: int, samples: int, seed: int, stations: tuple[CrystalMaker, Relaxer]) -> Crystal:
    """The arrangement of lowest energy with ``count`` Li."""
    filled, dropped = fill(
        make_templates(host, {"Li": count}, samples=samples, seed=seed), *stations, free_guests_only=True
    )
    print(f"{host.formula} with {count} Li: {len(filled)} different arrangements, {len(dropped)} dropped")
    return filled[0].crystal


def describe(crystal: Crystal, name: str) -> None:
    """Description of the site of each Li."""
    numbers = coordination_numbers(crystal, neighbours=["Cl"])
    distance = crystal.to_pymatgen().distance_matrix
    for atom in np.flatnonzero(crystal.numbers == 3):
        place = crystal.fractional[atom] % 1
        nearest = distance[atom, crystal.numbers == 17].min()
        away = f"{shortest_lengths(place * [1, 1, 0], crystal.lattice):.2f} Å off the axis"
        if name == "La5Cl18":
            away += f", {shortest_lengths(place - VACANCY, crystal.lattice):.2f} Å from the vacancy"
        print(f"  Li at {np.round(place, 3)}: {numbers[atom]} Cl, nearest {nearest:.2f} Å, {away}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("superionic"))
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", help="score model; the packaged one when left out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    arguments.out.mkdir(parents=True, exist_ok=True)
    relaxer = Relaxer("chgnet-0.3.0", RelaxSettings(cell="fixed", optimizer="lbfgs", fmax=0.05), ScreenSettings())
    stations = CrystalMaker(arguments.weights), relaxer
    found = {}
    for name, count in CASES:
        crystal = best(read_host(HOSTS / f"{name}.cif"), count, arguments.samples, arguments.seed, stations)
        describe(crystal, name)
        write_cif(crystal, arguments.out / f"{name}-Li{count}.cif")
        found[name, count] = crystal
    channel = percolation(
        found["LaCl3", 1],
        "Li",
        equal_sites=True,
        potential=CHGNetPotential(),
        settings=BarrierSettings(min_length=6.0, vacancy=False),
    )
    print(f"LaCl3: longest hops {channel.lengths}, highest barriers in eV {channel.highest}")
    print(f"La5Cl18: longest hops {percolation(found['La5Cl18', 3], 'Li', equal_sites=True).lengths}")
    draw([found["LaCl3", 1], found["La5Cl18", 3]], channel, arguments.out / "superionic.png")


def draw(crystals: list[Crystal], channel: Percolation, path: Path) -> None:
    """Draw the crystals viewed along the channels, and the energy along the hop."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for axis, crystal in zip(axes, crystals, strict=False):
        atoms = crystal.to_ase().repeat([2, 2, 1])
        plot_atoms(atoms, axis, radii=0.5, colors=[COLOURS[symbol] for symbol in atoms.get_chemical_symbols()])
        axis.set_axis_off()
        axis.set_title(f"{len(crystal)} atoms a cell: {crystal.formula}")
    for index, band in channel.barriers.items():
        axes[2].plot(path_length(band), band.energies, marker="o", label=f"hop {index}")
    axes[2].set(xlabel="way along the channel (Å)", ylabel="energy (eV)", title="one Li in LaCl3")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
