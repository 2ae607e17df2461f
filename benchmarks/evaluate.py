"""One evaluation (energy, forces, stress, CHGNet's moments): ours against the package, cost against size, and memory.

    python benchmarks/evaluate.py --json evaluate.json
    python benchmarks/evaluate.py --parts package lists --limit 4
    python benchmarks/evaluate.py --potential 7net-l3i5 --json sevennet.json

Times are CPU seconds of this process on one thread, the best of several, alternating between ours and the package;
they are less affected by other work on the machine than wall time. Crystals come from generated.extxyz; larger ones
are supercells of those of 20 atoms. SevenNet is compared with the package's ASE calculator, its neighbour list
included, on crystals of 10 and of 40 atoms; ``speedup`` is the smaller of the two. ``growth`` is the peak memory of a
fresh process minus its memory after loading the model and evaluating one small crystal (Linux). ``lists`` is the
share of neighbour and angle lists in the time of an evaluation, which is the most that reusing them within a skin
distance could save.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before anything below loads a thread pool

import argparse
import json
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pandas as pd
import torch
from chgnet.model import CHGNet

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.crystals.neighbors import undirected_bonds
from model.library.phases import PACKAGED, packaged_library
from model.potentials.catalog import DEFAULT, find_entry, load_potential
from model.potentials.chgnet.network import build_graph
from model.potentials.interface import Potential
from model.symmetry.projector import symmetric_start

GENERATED = Path(__file__).with_name("generated.extxyz")
REPEATS = {20: (1, 1, 1), 40: (2, 1, 1), 100: (5, 1, 1), 200: (5, 2, 1), 500: (5, 5, 1)}
PARTS = ("package", "size", "lists", "symmetry", "memory")
SEVENNET = {  # names of the package's models, and their modality
    "7net-0": ("7net-0", None),
    "7net-l3i5": ("7net-l3i5", None),
    "7net-mf-0-pbe": ("7net-mf-0", "PBE"),
    "7net-mf-0-r2scan": ("7net-mf-0", "R2SCAN"),
}


def generated(family: str | None = None) -> list[Crystal]:
    frames = ase.io.read(GENERATED, ":")
    return [Crystal.from_ase(atoms) for atoms in frames if family in (None, atoms.info["family"])]


def repeated(crystal: Crystal, repeats: tuple[int, int, int]) -> Crystal:
    return Crystal.from_ase(crystal.to_ase() * repeats)


def cpu_seconds(jobs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Smallest CPU seconds of each job; the jobs alternate in every repeat."""
    best = dict.fromkeys(jobs, np.inf)
    for repeat in range(repeats + 1):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            if repeat:  # the first round warms up
                best[name] = min(best[name], time.process_time() - start)
    return best


def against_sevennet(ours: Potential, repeats: int) -> dict[str, Any]:
    """Crystals of 10 and 40 atoms one by one, and those of 10 as a batch of 32."""
    from sevenn.calculator import SevenNetCalculator

    model, modality = SEVENNET[ours.name]
    calculator = SevenNetCalculator(model, modal=modality, device="cpu")
    small = [crystal for crystal in generated() if len(crystal) == 10][::4]
    rows = []
    for size, times in ((10, (1, 1, 1)), (40, (2, 2, 1))):
        for crystal in (repeated(one, times) for one in small):
            atoms = crystal.to_ase()
            jobs = {
                "package": lambda a=atoms: calculator.calculate(a),
                "ours": lambda c=crystal: ours.evaluate([c]),
            }
            seconds = cpu_seconds(jobs, repeats)
            (found,) = ours.evaluate([crystal])
            calculator.calculate(atoms)
            apart = {
                "energy_apart": abs(calculator.results["energy"] / len(atoms) - found.energy),
                "forces_apart": float(np.abs(calculator.results["forces"] - found.forces).max()),
            }
            rows.append({"formula": crystal.formula, "atoms": size, **seconds, **apart})
    table = pd.DataFrame(rows)
    means = table.groupby("atoms")[["package", "ours"]].mean()
    batch = (small * 32)[:32]
    in_batch = cpu_seconds({"ours": lambda: ours.evaluate(batch)}, repeats)["ours"] / sum(len(c) for c in batch)
    by_size = {int(size): float(row.package / row.ours) for size, row in means.iterrows()}
    return {
        "crystals": rows,
        "speedup": min(by_size.values()),
        "speedup_by_atoms": by_size,
        "speedup_of_10_atoms_in_batch": float(means.package[10] / 10 / in_batch),
        "ms_per_atom_package": {int(n): 1e3 * row.package / n for n, row in means.iterrows()},
        "ms_per_atom_ours": {int(n): 1e3 * row.ours / n for n, row in means.iterrows()},
        "ms_per_atom_ours_in_batch": 1e3 * in_batch,
        "largest_difference": {"eV/atom": table.energy_apart.max(), "eV/Å": table.forces_apart.max()},
    }


def against_package(ours: Potential, limit: int, repeats: int) -> dict[str, Any]:
    """Crystals of 20 atoms one by one and as a batch."""
    if ours.name in SEVENNET:
        return against_sevennet(ours, repeats)
    model = CHGNet.load(use_device="cpu", verbose=False)
    model.graph_converter.set_isolated_atom_response("ignore")
    crystals = [crystal for crystal in generated() if len(crystal) == 20][::2][:limit]
    rows = []
    for crystal in crystals:
        structure = crystal.to_pymatgen()
        jobs = {
            "package": lambda s=structure: model.predict_structure(s, task="efsm"),
            "ours": lambda c=crystal: ours.evaluate([c]),
        }
        rows.append({"formula": crystal.formula, **cpu_seconds(jobs, repeats)})
    batch = cpu_seconds({"ours": lambda: ours.evaluate(crystals)}, repeats)["ours"] / len(crystals)
    package = np.array([row["package"] for row in rows])
    return {
        "crystals": rows,
        "ms_package": 1e3 * package.mean(),
        "ms_ours": 1e3 * np.mean([row["ours"] for row in rows]),
        "ms_ours_in_batch": 1e3 * batch,
        "speedup": float(package.mean() / np.mean([row["ours"] for row in rows])),
        "speedup_in_batch": float(package.mean() / batch),
    }


def against_size(ours: Potential, repeats: int) -> dict[str, dict[int, float]]:
    """Milliseconds per atom against atoms in the crystal."""
    found = {}
    for family in ("Zn4P4S12", "Na in mp-1105143"):
        crystal = generated(family)[0]
        sizes = {str(size): repeated(crystal, times) for size, times in REPEATS.items()}
        jobs = {size: lambda c=larger: ours.evaluate([c]) for size, larger in sizes.items()}
        found[family] = {int(n): 1e3 * t / int(n) for n, t in cpu_seconds(jobs, repeats).items()}
    return found


def lists(ours: Potential, repeats: int) -> dict[str, float]:
    """Share of CHGNet's bonds and angles in the time of an evaluation, by number of atoms in the crystal."""
    found = {}
    for size, times in ((20, (1, 1, 1)), (100, (5, 1, 1))):
        for family in ("Zn4P4S12", "Na in mp-1105143"):
            crystal = repeated(generated(family)[0], times)
            batch = Batch.from_crystals([crystal], dtype=torch.float64)
            jobs = {
                "lists": lambda b=batch: build_graph(undirected_bonds(b, 6.0), b, 3.0),
                "all": lambda b=batch: ours.compute(b),
            }
            seconds = cpu_seconds(jobs, repeats)
            found[f"{size} atoms of {family}"] = seconds["lists"] / seconds["all"]
    return found


def symmetry(ours: Potential, limit: int, repeats: int) -> dict[str, float]:
    """Known phases of 8 to 16 atoms, whole and by orbits, in one batch."""
    phases = pd.read_parquet(PACKAGED, columns=["material_id", "n_atoms"])
    names = phases["material_id"][phases["n_atoms"].between(8, 16)].tolist()
    some = [packaged_library().crystal(name) for name in names[:: len(names) // limit][:limit]]
    device = torch.device("cpu")
    starts = [symmetric_start(c, np.ones(len(c), dtype=bool), symprec=0.01, device=device) for c in some]
    batch = Batch.from_crystals([crystal for crystal, _ in starts], dtype=torch.float64)
    projectors = [projector for _, projector in starts]
    jobs = {"whole": lambda: ours.compute(batch), "orbits": lambda: ours.compute(batch, projectors)}
    seconds = cpu_seconds(jobs, repeats)
    return {
        "crystals": len(some),
        "atoms": len(batch.numbers) / len(some),
        "orbits": sum(len(c) if p is None else p.orbits for c, p in starts) / len(some),
        "ms_whole": 1e3 * seconds["whole"] / len(some),
        "ms_by_orbits": 1e3 * seconds["orbits"] / len(some),
        "speedup": seconds["whole"] / seconds["orbits"],
    }


def hard(kind: str) -> list[Crystal]:
    """Inputs that might need much memory."""
    if kind == "100 crystals":
        return generated()
    if kind == "500 atoms":
        return [repeated(generated("Na in mp-1105143")[0], (5, 5, 1))]
    if kind == "504 atoms of an oxide":
        return [repeated(generated("Zn in gamma-MnO2")[0], (3, 3, 2))]
    if kind == "2016 atoms of an oxide":
        return [repeated(generated("Zn in gamma-MnO2")[0], (6, 6, 2))]
    if kind == "64 of 40 atoms":
        return [repeated(generated("Zn4P4S12")[0], (2, 1, 1))] * 64
    if kind == "needle cells":
        return [Crystal(np.diag([0.8, 0.9, 120.0 + i]), [[0, 0, 0], [0, 0, 0.5]], [3, 14]) for i in range(64)]
    if kind == "2000 tiny cells":
        return [Crystal(np.eye(3) * (2.2 + 1e-4 * i), [[0, 0, 0]], [3]) for i in range(2000)]
    if kind == "dense crystal":  # 60 atoms in a third of their volume
        rng = np.random.default_rng(0)
        return [Crystal(np.eye(3) * 5.5, rng.random((60, 3)), [14] * 60)]
    assert kind == "64 of 100 atoms"
    return [repeated(generated("Zn4P4S12")[0], (5, 1, 1))] * 64


HARD = (
    "100 crystals",
    "500 atoms",
    "504 atoms of an oxide",
    "2016 atoms of an oxide",
    "needle cells",
    "2000 tiny cells",
    "dense crystal",
    "64 of 40 atoms",
    "64 of 100 atoms",
)


def growth(name: str, kind: str) -> float:
    """Increase of this process's peak memory (MB) by evaluating hard inputs."""
    ours, crystals = load_potential(name), hard(kind)
    ours.evaluate(generated()[:1])
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    before = peak_mb()
    ours.evaluate(crystals)
    return peak_mb() - before


def peak_mb() -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return float(line.split()[1]) / 1024


def memory(name: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--potential", name, "--growth"]
    return {kind: float(subprocess.check_output([*command, kind], text=True).split()[-1]) for kind in HARD}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--potential", default=DEFAULT, help="name in the catalogue")
    parser.add_argument("--limit", type=int, default=8, help="crystals compared with the package")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parts", choices=PARTS, nargs="+", help="default: all; of SevenNet, only package")
    parser.add_argument("--growth", choices=HARD, help="print the memory that one hard input takes, and no more")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if args.growth:
        print(growth(args.potential, args.growth))
        return
    ours = find_entry(args.potential).construct(args.potential, "cpu")  # raw energies, as those of the package
    jobs: dict[str, Callable[[], Any]] = {
        "package": lambda: against_package(ours, args.limit, args.repeats),
        "size": lambda: {"ms_per_atom": against_size(ours, args.repeats)},
        "lists": lambda: {"lists": lists(ours, args.repeats)},
        "symmetry": lambda: {"symmetry": symmetry(ours, 8 * args.limit, args.repeats)},
        "memory": lambda: {"peak_growth_mb": memory(args.potential)},
    }
    parts = args.parts or (["package"] if args.potential in SEVENNET else list(PARTS))
    summary: dict[str, Any] = {"potential": args.potential}
    for part in parts:
        summary |= jobs[part]()
    crystals = summary.pop("crystals", [])
    print(json.dumps(summary, indent=1))
    if args.json:
        host = {"host": platform.processor() or platform.machine(), "torch": torch.__version__}
        args.json.write_text(json.dumps({"summary": summary, **host, "crystals": crystals}, indent=1))


if __name__ == "__main__":
    main()
