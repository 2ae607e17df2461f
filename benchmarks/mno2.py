"""Guests in the MnO2 polymorphs, as the inpainting paper shows them: everything that docs/mno2.md says.

    python benchmarks/mno2.py --out mno2

Four hosts and four guests, Zn0.5MnO2, Mg0.5MnO2, HMnO2 and LiMnO2. Each case is done three times with the same number
of attempts: by inpainting, by guests in the widest voids, and, for H, from the places that the Materials Project gives.
Guests are relaxed in the fixed host first; the three best arrangements are then relaxed in full. Cases that are
in OUT/cases already are not computed again.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before anything below loads a thread pool

import argparse
import itertools
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import Voronoi

from model.analysis import coordination_numbers, void_sites
from model.crystal import Crystal
from model.distinct import DistinctCrystals
from model.relax import Relaxation, RelaxSettings
from model.screen import ScreenSettings
from model.stages import Generator, Rejected, Relaxer, usable
from model.symmetry import space_group
from search.inpaint import fill, make_blanks, read_host

EXAMPLES = Path(__file__).parent.parent / "examples" / "mno2"
ENTRIES = {
    name: next(EXAMPLES.glob(f"MnOOH-{name}-*.cif")) for name in ("alpha", "beta", "gamma", "delta")
}  # the guests' places of MnOOH
PER_MN = {"Zn": 0.5, "Mg": 0.5, "H": 1.0, "Li": 1.0}


class Case:
    """One guest in one host."""

    def __init__(self, polymorph: str, guest: str, samples: int, seed: int) -> None:
        self.polymorph, self.guest, self.samples, self.seed = polymorph, guest, samples, seed
        self.host = read_host(EXAMPLES / f"{polymorph}.cif")
        self.count = round(PER_MN[guest] * (self.host.numbers == 25).sum())
        self.blanks = make_blanks(self.host, {guest: self.count}, samples=samples, seed=seed)
        self.is_guest = self.blanks[0].guest
        self.fixed = Relaxer(
            "chgnet-0.3.0", RelaxSettings(cell="fixed", optimizer="lbfgs", fmax=0.05), ScreenSettings()
        )
        self.full = Relaxer("chgnet-0.3.0", RelaxSettings(optimizer="lbfgs", fmax=0.05), ScreenSettings())

    def run(self, generator: Generator) -> dict[str, Any]:
        began = time.monotonic()
        filled, dropped = fill(self.blanks, generator, self.fixed, free_guests_only=True)
        ways = {"inpainted": self._finish([one.relaxation for one in filled])}
        seconds = time.monotonic() - began
        ways["voids"] = self._finish(self._relax_guests(self._void_arrangements()))
        if self.guest == "H":
            entry = read_host(ENTRIES[self.polymorph])
            known = self.host.join(entry.select(entry.numbers == 1))
            ways["materials project"] = self._finish(self._relax_guests([known]))
        return {
            "polymorph": self.polymorph,
            "guest": self.guest,
            "count": self.count,
            "formula": self.blanks[0].crystal.formula,
            "samples": self.samples,
            "dropped": dropped,
            "seconds": seconds,
            "ways": ways,
        }

    def _relax_guests(self, crystals: list[Crystal]) -> list[Relaxation]:
        outcomes = self.fixed.relax(crystals, [self.is_guest] * len(crystals))
        return [one for one in outcomes if not isinstance(one, Rejected) and usable(one)]

    def _void_arrangements(self) -> list[Crystal]:
        """Guests in the widest voids, as far from each other as a greedy choice brings them; random first sites."""
        voids = void_sites(self.host, min_radius=1.0 if self.guest == "H" else 1.5)
        radius = np.array([void.radius for void in voids])
        sites = np.array([void.fractional for void in voids])
        delta = sites[:, None] - sites[None]
        delta = (delta - np.round(delta)) @ self.host.lattice
        apart = np.linalg.norm(delta, axis=-1)
        rng = np.random.default_rng(self.seed)
        crystals = []
        for _ in range(self.samples):
            chosen = [int(rng.choice(len(sites), p=radius**3 / (radius**3).sum()))]
            while len(chosen) < self.count:
                room = np.minimum(apart[chosen].min(0), 3.0) + 0.5 * radius + rng.normal(0, 0.2, len(sites))
                room[chosen] = -np.inf
                chosen.append(int(room.argmax()))
            crystals.append(self.blanks[0].crystal.replace(
                fractional=np.concatenate([self.host.fractional, sites[chosen]])))  # fmt: skip
        return crystals

    def _finish(self, fixed: list[Relaxation]) -> dict[str, Any]:
        """The best arrangement of the guests in the fixed host, and the best after full relaxation of three."""
        if not fixed:
            return {"arrangements": 0}
        fixed = sorted(fixed, key=lambda one: one.energy_final)
        distinct = DistinctCrystals()
        best = [one for one in fixed if distinct.add(one.final) is None]
        outcomes = self.full.relax([one.final for one in best[:3]])
        full = [one for one in outcomes if not isinstance(one, Rejected) and usable(one)]
        result = {"arrangements": len(best), "fixed": self._describe(fixed[0])}
        if full:
            result["full"] = self._describe(min(full, key=lambda one: one.energy_final))
        return result

    def _describe(self, one: Relaxation) -> dict[str, Any]:
        crystal = one.final
        group = space_group(crystal)
        guests = crystal.select(self.is_guest)
        oxygen = coordination_numbers(crystal.select((crystal.numbers == 8) | self.is_guest), neighbours=["O"])
        radii, off_axis = in_tunnels(self.host, guests.fractional)
        return {
            "energy": one.energy_final,
            "converged": one.converged,
            "space_group": group.symbol if group else "P1",
            "volume_change": crystal.volume / self.host.volume - 1,
            "host_moved": self._host_moved(crystal),
            "coordination": sorted(int(n) for n in oxygen[guests_of(crystal, self.is_guest)]),
            "distances": nearest_oxygen(crystal, self.is_guest),
            "tunnel_radius": radii,
            "off_axis": off_axis,
            "structure": crystal.to_pymatgen().as_dict(),
        }

    def _host_moved(self, crystal: Crystal) -> float:
        """Largest displacement in Å of a host atom, in the old cell, without the common shift."""
        shift = crystal.fractional[~self.is_guest] - self.host.fractional
        shift -= np.round(shift)
        return float(np.linalg.norm((shift - shift.mean(0)) @ self.host.lattice, axis=1).max())


def guests_of(crystal: Crystal, is_guest: np.ndarray) -> np.ndarray:
    """Which atoms of oxygen-and-guests are guests."""
    return is_guest[(crystal.numbers == 8) | is_guest]


def nearest_oxygen(crystal: Crystal, is_guest: np.ndarray) -> list[float]:
    """Å from each guest to its nearest oxygen."""
    structure = crystal.to_pymatgen()
    distances = structure.distance_matrix[np.ix_(is_guest, crystal.numbers == 8)]
    return [round(float(d), 3) for d in distances.min(1)]


def in_tunnels(host: Crystal, fractional: np.ndarray) -> tuple[list[float], list[float]]:
    """Of each position, the radius of the tunnel that it lies in, and how far it is from the tunnel's axis, in Å."""
    basis, middle, radius = tunnels(host)
    wrapped = fractional - np.floor(fractional)
    away = np.linalg.norm((wrapped @ host.lattice @ basis.T)[:, None] - middle[None], axis=-1)
    return [round(float(r), 2) for r in radius[away.argmin(1)]], [round(float(d), 2) for d in away.min(1)]


def tunnels(host: Crystal) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The host seen along the lattice vector that leaves the widest holes between the columns of its atoms.

    Returns:
        basis: (2, 3) of the plane that is looked at.
        middle: (k, 2) Å, of the holes in and around the cell.
        radius: (k,) Å, from a middle to the nearest column.
    """
    shifts = np.array(list(itertools.product(range(-3, 4), repeat=3)))
    atoms = ((host.fractional[None] + shifts[:, None]) @ host.lattice).reshape(-1, 3)
    views = []
    for direction in itertools.product((-1, 0, 1), repeat=3):
        vector = np.array(direction) @ host.lattice
        if 0 < np.linalg.norm(vector) < 7:
            basis = np.linalg.svd(vector[None])[2][1:]
            views.append((basis, *_holes(host, atoms @ basis.T, basis)))
    return max(views, key=lambda view: view[2].max())


def _holes(host: Crystal, columns: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    corners = Voronoi(np.unique(columns.round(3), axis=0)).vertices
    around = np.array(list(itertools.product((-0.5, 1.5), repeat=3))) @ host.lattice @ basis.T
    corners = corners[((corners >= around.min(0)) & (corners <= around.max(0))).all(1)]
    radius = np.linalg.norm(corners[:, None] - columns[None], axis=-1).min(1)
    kept: list[int] = []
    for i in np.argsort(-radius):
        if all(np.linalg.norm(corners[i] - corners[j]) > 1.5 for j in kept):
            kept.append(int(i))
    return corners[kept], radius[kept]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("mno2"))
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", nargs="*", help="for example beta-Li; all when left out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    folder = arguments.out / "cases"
    folder.mkdir(parents=True, exist_ok=True)
    generator = Generator()
    for polymorph, guest in itertools.product(("beta", "gamma", "delta", "alpha"), PER_MN):
        path = folder / f"{polymorph}-{guest}.json"
        if path.exists() or (arguments.cases and path.stem not in arguments.cases):
            continue
        began = time.monotonic()
        result = Case(polymorph, guest, arguments.samples, arguments.seed).run(generator)
        path.write_text(json.dumps(result))
        print(line(result), f"{time.monotonic() - began:.0f} s", flush=True)


def line(result: dict[str, Any]) -> str:
    words = [f"{result['polymorph']}-{result['formula']}"]
    for way, found in result["ways"].items():
        for kind in ("fixed", "full"):
            if kind in found:
                one = found[kind]
                words.append(
                    f"{way} {kind} {one['energy']:.4f} CN {one['coordination']} off axis {max(one['off_axis'])}"
                    f" of {sorted(set(one['tunnel_radius']))}"
                )
    return "; ".join(words)


if __name__ == "__main__":
    main()
