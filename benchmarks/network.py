"""Time of the score network on one core, against the same network with e3nn's plain convolution.

    python -m benchmarks.network [--json OUT]

Plain means: a radial network computes all weights of an ``o3.FullyConnectedTensorProduct`` for every edge, the product
is applied to every edge, and the results are summed. Both give the same numbers.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.diffusion.network import NetworkConfig, ScoreNetwork
from model.diffusion.paper_config import PaperNetworkConfig
from model.diffusion.paper_network import PaperNetwork
from tests.support.plain_network import plain

SIZES = (16, 18, 20, 22, 24)  # atoms
VOLUME = 15.0  # Å³ an atom


def random_crystal(size: int, rng: np.random.Generator) -> Crystal:
    lattice = (size * VOLUME) ** (1 / 3) * (np.eye(3) + rng.uniform(-0.15, 0.15, (3, 3)))
    return Crystal(lattice, rng.random((size, 3)), rng.choice([3, 8, 15, 16, 25, 30], size))


def seconds(network: nn.Module, arguments: tuple, repeats: int) -> float:
    """Median time (s) of an inference, including the neighbour list."""
    times = []
    with torch.no_grad():
        network(*arguments)
        for _ in range(repeats):
            began = time.perf_counter()
            network(*arguments)
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def run(*, crystals: int, repeats: int) -> dict:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    batch = Batch.from_crystals([random_crystal(SIZES[i % len(SIZES)], rng) for i in range(crystals)])
    arguments = (batch, torch.full((crystals,), 0.3), torch.ones(len(batch.numbers), dtype=torch.bool))
    ours = ScoreNetwork(NetworkConfig())
    networks = {"ours": ours, "plain": plain(ours), "paper": PaperNetwork(PaperNetworkConfig())}
    times = {name: seconds(network, arguments, repeats) for name, network in networks.items()}
    with torch.no_grad():
        difference = (networks["ours"](*arguments) - networks["plain"](*arguments)).abs().max()
    return {
        "benchmark": "network",
        "host": {"machine": platform.machine(), "system": platform.system(), "python": platform.python_version()},
        "device": "cpu, 1 thread",
        "torch": torch.__version__,
        "config": {"crystals": crystals, "atoms": len(batch.numbers), "repeats": repeats, **ours.config.model_dump()},
        "seconds": times,
        "summary": {
            "speedup": times["plain"] / times["ours"],
            "speedup_over_paper_network": times["paper"] / times["ours"],
            "max_difference": float(difference),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crystals", type=int, default=10, help="crystals in the batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the result")
    options = parser.parse_args()
    result = run(crystals=options.crystals, repeats=options.repeats)
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
