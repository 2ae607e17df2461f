"""Guests in the MnO2 polymorphs, as in the inpainting paper: all data and figures of docs/mno2.md.

    python benchmarks/cases/mno2.py --out mno2 --docs docs/mno2.md

Four hosts and four guests: Zn0.5MnO2, Mg0.5MnO2, HMnO2 and LiMnO2. Up to three methods are compared with the same
number of attempts: inpainting, guests in the widest voids, and, for H, positions from the Materials Project. Guests are
first relaxed in the fixed host; the three best arrangements are then relaxed in full.

Every case is stored under OUT/<weights>-<samples>-<seed> and computed only once; the benchmark can be stopped at any
time, rerun the same command to resume. Table and figures are made from the finished cases; when all are finished,
--docs inserts them into the page.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before anything below loads a thread pool

import argparse
import itertools
import json
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.collections import LineCollection
from pymatgen.core import Structure
from scipy.spatial import Voronoi

from model.analysis.coordination import coordination_numbers
from model.crystals.crystal import Crystal
from model.crystals.matching import DistinctCrystals
from model.crystals.periodic_images import rounded_lengths, rounded_steps
from model.crystals.screening import ScreenSettings
from model.crystals.voids import void_sites
from model.relaxation.relax import Relaxation, RelaxSettings
from model.stages import CrystalMaker, Rejected, Relaxer, may_be_ranked
from model.symmetry.space_group import space_group
from search.storage.crystal_files import read_host
from search.studies.inpaint import fill, make_templates

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "mno2"
ENTRIES = {
    name: next(EXAMPLES.glob(f"MnOOH-{name}-*.cif")) for name in ("alpha", "beta", "gamma", "delta")
}  # the guests' places of MnOOH
NAMES = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ"}
COLOURS = {
    "Mn": ("#7b4fa3", 90),
    "O": ("#d33b2f", 40),
    "Zn": ("#8a8f98", 120),
    "Mg": ("#f28c28", 120),
    "H": ("white", 45),
    "Li": ("#2fa84f", 110),
}
PER_MN = {"Zn": 0.5, "Mg": 0.5, "H": 1.0, "Li": 1.0}
CASES = [f"{polymorph}-{guest}" for polymorph in ENTRIES for guest in PER_MN]
KINDS = ("fixed", "full")  # how far a case is relaxed
SAME = 1.0  # meV/atom: energies that differ by no more count as equal
MARKS = ("<!-- table of benchmarks/cases/mno2.py -->", "<!-- end of table -->")


class Case:
    """One guest in one host."""

    def __init__(self, polymorph: str, guest: str, samples: int, seed: int) -> None:
        self.polymorph, self.guest, self.samples, self.seed = polymorph, guest, samples, seed
        self.host = read_host(EXAMPLES / f"{polymorph}.cif")
        self.count = round(PER_MN[guest] * (self.host.numbers == 25).sum())
        self.templates = make_templates(self.host, {guest: self.count}, samples=samples, seed=seed)
        self.is_guest = self.templates[0].guest
        self.fixed = Relaxer(
            "chgnet-0.3.0", RelaxSettings(cell="fixed", optimizer="lbfgs", fmax=0.05), ScreenSettings()
        )
        self.full = Relaxer("chgnet-0.3.0", RelaxSettings(optimizer="lbfgs", fmax=0.05), ScreenSettings())

    def run(self, maker: CrystalMaker) -> dict[str, Any]:
        began = time.monotonic()
        filled, dropped = fill(self.templates, maker, self.fixed, free_guests_only=True)
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
            "formula": self.templates[0].crystal.formula,
            "samples": self.samples,
            "dropped": dropped,
            "seconds": seconds,
            "ways": ways,
        }

    def _relax_guests(self, crystals: list[Crystal]) -> list[Relaxation]:
        outcomes = self.fixed.relax(crystals, [self.is_guest] * len(crystals))
        return [one for one in outcomes if not isinstance(one, Rejected) and may_be_ranked(one)]

    def _void_arrangements(self) -> list[Crystal]:
        """Guests in the widest voids, spread out by a greedy choice from random first sites."""
        voids = void_sites(self.host, min_radius=1.0 if self.guest == "H" else 1.5)
        radius = np.array([void.radius for void in voids])
        sites = np.array([void.fractional for void in voids])
        apart = rounded_lengths(sites[:, None] - sites, self.host.lattice)
        rng = np.random.default_rng(self.seed)
        crystals = []
        for _ in range(self.samples):
            chosen = [int(rng.choice(len(sites), p=radius**3 / (radius**3).sum()))]
            while len(chosen) < self.count:
                room = np.minimum(apart[chosen].min(0), 3.0) + 0.5 * radius + rng.normal(0, 0.2, len(sites))
                room[chosen] = -np.inf
                chosen.append(int(room.argmax()))
            crystals.append(
                self.templates[0].crystal.replace(fractional=np.concatenate([self.host.fractional, sites[chosen]]))
            )
        return crystals

    def _finish(self, fixed: list[Relaxation]) -> dict[str, Any]:
        """The best arrangement in the fixed host, and the best one after full relaxation of the three best."""
        if not fixed:
            return {"arrangements": 0}
        fixed = sorted(fixed, key=lambda one: one.energy_final)
        distinct = DistinctCrystals()
        best = [one for one in fixed if distinct.add(one.final) is None]
        outcomes = self.full.relax([one.final for one in best[:3]])
        full = [one for one in outcomes if not isinstance(one, Rejected) and may_be_ranked(one)]
        result = {"arrangements": len(best), "fixed": self._describe(fixed[0])}
        if full:
            result["full"] = self._describe(min(full, key=lambda one: one.energy_final))
        return result

    def _describe(self, one: Relaxation) -> dict[str, Any]:
        crystal = one.final
        group = space_group(crystal)
        oxygen = coordination_numbers(crystal.select((crystal.numbers == 8) | self.is_guest), neighbours=["O"])
        return {
            "energy": one.energy_final,
            "converged": one.converged,
            "space_group": group.symbol if group else "P1",
            "volume_change": crystal.volume / self.host.volume - 1,
            "host_moved": self._host_moved(crystal),
            "coordination": sorted(int(n) for n in oxygen[guests_of(crystal, self.is_guest)]),
            "distances": nearest_oxygen(crystal, self.is_guest),
            "structure": crystal.to_pymatgen().as_dict(),
        }

    def _host_moved(self, crystal: Crystal) -> float:
        """Largest displacement (Å) of a host atom, measured in the initial cell, without the common shift."""
        shift = rounded_steps(crystal.fractional[~self.is_guest] - self.host.fractional)
        return float(np.linalg.norm((shift - shift.mean(0)) @ self.host.lattice, axis=1).max())


def guests_of(crystal: Crystal, is_guest: np.ndarray) -> np.ndarray:
    """Mask of the guests among the atoms."""
    return is_guest[(crystal.numbers == 8) | is_guest]


def nearest_oxygen(crystal: Crystal, is_guest: np.ndarray) -> list[float]:
    """Distance (Å) from each guest to its nearest oxygen."""
    structure = crystal.to_pymatgen()
    distances = structure.distance_matrix[np.ix_(is_guest, crystal.numbers == 8)]
    return [round(float(d), 3) for d in distances.min(1)]


def off_axis(host: Crystal, guests: np.ndarray) -> tuple[np.ndarray, float]:
    """Distances (Å) of guests (m, 3), fractional, from the axis of the nearest wide tunnel, and its radius in Å.

    A guest is in the tunnel if it is nearer to the axis than the columns of host atoms are.
    """
    basis, middle, radius = tunnels(host)
    middle = middle[radius > 0.9 * radius.max()]
    wrapped = guests - np.floor(guests)
    away = np.linalg.norm((wrapped @ host.lattice @ basis.T)[:, None] - middle[None], axis=-1)
    return away.min(1), float(radius.max())


def tunnels(host: Crystal) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tunnels of the host: projection along the lattice vector with the widest holes between columns of atoms.

    Returns:
        basis: (2, 3) basis of the projection plane.
        middle: (k, 2) Å, centres of the holes in and around the cell.
        radius: (k,) Å, from a centre to the nearest column.
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
    parser.add_argument("--weights", help="score model; the packaged one when left out")
    parser.add_argument("--cases", nargs="*", default=CASES, choices=CASES, metavar="CASE", help="for example beta-Li")
    parser.add_argument("--docs", type=Path, help="page whose table is replaced; pictures go to images beside it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    maker = CrystalMaker(arguments.weights)
    folder = arguments.out / f"{maker.version}-{arguments.samples}-{arguments.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for case in arguments.cases:
        if (folder / f"{case}.json").exists():
            continue
        began = time.monotonic()
        result = Case(*case.split("-"), arguments.samples, arguments.seed).run(maker)
        unfinished = folder / "unfinished"
        unfinished.write_text(json.dumps(result))
        unfinished.replace(folder / f"{case}.json")
        print(line(result), f"{time.monotonic() - began:.0f} s", flush=True)
    results = [json.loads(path.read_text()) for case in CASES if (path := folder / f"{case}.json").exists()]
    (folder / "table.md").write_text(table(results))
    for kind in KINDS:
        draw(results, kind, folder / f"mno2-{kind}.png")
    print(f"{len(results)} of {len(CASES)} cases are done: {folder}")
    if arguments.docs and len(results) == len(CASES):
        into_page(folder, arguments.docs)


def into_page(folder: Path, page: Path) -> None:
    """Replace the text between the marks of the page by the table, and copy the figures."""
    before, mark, rest = page.read_text().partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not (mark and end):
        raise ValueError(f"{page} lacks the lines {MARKS[0]} and {MARKS[1]}, between which the table is inserted")
    page.write_text(f"{before}{mark}\n\n{(folder / 'table.md').read_text()}\n{end}{after}")
    for kind in KINDS:
        shutil.copy(folder / f"mno2-{kind}.png", page.parent / "images")


def table(results: list[dict[str, Any]]) -> str:
    """Markdown table, one row per case."""
    rows = [
        "| host | formula | fixed host: vs best other method, meV/atom | in the tunnel, Å off its axis "
        "| O around a guest | Å to O | full relaxation: vs best other method | O around a guest | Å to O "
        "| volume change | host moved Å |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        ways = result["ways"]
        cells = [NAMES[result["polymorph"]], result["formula"]]
        for kind in KINDS:
            mine = ways["inpainted"][kind]
            counts = Counter(mine["coordination"])
            around = ", ".join(f"{n}" if len(counts) == 1 else f"{n} ({k}×)" for n, k in sorted(counts.items()))
            above = round(against(result, kind), 1) + 0.0  # no minus before a zero
            cells += [f"{above:+.1f}" if above else "0.0"]
            if kind == "fixed":
                away, radius = off_axis(*host_and_guests(result))
                cells += [f"{(away < radius).sum()} of {len(away)}, {span(away)}"]
            cells += [around, span(mine["distances"])]
        full = ways["inpainted"]["full"]
        cells += [f"{100 * full['volume_change']:+.0f} %", f"{full['host_moved']:.2f}"]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join([*(verdict(results, kind) for kind in KINDS), *rows]) + "\n"


def span(numbers: Sequence[float] | np.ndarray) -> str:
    """Range of some numbers, as text."""
    least, greatest = min(numbers), max(numbers)
    return f"{least:.2f}" if greatest - least < 0.01 else f"{least:.2f}–{greatest:.2f}"


def host_and_guests(result: dict[str, Any]) -> tuple[Crystal, np.ndarray]:
    """The host of a case, and the fractional positions of its guests in it."""
    found = Crystal.from_pymatgen(Structure.from_dict(result["ways"]["inpainted"]["fixed"]["structure"]))
    guests = np.array(found.symbols) == result["guest"]
    return found.select(~guests), found.fractional[guests]


def against(result: dict[str, Any], kind: str) -> float:
    """Energy (meV/atom) of the best inpainted arrangement relative to the best of the other methods."""
    energies = {way: found[kind]["energy"] for way, found in result["ways"].items() if kind in found}
    return 1e3 * (energies.pop("inpainted") - min(energies.values()))


def verdict(results: list[dict[str, Any]], kind: str) -> str:
    """A sentence that states in how many cases inpainting is as low as the other methods, and lists the others."""
    words = {"fixed": "In the host as given", "full": "After full relaxation"}[kind]
    above = [(against(result, kind), f"{NAMES[result['polymorph']]}-{result['formula']}") for result in results]
    missed = [f"{name} ({high:+.1f})" for high, name in above if high > SAME]
    lower = sum(high < -SAME for high, _ in above)
    return (
        f"{words}, inpainting is as low as the best other method (within {SAME:.0f} meV/atom) or lower in "
        f"{len(results) - len(missed)} of {len(results)} cases, lower in {lower}"
        f"{'; above it in ' + ', '.join(missed) if missed else ''}.\n"
    )


def draw(results: list[dict[str, Any]], kind: str, path: Path) -> None:
    """Draw every case viewed along its tunnels."""
    by_case = {(result["polymorph"], result["guest"]): result for result in results}
    figure, axes = plt.subplots(len(ENTRIES), len(PER_MN), figsize=(11, 11.5), layout="constrained")
    for (polymorph, guest), axis in zip(itertools.product(ENTRIES, PER_MN), axes.ravel(), strict=True):
        axis.set_axis_off()
        if (polymorph, guest) in by_case:
            result = by_case[polymorph, guest]
            found = result["ways"]["inpainted"][kind]
            _view(axis, Structure.from_dict(found["structure"]), tunnels(read_host(EXAMPLES / f"{polymorph}.cif"))[0])
            axis.set_title(f"{NAMES[polymorph]}  {result['formula']}", fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _view(axis: Any, structure: Structure, basis: np.ndarray) -> None:
    """A slab of 7 Å in a window: bonds of Mn as lines, atoms as discs, guests on top."""
    window, thickness = 13.0, 7.0
    shifts = np.array(list(itertools.product(range(-4, 5), repeat=3))) @ structure.lattice.matrix
    depth = np.cross(*basis)

    def seen(coords: np.ndarray) -> np.ndarray:
        points = coords.reshape(len(coords), 1, -1, 3)  # one point an atom, two a bond
        places = (points + shifts[:, None]).reshape(-1, points.shape[2], 3)
        inside = (np.abs(places @ depth) < thickness / 2).all(1)
        flat = places @ basis.T
        return flat[inside & (np.abs(flat) < window / 2 + 1).all((1, 2))]

    bonds = [
        np.concatenate([site.coords, other.coords])
        for site in structure
        for other in (structure.get_neighbors(site, 2.4) if site.specie.symbol == "Mn" else ())
        if other.specie.symbol == "O"
    ]
    axis.add_collection(LineCollection(seen(np.array(bonds)), colors="#b9a5cf", linewidths=2.5, zorder=1))
    for symbol, (colour, size) in COLOURS.items():
        own = np.array([site.coords for site in structure if site.specie.symbol == symbol])
        if len(own):
            axis.scatter(
                *seen(own)[:, 0].T,
                s=size,
                color=colour,
                edgecolors="black",
                linewidths=0.5,
                zorder=2 + (symbol in PER_MN),
            )
    axis.set(xlim=(-window / 2, window / 2), ylim=(-window / 2, window / 2), aspect="equal")


def line(result: dict[str, Any]) -> str:
    words = [f"{result['polymorph']}-{result['formula']}"]
    for way, found in result["ways"].items():
        for kind in KINDS:
            if kind in found:
                one = found[kind]
                words.append(f"{way} {kind} {one['energy']:.4f} CN {one['coordination']}")
    return "; ".join(words)


if __name__ == "__main__":
    main()
