"""The score network with e3nn's plain convolution: the same numbers, from another implementation."""

import copy

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.utils import scatter

from model.diffusion.network import AtomGraph, Convolution, Features, NetworkConfig, ScoreNetwork, paths


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

    def forward(self, features: Features, graph: AtomGraph) -> Features:
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
