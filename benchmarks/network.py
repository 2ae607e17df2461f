"""Time of the score network on one core, against the same network with e3nn's plain convolution.

    python benchmarks/network.py [--json OUT]

Plain means: a radial network gives every edge all the weights of an ``o3.FullyConnectedTensorProduct``, which is
applied to every edge; the results are summed over edges. The numbers that come out are the same.
"""

import argparse
import copy
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.utils import scatter

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.diffusion.network import Convolution, Features, Graph, NetworkConfig, ScoreNetwork, paths
from model.diffusion.paper_network import PaperNetwork, PaperNetworkConfig

SIZES = (16, 18, 20, 22, 24)  # atoms
VOLUME = 15.0  # Å³ an atom


class PlainConvolution(nn.Module):
    """The convolution as e3nn's modules write it, with the weights of a given `Convolution`."""

    def __init__(self, ours: Convolution, config: NetworkConfig) -> None:
        super().__init__()
        self.ours, self.config = ours, config
        self.product = o3.FullyConnectedTensorProduct(
            natural(ours.inputs),
            natural([1] * (config.harmonics + 1)),
            natural(ours.outputs),
            internal_weights=False,
            shared_weights=False,
        )

    def forward(self, features: Features, graph: Graph) -> Features:
        """Return the convolved features, one (N, 2l+1, outputs[l]) tensor a degree."""
        radial = self.ours.radial(features[0][:, 0], graph)  # (E, R)
        weights = torch.cat([torch.einsum("er,ruw->euw", radial, mix).flatten(1) for mix in self.mixing()], dim=-1)
        x = torch.cat([feature.transpose(1, 2).flatten(1) for feature in features], dim=-1)
        messages = self.product(x[graph.sender], graph.harmonics, weights)
        summed = scatter(messages, graph.receiver, dim=0, dim_size=len(x))
        parts = summed.split([part.dim for part in self.product.irreps_out], dim=-1)
        return [part.view(len(x), m, -1).transpose(1, 2) for part, m in zip(parts, self.ours.outputs, strict=True)]

    def mixing(self) -> list[Tensor]:
        """(R, inputs, outputs) for every path of e3nn's product, in its order, its normalisation taken back."""
        blocks, used = {}, [0] * len(self.ours.outputs)
        for degree, channels in enumerate(self.ours.inputs):
            for edge, out in paths(degree, self.config.harmonics, len(self.ours.outputs) - 1):
                rows = self.ours.mix[out][used[out] : used[out] + self.config.radial * channels]
                used[out] += len(rows)
                blocks[degree, edge, out] = rows.view(self.config.radial, channels, -1)
        fan_in = [count // self.config.radial for count in used]
        return [blocks[path[:3]] * fan_in[path.i_out] ** 0.5 for path in self.product.instructions]


def natural(multiplicities) -> o3.Irreps:
    return o3.Irreps([(m, (degree, (-1) ** degree)) for degree, m in enumerate(multiplicities)])


def plain(network: ScoreNetwork) -> ScoreNetwork:
    """A copy of the network with plain convolutions."""
    other = copy.deepcopy(network)
    for layer in other.layers:
        layer.convolution = PlainConvolution(layer.convolution, network.config)
    return other


def random_crystal(size: int, rng: np.random.Generator) -> Crystal:
    lattice = (size * VOLUME) ** (1 / 3) * (np.eye(3) + rng.uniform(-0.15, 0.15, (3, 3)))
    return Crystal(lattice, rng.random((size, 3)), rng.choice([3, 8, 15, 16, 25, 30], size))


def seconds(network: nn.Module, arguments: tuple, repeats: int) -> float:
    """Median time in s of an inference, neighbour list included."""
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
