"""SevenNet's network, rewritten for speed on top of the trained weights.

The numbers are those of the ``sevenn`` package to within the rounding of float32; the work is less:

* Messages are summed early and coupled late (`model.potentials.sevennet.convolution`).
* The radial networks are compressed and tabulated (`model.potentials.sevennet.radial`).
* Geometry is float64 in any precision. Energy is differentiated with respect to the edge vectors only.
* In a symmetric crystal only one atom of every orbit is computed; the features of the others are its features, turned.
  The network tells a crystal from its mirror image, so these orbits are those of the proper rotations.

Features of degree l are tensors (n, 2l+1, multiplicity).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.potentials.sevennet.convolution import Convolution, Coupling, Geometry, Group
from model.potentials.sevennet.graph import AtomGraph
from model.potentials.sevennet.harmonics import harmonics
from model.potentials.sevennet.radial import SHORTEST, RadialTable, radial_table
from model.potentials.sevennet.weights import SILU_NORM, LayerWeights, Weights

# What the compression may leave out of the radial functions. In float32, forces change by less than 1e-5 eV/Å.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-9}

Features = list[Tensor]


class SevenNetNetwork:
    """The trained network on one device in one precision; weights are constants.

    Args:
        weights: as read from the package.
        device: where to compute.
        dtype: float32 (as trained) or float64.
    """

    def __init__(self, weights: Weights, *, device: str | torch.device, dtype: torch.dtype) -> None:
        self.dtype, self.device = dtype, torch.device(device)
        self.cutoff, self.place = weights.cutoff, weights.place.to(device)
        self.harmonics = max(path.l2 for path in weights.layers[0].paths)
        self.highest = max(path.l1 for layer in weights.layers for path in layer.paths)
        self.weights, self.coupling = weights, Coupling(weights.layers, dtype=dtype)
        self._tables: dict[int, tuple[RadialTable, list[Layer]]] = {}
        self.embedding, self.readout = weights.embedding.to(device, dtype), weights.readout.to(device, dtype)
        self.scale, self.shift = weights.scale.to(device), weights.shift.to(device)

    def energy_gradient(self, graph: AtomGraph, table: int) -> tuple[Tensor, Tensor]:
        """Energies (R,) in eV of the nodes and dE/dvector (E, 3) in eV/Å, both float64 and detached.

        ``table`` is the index in `model.potentials.sevennet.radial.SHORTEST` that the shortest edge asks for.
        """
        radial, layers = self._layers(table)
        vector = graph.vector.detach().requires_grad_(True)
        with torch.enable_grad():
            length = vector.norm(dim=-1)
            functions = radial(length, graph.real)
            angular = harmonics(vector / length[:, None], self.harmonics).to(self.dtype)
            geometry = self.coupling(angular.detach(), graph.blocks)
            inside = functions.detach().requires_grad_(True)
            energy = self.forward(inside.split(radial.sizes, dim=-1), geometry, graph, layers)
            (of_functions,) = torch.autograd.grad(energy @ graph.copies, inside)  # adds to those of the geometry
            of_angular = self.coupling.of_harmonics(geometry, graph.blocks)
            (gradient,) = torch.autograd.grad([functions, angular], vector, [of_functions, of_angular])
        return energy.detach(), gradient

    def forward(self, functions: Sequence[Tensor], geometry: Geometry, graph: AtomGraph, layers: list[Layer]) -> Tensor:
        """(R,) float64 energies of the nodes; ``functions`` per layer (E, K) of the distances."""
        species = self.place[graph.numbers]
        features = [self.embedding.index_select(0, species)[:, None]]
        for layer, radial in zip(layers, functions, strict=True):
            features = layer(features, radial, geometry, graph)
        scaled = (features[0][:, 0] @ self.readout).double() + self.weights.readout_bias
        return scaled * self.scale[species] + self.shift[species]

    def _layers(self, table: int) -> tuple[RadialTable, list[Layer]]:
        """Made when a crystal first needs it."""
        if table not in self._tables:
            radial = radial_table(self.weights, SHORTEST[table], tolerance=TOLERANCE[self.dtype], dtype=self.dtype)
            layers = [
                Layer(layer, mix, self.coupling.groups, dtype=self.dtype)
                for layer, mix in zip(self.weights.layers, radial.mix, strict=True)
            ]
            self._tables[table] = radial, layers
        return self._tables[table]


class Layer:
    """One interaction: convolution of what the atoms send, a linear map of their own features, and gates."""

    def __init__(self, weights: LayerWeights, mix: Tensor, groups: list[Group], *, dtype: torch.dtype) -> None:
        self.scalars = weights.scalars
        self.own = [matrix.to(dtype) for matrix in weights.own]
        self.before = [matrix.to(dtype) for matrix in weights.before]
        self.before_bias, self.after_bias = weights.before_bias.to(dtype), weights.after_bias.to(dtype)
        self.convolution = Convolution(weights, mix, groups, dtype=dtype)

    def __call__(self, features: Features, radial: Tensor, geometry: Geometry, graph: AtomGraph) -> Features:
        """The nodes' new features; ``radial`` (E, K) and ``geometry`` belong to the edges."""
        sent = [x @ matrix for x, matrix in zip(features, self.before, strict=True)]
        if self.before_bias.any():  # only with several modalities
            sent[0] = sent[0] + self.before_bias
        if graph.node is not None and graph.turns is not None:
            sent = [x.index_select(0, graph.node) for x in sent]
            sent = [sent[0], *(torch.bmm(turn, x) for turn, x in zip(graph.turns[1:], sent[1:], strict=False))]
        received = self.convolution(radial, geometry, sent, graph.blocks)
        for degree, (x, matrix) in enumerate(zip(features, self.own, strict=False)):
            received[degree] = received[degree] + x @ matrix
        return self._gated(received)

    def _gated(self, received: Features) -> Features:
        scalars = torch.nn.functional.silu(received[0] + self.after_bias) * SILU_NORM
        gates = scalars[..., self.scalars :].split([x.shape[-1] for x in received[1:]], dim=-1)
        return [scalars[..., : self.scalars], *(x * gate for x, gate in zip(received[1:], gates, strict=True))]
