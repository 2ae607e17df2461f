"""The papers' score network, for comparison: an equivariant network of NequIP type that never sees the noise level.

It follows Table 2 of the ICML paper and eqs. 9-11 of the preprint, which describe the NequIP of the `graphite` library.
Where they are silent the library decides: each interaction adds a self-interaction (eq. 9) to a convolution (eq. 10)
that stands between two further self-interactions and is scaled, channel by channel where there is something to add it
to, by a scalar that starts at zero (SkipInit, arXiv 2002.10444); a gate follows; a last self-interaction (eq. 11) gives
one vector per atom. With two embeddings for the 89 elements of the Materials Project this reading has exactly the
2,655,808 trainable parameters of Table 2:

    two embeddings, 89 × 32 each                                             5,696
    first interaction: radial 132,096, self 196,608, scale 1,024           329,728
    three more: radial 345,088, self 425,984, scale 2,048              3 × 773,120
    output                                                                   1,024

Two oddities belong to it and are kept. The vectors are declared ``1e`` (pseudovectors) although positions are ``1o``:
products like 1e × 1e → 1e, cross products, are then allowed, so that the network is equivariant to rotations but not to
inversion and mirrors. And ``32x0e + 32x1e + 8x2e`` as edge attributes are one set of harmonics repeated: 32 weights
for equal numbers, of which only the sum acts. `Interaction` adds them up once, as parameters, instead of on every edge;
a test compares it with the product of the repeated harmonics.
"""

from __future__ import annotations

import torch
from e3nn import o3
from e3nn.math import soft_one_hot_linspace
from e3nn.nn import FullyConnectedNet, Gate
from torch import Tensor, nn
from torch_geometric.utils import scatter

from model.crystals.batch import Batch
from model.crystals.neighbors import Edges, periodic_edges
from model.diffusion.paper_config import PaperNetworkConfig

# Elements of the Materials Project: up to plutonium, without Po, At, Rn, Fr and Ra.
ELEMENTS = tuple(z for z in range(1, 95) if not 84 <= z <= 88)


class PaperNetwork(nn.Module):
    """Predicts the displacement (Å) from each noised atom to its clean position, sigma times the network's output."""

    element: Tensor  # (119,) row of each atomic number in the embeddings, -1 for none

    def __init__(self, config: PaperNetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("element", _element_index(), persistent=False)
        self.embed_x = nn.Embedding(len(ELEMENTS), o3.Irreps(config.node).dim)
        self.embed_z = nn.Embedding(len(ELEMENTS), o3.Irreps(config.auxiliary).dim)
        irreps = o3.Irreps(config.node)
        self.interactions, self.gates = nn.ModuleList(), nn.ModuleList()
        for _ in range(config.layers):
            gate = _gate(o3.Irreps(config.hidden))
            self.interactions.append(Interaction(irreps, gate.irreps_in, config))
            self.gates.append(gate)
            irreps = gate.irreps_out
        self.out = o3.FullyConnectedTensorProduct(irreps, config.auxiliary, "1x1e")

    def forward(self, batch: Batch, sigma: Tensor, guest: Tensor, edges: Edges | None = None) -> Tensor:
        """Predict displacements.

        Args:
            batch: noised positions.
            sigma: (B,) noise level in Å; it scales the output (score = net / sigma) and is not an input.
            guest: (N,) bool, ignored: every atom is taken for noised.
            edges: neighbour list, if already known.

        Raises:
            ValueError: an element that the network has no embedding for.
        """
        return self.output_size(sigma)[batch.owner, None] * self.net(batch, edges)

    def output_size(self, sigma: Tensor) -> Tensor:
        """(B,) size in Å of the displacement that a unit output stands for."""
        return sigma

    def net(self, batch: Batch, edges: Edges | None = None) -> Tensor:
        """(N, 3) displacement in units of sigma, from the geometry alone (eqs. 9-11)."""
        if edges is None:
            edges = periodic_edges(batch.positions, batch.lattice, batch.counts, cutoff=self.config.cutoff)
        vector = edges.vectors(batch.positions, batch.lattice, batch.owner)
        harmonics = o3.spherical_harmonics(
            _once(o3.Irreps(self.config.edge)), vector, normalize=True, normalization="component"
        )
        radial = radial_basis(vector.norm(dim=-1), self.config)
        species = self._species(batch.numbers)
        x, z = self.embed_x(species), self.embed_z(species)
        for interaction, gate in zip(self.interactions, self.gates, strict=True):
            x = gate(interaction(x, z, edges, harmonics, radial))
        return self.out(x, z)

    def _species(self, numbers: Tensor) -> Tensor:
        species = self.element[numbers]
        if (species < 0).any():
            unknown = sorted(set(numbers[species < 0].tolist()))
            raise ValueError(f"the paper's network knows {len(ELEMENTS)} elements; not atomic numbers {unknown}")
        return species


class Interaction(nn.Module):
    """Self-interaction plus scaled convolution: (N, irreps_in) -> (N, irreps_out), before the gate."""

    def __init__(self, irreps_in: o3.Irreps, irreps_out: o3.Irreps, config: PaperNetworkConfig) -> None:
        super().__init__()
        self.config = config
        edge = o3.Irreps(config.edge)
        self.product = edge_product(irreps_in, _once(edge), irreps_out)
        self.shapes = [(irreps_in[path.i_in1].mul, edge[path.i_in2].mul) for path in self.product.instructions]
        weights = sum(channels * copies for channels, copies in self.shapes)
        self.radial = FullyConnectedNet([config.bessel, config.radial_hidden, weights], nn.functional.silu)
        mid = self.product.irreps_out
        self.itself = o3.FullyConnectedTensorProduct(irreps_in, config.auxiliary, irreps_out)
        self.before = o3.FullyConnectedTensorProduct(irreps_in, config.auxiliary, irreps_in)
        self.after = o3.FullyConnectedTensorProduct(mid, config.auxiliary, irreps_out)
        self.scale = o3.FullyConnectedTensorProduct(mid, config.auxiliary, "0e")
        nn.init.zeros_(self.scale.weight)

    def forward(self, x: Tensor, z: Tensor, edges: Edges, harmonics: Tensor, radial: Tensor) -> Tensor:
        """Update h_x (N, irreps_in) with h_z (N, auxiliary), harmonics (E, 9) and radial basis (E, n)."""
        sent = self.before(x, z)[edges.sender]
        messages = self.product(sent, harmonics, self.edge_weights(radial))  # (E, mid)
        summed = scatter(messages, edges.receiver, dim=0, dim_size=len(x)) / self.config.neighbours**0.5
        mask = self.itself.output_mask  # 1 where the self-interaction can be other than zero
        scale = self.scale(summed, z) * mask + (1 - mask)
        return self.itself(x, z) + scale * self.after(summed, z)

    def edge_weights(self, radial: Tensor) -> Tensor:
        """(E, weights of `product`) output of the radial network, summed over the copies of each harmonic.

        The square root is e3nn's normalisation of a product with that many copies.
        """
        first, last = self.radial
        parts = last.weight.split([channels * copies for channels, copies in self.shapes], dim=-1)
        folded = [
            part.view(-1, channels, copies).sum(dim=-1) / copies**0.5
            for part, (channels, copies) in zip(parts, self.shapes, strict=True)
        ]
        return first(radial) @ torch.cat(folded, dim=-1) / self.config.radial_hidden**0.5


def radial_basis(length: Tensor, config: PaperNetworkConfig) -> Tensor:
    """(E, n) Bessel functions of the distance in Å, zero at the cutoff (and so is the radial network: no biases)."""
    return soft_one_hot_linspace(length.clamp_min(1e-5), 0.0, config.cutoff, config.bessel, basis="bessel", cutoff=True)


def _element_index() -> Tensor:
    """(119,) `PaperNetwork.element`."""
    index = torch.full((119,), -1)
    index[list(ELEMENTS)] = torch.arange(len(ELEMENTS))
    return index


def _once(edge: o3.Irreps) -> o3.Irreps:
    """The harmonics without their repetitions."""
    return o3.Irreps([(1, ir) for _, ir in edge])


def _gate(hidden: o3.Irreps) -> Gate:
    """SiLU on the scalars; a sigmoid of one further scalar for each vector or tensor."""
    scalars = o3.Irreps([(mul, ir) for mul, ir in hidden if ir.l == 0])
    gated = o3.Irreps([(mul, ir) for mul, ir in hidden if ir.l > 0])
    gates = o3.Irreps([(gated.num_irreps, "0e")])
    return Gate(scalars, [nn.functional.silu] * len(scalars), gates, [torch.sigmoid], gated)


def edge_product(irreps_in: o3.Irreps, edge: o3.Irreps, irreps_out: o3.Irreps) -> o3.TensorProduct:
    """All products of features and harmonics that ``irreps_out`` contains, one weight per pair of channels (uvu)."""
    paths = [
        (i, j, mul, out)
        for i, (mul, ir_in) in enumerate(irreps_in)
        for j, (_, ir_edge) in enumerate(edge)
        for out in ir_in * ir_edge
        if out in irreps_out
    ]
    mid, position, _ = o3.Irreps([(mul, out) for *_, mul, out in paths]).sort()
    instructions = [(i, j, position[k], "uvu", True) for k, (i, j, *_) in enumerate(paths)]
    return o3.TensorProduct(irreps_in, edge, mid, instructions, internal_weights=False, shared_weights=False)
