"""The score network: an O(3)-equivariant message-passing network over a batch of crystals.

The convolution is the standard e3nn one: a tensor product of the sender's features with the spherical harmonics
of the edge, weighted by a radial network, summed over edges. Its radial weights end in a linear layer, so the sum
over edges can be taken *before* that layer. `Convolution` does so: the radial functions times harmonics of all
images of one neighbour are summed first, the sum over neighbours is one batched matrix product per degree, Wigner
symbols couple what comes out, and the linear layer acts on atoms instead of edges. The result is the same (a test
compares it with ``e3nn.o3.FullyConnectedTensorProduct``), the work is a small fraction.

Features of degree l are tensors (N, 2l+1, multiplicity), of natural parity (-1)^l: ``32x0e + 16x1o``, for example.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from e3nn import o3
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.crystals.batch import Batch
from model.crystals.neighbors import Edges, periodic_edges
from model.settings import Settings

Features = list[Tensor]
TYPICAL_NEIGHBOURS = 32  # scale of a sum over neighbours


class NetworkConfig(Settings):
    """Shape of the network. Multiplicities are given for degree 0, 1, ... of the hidden features."""

    kind: Literal["hostguide"] = "hostguide"
    multiplicities: tuple[int, ...] = (64, 32)
    layers: int = 4
    cutoff: float = 5.0  # Å
    harmonics: int = 2  # highest degree of the edge harmonics
    bessel: int = 8  # radial basis functions
    radial_hidden: int = 32  # width of the radial network
    radial: int = 8  # radial functions per edge
    node_hidden: int = 64  # width of the atom-wise network
    noise_conditioned: bool = True  # False: noise-blind, and blind to which atoms are guests
    output_scale: float = 1.2  # Å, see `preconditioning`

    @property
    def irreps(self) -> o3.Irreps:
        """Hidden features as e3nn irreps."""
        return o3.Irreps([(mul, (degree, (-1) ** degree)) for degree, mul in enumerate(self.multiplicities)])


@dataclass(frozen=True, eq=False, kw_only=True)
class AtomGraph:
    """The geometry as every layer reads it.

    Attributes:
        receiver, sender: (E,) atoms of each edge.
        slot: (E,) index of each edge's neighbour in the padded table, ``receiver * P + position``.
        neighbour: (N, P) sender of each slot; padding points at atom 0 and has zero weight.
        reverse: (N, P) for a slot of atom i with neighbour j the slot of atom j with neighbour i; else itself.
            None if gradients are off.
        bessel: (E, n) radial basis, smooth at the cutoff.
        harmonics: (E, (L+1)²) real spherical harmonics, component normalisation.
    """

    receiver: Tensor
    sender: Tensor
    slot: Tensor
    neighbour: Tensor
    reverse: Tensor | None
    bessel: Tensor
    harmonics: Tensor


def build_graph(batch: Batch, config: NetworkConfig, edges: Edges | None = None) -> AtomGraph:
    """Edges, radial basis and harmonics of a batch; ``edges`` may be passed if they are known."""
    if edges is None:
        edges = periodic_edges(batch.positions, batch.lattice, batch.counts, cutoff=config.cutoff)
    vector = edges.vectors(batch.positions, batch.lattice, batch.owner)
    length = vector.norm(dim=-1).clamp_min(1e-6)
    harmonics = o3.spherical_harmonics(
        list(range(config.harmonics + 1)), vector / length[:, None], normalize=False, normalization="component"
    )
    slot, neighbour, reverse = _neighbour_table(edges, len(batch.numbers))
    return AtomGraph(
        receiver=edges.receiver,
        sender=edges.sender,
        slot=slot,
        neighbour=neighbour,
        reverse=reverse,
        bessel=bessel_basis(length, config),
        harmonics=harmonics,
    )


def _neighbour_table(edges: Edges, n_atoms: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """`AtomGraph.slot`, `neighbour` and `reverse`: one slot per distinct neighbour of an atom, shared by its images."""
    receiver, sender = edges.receiver, edges.sender
    if len(edges) == 0:
        return receiver, receiver.new_zeros(n_atoms, 1), torch.arange(n_atoms, device=receiver.device)[:, None]
    new = torch.ones_like(receiver)
    new[1:] = ((receiver[1:] != receiver[:-1]) | (sender[1:] != sender[:-1])).long()
    pair = torch.cumsum(new, 0) - 1
    pairs_per_atom = torch.zeros(n_atoms, dtype=torch.long, device=receiver.device).index_add_(0, receiver, new)
    first = torch.cumsum(pairs_per_atom, 0) - pairs_per_atom
    width = int(pairs_per_atom.max())
    slot = receiver * width + pair - first[receiver]
    neighbour = receiver.new_zeros(n_atoms * width)
    neighbour[slot] = sender
    reverse = _reversed_slots(receiver, sender, slot, n_atoms, width) if torch.is_grad_enabled() else None
    return slot, neighbour.view(n_atoms, width), reverse


def _reversed_slots(receiver: Tensor, sender: Tensor, slot: Tensor, n_atoms: int, width: int) -> Tensor:
    """`AtomGraph.reverse`; at the cutoff one of two directions may be missing, because distances are rounded."""
    key, wanted = receiver * n_atoms + sender, sender * n_atoms + receiver  # ascending: edges are sorted
    place = torch.searchsorted(key, wanted).clamp_max(len(key) - 1)
    reverse = torch.arange(n_atoms * width, device=slot.device)
    reverse[slot] = torch.where(key[place] == wanted, slot[place], slot)
    return reverse.view(n_atoms, width)


def bessel_basis(length: Tensor, config: NetworkConfig) -> Tensor:
    """(E, n) Bessel functions times a polynomial envelope that is smooth at the cutoff (Gasteiger 2020, eqs. 7, 8)."""
    order = torch.arange(1, config.bessel + 1, device=length.device, dtype=length.dtype)
    x = (length / config.cutoff)[:, None]
    envelope = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
    return math.sqrt(2 / config.cutoff) * torch.sin(order * math.pi * x) / (x * config.cutoff) * envelope * (x < 1)


def paths(degree: int, harmonics: int, highest: int) -> list[tuple[int, int]]:
    """(edge degree, output degree) of all products of a feature of ``degree`` that keep natural parity."""
    return [
        (edge, out)
        for out in range(highest + 1)
        for edge in range(harmonics + 1)
        if abs(degree - edge) <= out <= degree + edge and (degree + edge + out) % 2 == 0
    ]


def coupling(degree: int, harmonics: int, highest: int) -> Tensor:
    """((L+1)², 2·degree+1, K): Wigner 3j symbols of all `paths` of ``degree`` side by side, each of unit variance."""
    blocks = []
    for edge, out in paths(degree, harmonics, highest):
        block = torch.zeros((harmonics + 1) ** 2, 2 * degree + 1, 2 * out + 1, dtype=torch.float64)
        symbols = o3.wigner_3j(edge, degree, out, dtype=torch.float64)
        block[edge**2 : (edge + 1) ** 2] = symbols * math.sqrt(2 * out + 1)
        blocks.append(block)
    return torch.cat(blocks, dim=-1).to(torch.get_default_dtype())


def _neighbours(rows: Tensor, graph: AtomGraph) -> Tensor:
    """(N, P, D) features of all neighbours from those of the atoms (N, D)."""
    if graph.reverse is None:
        return _pick(rows, graph.neighbour)
    return _Gather.apply(rows, graph.neighbour, graph.reverse)


class _Gather(torch.autograd.Function):
    """`_pick` whose backward pass gathers too: faster than adding, and always in the same order."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, neighbour: Tensor, reverse: Tensor) -> Tensor:
        ctx.save_for_backward(reverse)
        return _pick(rows, neighbour)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (reverse,) = ctx.saved_tensors  # padding and missing directions have none
        return _pick(gradient.flatten(0, 1), reverse).sum(dim=1), None, None


def _pick(rows: Tensor, index: Tensor) -> Tensor:
    """``rows[index]``, but with a backward pass that adds instead of sorting, many times faster on a GPU."""
    return rows.index_select(0, index.flatten()).view(*index.shape, *rows.shape[1:])


class Convolution(nn.Module):
    """Sum over neighbours of tensor product (features × harmonics) with radial weights."""

    def __init__(self, config: NetworkConfig, outputs: Sequence[int], inputs: Sequence[int] | None = None) -> None:
        super().__init__()
        self.inputs = tuple(inputs if inputs is not None else config.multiplicities)
        self.outputs = tuple(outputs)
        self.radial = RadialNetwork(config)
        self.n_radial = config.radial
        highest = len(self.outputs) - 1
        fan_in = [0] * len(self.outputs)
        self._columns: list[list[tuple[int, int, int]]] = [[] for _ in self.outputs]  # output -> (input, start, stop)
        for degree, multiplicity in enumerate(self.inputs):
            self.register_buffer(f"coupling_{degree}", coupling(degree, config.harmonics, highest), persistent=False)
            start = 0
            for _, out in paths(degree, config.harmonics, highest):
                self._columns[out].append((degree, start, start + 2 * out + 1))
                fan_in[out] += config.radial * multiplicity
                start += 2 * out + 1
        self.mix = nn.ParameterList(
            nn.Parameter(torch.randn(n, m) / math.sqrt(n)) for n, m in zip(fan_in, self.outputs, strict=True)
        )

    def forward(self, features: Features, graph: AtomGraph) -> Features:
        """The convolved features: one (N, 2l+1, outputs[l]) tensor per degree."""
        n_atoms, width = graph.neighbour.shape
        weights = self.radial(features[0][:, 0], graph)  # (E, R)
        product = weights[:, :, None] * graph.harmonics[:, None, :]  # (E, R, M)
        summed = product.new_zeros(n_atoms * width, *product.shape[1:]).index_add_(0, graph.slot, product)
        kernel = summed.to(weights.dtype).view(n_atoms, width, -1).transpose(1, 2)  # (N, R·M, P)
        features = [x.to(weights.dtype) for x in features]
        contracted = [self._contract(degree, features, graph, kernel) for degree in range(len(self.inputs))]
        return [
            torch.cat([contracted[d][:, start:stop] for d, start, stop in self._columns[out]], dim=-1) @ self.mix[out]
            for out in range(len(self.outputs))
        ]

    def _contract(self, degree: int, features: Features, graph: AtomGraph, kernel: Tensor) -> Tensor:
        """(N, K, R·multiplicity): the features of ``degree`` of all neighbours against harmonics and radial weights."""
        symbols = getattr(self, f"coupling_{degree}")  # (M, 2l+1, K)
        size, columns = symbols.shape[1:]
        gathered = _neighbours(features[degree].flatten(1), graph)  # (N, P, (2l+1)·U)
        every = torch.bmm(kernel, gathered).view(len(gathered), self.n_radial, symbols.shape[0] * size, -1)
        coupled = torch.matmul(symbols.reshape(-1, columns).T, every)  # (N, R, K, U)
        return coupled.transpose(1, 2).reshape(len(gathered), columns, -1)


class RadialNetwork(nn.Module):
    """Radial functions of an edge, dependent on the scalars of both its atoms; zero beyond the cutoff."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        scalars = config.multiplicities[0]
        self.basis = nn.Linear(config.bessel, config.radial_hidden, bias=False)
        self.ends = nn.Linear(scalars, 2 * config.radial_hidden)
        self.functions = nn.Linear(config.radial_hidden, config.radial, bias=False)
        self.skip = nn.Linear(config.bessel, config.radial, bias=False)

    def forward(self, scalars: Tensor, graph: AtomGraph) -> Tensor:
        """(E, R) from the atoms' scalars (N, U) and the graph's radial basis."""
        to_receiver, from_sender = self.ends(scalars).chunk(2, dim=-1)
        gate = _pick(to_receiver, graph.receiver) + _pick(from_sender, graph.sender)
        hidden = self.basis(graph.bessel) * nn.functional.silu(gate)
        return self.functions(hidden) + self.skip(graph.bessel)


class Normalisation(nn.Module):
    """Layer norm of the scalars; every other degree is divided by the root mean square of its components.

    It bounds the output of a layer even if noise has pushed many atoms together.
    """

    def __init__(self, multiplicities: Sequence[int]) -> None:
        super().__init__()
        self.scalars = nn.LayerNorm(multiplicities[0])

    def forward(self, features: Features) -> Features:
        """Return normalised features of the same shapes."""
        others = (x * torch.rsqrt(x.square().mean(dim=(1, 2), keepdim=True) + 1e-2) for x in features[1:])
        return [self.scalars(features[0]), *others]


class Layer(nn.Module):
    """Convolution, then an atom-wise network on the scalars that also gates the vectors and tensors."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.multiplicities = config.multiplicities
        self.norm = Normalisation(config.multiplicities)
        self.convolution = Convolution(config, config.multiplicities)
        scalars, others = config.multiplicities[0], config.multiplicities[1:]
        self.mix_own = nn.ModuleList(nn.Linear(m, m, bias=False) for m in others)
        self.update = nn.Sequential(
            nn.Linear(2 * scalars + sum(others), config.node_hidden),
            nn.SiLU(),
            nn.Linear(config.node_hidden, scalars + sum(others)),
        )

    def forward(self, features: Features, graph: AtomGraph) -> Features:
        """Return updated features of the same shapes."""
        normal = self.norm(features)
        messages = [x / TYPICAL_NEIGHBOURS**0.5 for x in self.convolution(normal, graph)]
        own = [mix(x) for mix, x in zip(self.mix_own, normal[1:], strict=True)]
        proposal = [message + x for message, x in zip(messages[1:], own, strict=True)]
        lengths = [(x.square().mean(dim=1) + 1e-4).sqrt() for x in proposal]
        update = self.update(torch.cat([normal[0][:, 0], messages[0][:, 0], *lengths], dim=-1))
        scalars, *gates = update.split(self.multiplicities, dim=-1)
        return [
            features[0] + scalars[:, None],
            *(x + new * torch.sigmoid(g)[:, None] for x, new, g in zip(features[1:], proposal, gates, strict=True)),
        ]


class ScoreNetwork(nn.Module):
    """Predicts the displacement (Å) from each noised atom to its clean position.

    ``forward(batch, sigma, guest)`` returns (N, 3) in Å; the score is ``displacement / sigma²``.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        scalars = config.multiplicities[0]
        self.species = nn.Embedding(119, scalars)
        self.noise = nn.Sequential(nn.Linear(17, scalars), nn.SiLU(), nn.Linear(scalars, scalars))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = Normalisation(config.multiplicities)
        self.head = nn.Sequential(nn.Linear(scalars, scalars), nn.SiLU(), nn.Linear(scalars, config.multiplicities[1]))
        self.vector = nn.Linear(config.multiplicities[1], config.multiplicities[1], bias=False)

    def forward(self, batch: Batch, sigma: Tensor, guest: Tensor, edges: Edges | None = None) -> Tensor:
        """Predict displacements.

        Args:
            batch: noised positions.
            sigma: (B,) noise level of the guests in Å.
            guest: (N,) bool, true for noised atoms; the others are clean hosts.
            edges: neighbour list, if already known.
        """
        graph = build_graph(batch, self.config, edges)
        features = self.embed(batch, sigma, guest)
        for layer in self.layers:
            features = layer(features, graph)
        features = self.norm(features)
        gate = self.head(features[0][:, 0])
        vector = (self.vector(features[1]) * gate[:, None]).sum(dim=-1)
        return vector * self.output_size(sigma)[batch.owner, None]

    def output_size(self, sigma: Tensor) -> Tensor:
        """(B,) size in Å of the displacement that a unit output stands for."""
        return preconditioning(sigma, self.config.output_scale)

    def embed(self, batch: Batch, sigma: Tensor, guest: Tensor) -> Features:
        """Initial features: species and noise level as scalars, nothing else."""
        scalars = self.species(batch.numbers)
        if self.config.noise_conditioned:
            level = noise_features(sigma)[batch.owner] * guest[:, None]
            scalars = scalars + self.noise(torch.cat([level, guest[:, None].to(level)], dim=-1))
        zeros = [
            scalars.new_zeros(len(scalars), 2 * degree + 1, multiplicity)
            for degree, multiplicity in enumerate(self.config.multiplicities)
            if degree > 0
        ]
        return [scalars[:, None], *zeros]


def noise_features(sigma: Tensor) -> Tensor:
    """(B, 16) sines and cosines of log sigma."""
    frequency = 2.0 ** torch.arange(-2, 6, device=sigma.device, dtype=sigma.dtype) * 0.5
    phase = sigma.clamp_min(1e-4).log()[:, None] * frequency
    return torch.cat([phase.sin(), phase.cos()], dim=-1)


def preconditioning(sigma: Tensor, scale: float) -> Tensor:
    """Size in Å of the displacement to be predicted at each noise level: sigma when small, ``scale`` when large."""
    return sigma / (1 + (sigma / scale).square()).sqrt()
