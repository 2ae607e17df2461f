"""Placing atoms at an interface by inpainting, in voids, at random and as stacked: data of docs/interface.md.

    python benchmarks/cases/interface.py --out interface

Every method gets the same number of attempts, and every attempt the same relaxation of the atoms in the region between
fixed slabs. Each method is stored in OUT/<weights>-<samples>-<rounds>-<seed>; the benchmark can be stopped at any time,
rerun the same command to resume.
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

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from model.crystals.crystal import Crystal
from model.crystals.screening import ScreenSettings
from model.diffusion.sampler import Template
from model.generation.initial_placements import uniform, voronoi_voids
from model.relaxation.relax import RelaxSettings
from model.stages import CrystalMaker, Rejected, Relaxer, may_be_ranked
from search.storage.crystal_files import read_host
from search.studies.inpaint import Filled, Region, fill, make_templates, refine_fillings

STACKED = Path(__file__).resolve().parents[2] / "examples" / "interface" / "Li-Li2O.cif"
REGION = Region(0.28, 0.63)  # the last O and Li layers of the oxide, the first two Li layers of the metal
SIZES = {"O": (90, "#d33b2f"), "Li": (110, "#2fa84f")}


class Ways:
    """The methods of filling the region; each gives energies in eV/atom, lowest first, and the best crystal."""

    def __init__(self, maker: CrystalMaker, samples: int, rounds: int, seed: int) -> None:
        self.stacked = read_host(STACKED)
        self.maker, self.samples, self.rounds, self.seed = maker, samples, rounds, seed
        self.relaxer = Relaxer(
            "chgnet-0.3.0", RelaxSettings(cell="fixed", optimizer="lbfgs", fmax=0.05), ScreenSettings()
        )

    def as_stacked(self) -> list[tuple[float, Crystal]]:
        return self._relaxed([self.stacked])

    def inpainted(self) -> list[tuple[float, Crystal]]:
        return _pairs(fill(self._many(), self.maker, self.relaxer, free_guests_only=True)[0])

    def refined(self) -> list[tuple[float, Crystal]]:
        filled, _ = fill(self._templates(self.samples), self.maker, self.relaxer, free_guests_only=True)
        for number in range(1, self.rounds + 1):
            filled, _ = refine_fillings(
                filled,
                self.maker,
                self.relaxer,
                samples=self.samples,
                seed=(self.seed, number),
                free_guests_only=True,
            )
        return _pairs(filled)

    def in_voids(self) -> list[tuple[float, Crystal]]:
        return self._relaxed([voronoi_voids(template, where=REGION.holds).crystal for template in self._many()])

    def at_random(self) -> list[tuple[float, Crystal]]:
        return self._relaxed([uniform(template, where=REGION.holds).crystal for template in self._many()])

    def _many(self) -> list[Template]:
        return self._templates(self.samples * (1 + self.rounds))

    def _templates(self, count: int) -> list[Template]:
        return make_templates(self.stacked, {}, samples=count, seed=self.seed, region=REGION)

    def _relaxed(self, crystals: list[Crystal]) -> list[tuple[float, Crystal]]:
        outcomes = self.relaxer.relax(crystals, [REGION.holds(self.stacked.fractional)] * len(crystals))
        kept = [one for one in outcomes if not isinstance(one, Rejected) and may_be_ranked(one)]
        return sorted(((one.energy_final, one.final) for one in kept), key=lambda pair: pair[0])


def _pairs(filled: list[Filled]) -> list[tuple[float, Crystal]]:
    return [(one.relaxation.energy_final, one.crystal) for one in filled]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("interface"))
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="of refinement; the other ways get as many attempts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", help="score model; the packaged one when left out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    maker = CrystalMaker(arguments.weights)
    folder = arguments.out / f"{maker.version}-{arguments.samples}-{arguments.rounds}-{arguments.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    ways = Ways(maker, arguments.samples, arguments.rounds, arguments.seed)
    for name in ("as_stacked", "inpainted", "refined", "in_voids", "at_random"):
        path = folder / f"{name}.json"
        if not path.exists():
            began = time.process_time()
            found = getattr(ways, name)()
            found[0][1].to_pymatgen().to(folder / f"{name}.cif")  # every atom where it is
            record = {"energies": [energy for energy, _ in found], "seconds": time.process_time() - began}
            path.write_text(json.dumps(record))
    results = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    print(table(results, ways.stacked))
    draw({name: read_host(folder / f"{name}.cif") for name in results}, folder / "interface.png")


def table(results: dict[str, Any], stacked: Crystal) -> str:
    """Markdown table, one row per method; energies relative to the stacking, relaxed in the same way."""
    zero = results["as_stacked"]["energies"][0]
    area = np.linalg.norm(np.cross(stacked.lattice[0], stacked.lattice[1]))
    rows = [
        "| way | attempts that survive | best, meV/atom | best, meV/Å² | median, meV/atom | CPU seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        above = 1e3 * (np.array(result["energies"]) - zero)
        rows.append(
            f"| {name.replace('_', ' ')} | {len(above)} | {above[0]:+.1f} | {above[0] * len(stacked) / area:+.1f} "
            f"| {np.median(above):+.1f} | {result['seconds']:.0f} |"
        )
    return "\n".join(rows)


def draw(crystals: dict[str, Crystal], path: Path) -> None:
    """Draw each crystal viewed along a, with c upwards."""
    figure, axes = plt.subplots(1, len(crystals), figsize=(2.2 * len(crystals), 6.5), layout="constrained")
    for axis, (name, crystal) in zip(axes, crystals.items(), strict=True):
        shifts = np.array([[0, j, k] for j in (-1, 0, 1) for k in (-1, 0, 1)])
        places = ((crystal.fractional % 1)[None] + shifts[:, None]) @ crystal.lattice
        for symbol, (size, colour) in SIZES.items():
            own = places[:, np.array(crystal.symbols) == symbol].reshape(-1, 3)
            axis.scatter(own[:, 1], own[:, 2], s=size, color=colour, edgecolors="black", linewidths=0.5, label=symbol)
        height = crystal.lattice[2, 2]
        axis.axhspan(REGION.low * height, REGION.high * height, color="#f2e6c9", zorder=0)
        axis.set(title=name.replace("_", " "), xlim=(-2, 7), ylim=(-0.5, height + 0.5), aspect="equal")
        axis.set_axis_off()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
