"""How many crystals a second: relaxation by each potential, and the sampler, against crystal and batch size.

    python -m benchmarks.throughput --json throughput.json
    python -m benchmarks.throughput --device cuda --batch 1 32 256 --json throughput.json

The crystals are known phases of 8, 20, 40 and 100 atoms, their atoms displaced by 0.1 Å on average, relaxed with the
default settings and their cell. ``us_per_atom_step`` is time over the sum of atoms times steps, ``per_second`` the
relaxed or sampled crystals a second, ``steps`` the mean number of steps. ``profile`` says where the time goes: the
operations of PyTorch with the largest shares, for crystals of 20 atoms in the largest batch. On a CPU the time is that
of one thread, as an actor of a search has it; on a GPU it is wall time. One crystal is computed before, to warm up.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile

from model.crystals.crystal import Crystal
from model.diffusion.checkpoint import load_network, weights_file
from model.diffusion.sampler import AncestralSettings, Template, sample
from model.library.phases import PACKAGED, packaged_library
from model.potentials.catalog import DEFAULT, load_potential
from model.potentials.interface import Potential
from model.relaxation.relax import RelaxSettings, relax

SIZES = (8, 20, 40, 100)
SHOWN = 8  # operations in a profile
RATTLE = 0.1  # Å


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--potential", nargs="+", default=[DEFAULT])
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="atoms")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 32], help="crystals")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit(f"--device {arguments.device}: PyTorch finds no GPU here; use cpu")
    torch.set_num_threads(1)
    jobs: dict[str, Callable[[list[Crystal]], dict[str, float]]] = {
        name: _relaxation(load_potential(name, device=arguments.device), arguments.device)
        for name in arguments.potential
    }
    jobs["sampler small"] = _sampling(arguments.device)
    phases = {size: _phases(size, max(arguments.batch)) for size in arguments.sizes}
    rows, profiles = [], {}
    for name, job in jobs.items():
        for size in arguments.sizes:
            for batch in arguments.batch:
                job(phases[size][:1])
                rows.append({"what": name, "atoms": size, "batch": batch, **job(phases[size][:batch])})
                print(json.dumps(rows[-1]), flush=True)
        profiles[name] = _profile(lambda job=job: job(_phases(20, max(arguments.batch))), arguments.device)
    machine = torch.cuda.get_device_name() if arguments.device != "cpu" else platform.processor() or platform.machine()
    result = {"device": arguments.device, "machine": machine, "torch": torch.__version__}
    if arguments.json:
        content = {**result, "rows": rows, "profile": profiles}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


def _phases(size: int, count: int) -> list[Crystal]:
    """Displaced known phases of this size; repeated if there are too few."""
    phases, rng = pd.read_parquet(PACKAGED, columns=["material_id", "n_atoms"]), np.random.default_rng(size)
    names = phases["material_id"][phases["n_atoms"] == size].tolist()
    chosen = [packaged_library().crystal(names[i]) for i in rng.permutation(len(names))[:count]]
    moved = [
        one.replace(fractional=one.fractional + rng.normal(0, RATTLE / 3**0.5, (size, 3)) @ np.linalg.inv(one.lattice))
        for one in chosen
    ]
    return (moved * (count // len(moved) + 1))[:count]


def _now(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _relaxation(potential: Potential, device: str) -> Callable[[list[Crystal]], dict[str, float]]:
    def job(crystals: list[Crystal]) -> dict[str, float]:
        began = _now(device)
        results = relax(crystals, potential, RelaxSettings(), batch_size=len(crystals))
        seconds = _now(device) - began
        work = sum(len(one.initial) * (one.steps + 1) for one in results)
        steps = float(np.mean([one.steps for one in results]))
        return {"us_per_atom_step": 1e6 * seconds / work, "per_second": len(crystals) / seconds, "steps": steps}

    return job


def _sampling(device: str) -> Callable[[list[Crystal]], dict[str, float]]:
    network, settings = load_network(weights_file("small"), device=device), AncestralSettings()

    def job(crystals: Sequence[Crystal]) -> dict[str, float]:
        everything = [np.ones(len(one), dtype=bool) for one in crystals]
        templates = [
            Template(crystal=one, guest=mask, seed=seed)
            for seed, (one, mask) in enumerate(zip(crystals, everything, strict=True))
        ]
        began = _now(device)
        samples = sample(network, templates, settings, device=device)
        seconds = _now(device) - began
        work = samples.evaluations * sum(map(len, crystals))
        return {
            "us_per_atom_step": 1e6 * seconds / work,
            "per_second": len(crystals) / seconds,
            "steps": float(samples.evaluations),
        }

    return job


def _profile(job: Callable[[], Any], device: str) -> dict[str, float]:
    """Share of the time of the most expensive operations."""
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device != "cpu" else [])
    with profile(activities=kinds) as found:
        job()
    name = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    times = {event.key: float(getattr(event, name)) for event in found.key_averages()}
    total = sum(times.values())
    largest = sorted(times.items(), key=lambda item: -item[1])[:SHOWN]
    return {key: value / total for key, value in largest}


if __name__ == "__main__":
    main()
