"""CHGNet's network, rewritten for speed on top of the trained weights of the ``chgnet`` package.

The numbers are those of ``chgnet.model.CHGNet`` (B. Deng et al., Nat. Mach. Intell. 5, 1031 (2023)); the work is less:

* A first linear layer on concatenated features is split into one product per kind of feature, taken before atoms and
  bonds are gathered: ``W [a_i, b_ij, a_j] = W₁ a_i + W₂ b_ij + W₃ a_j``.
* Bond features begin as a linear map of 31 radial functions, so all layers read them by one merged matrix.
* The rows of a linear layer before a layer norm are centred once; the norm then needs no mean.
* Geometry and radial functions are float64 in any precision: it costs nothing and makes float32 forces ten times
  more exact than the package's.
* Energy is differentiated with respect to the bond vectors only; forces and virial follow by sums (`bond_gradient`).

An undirected bond u goes from ``center[u]`` to ``neighbor[u]``; directed bond ``U + u`` is its reverse. Likewise the
ordered angle ``P + p`` is the unordered pair p with its two bonds exchanged. Nothing needs a lookup table.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.batch import Batch
from model.neighbors import Edges, periodic_edges

WIDTH = 64  # features per atom, bond and angle in every published CHGNet


@dataclass(frozen=True, eq=False)
class Graph:
    """Bonds and angles of a batch; the S bonds of the bond graph (shorter than its cutoff) come first.

    Attributes:
        vector: per bond, (U, 3) float64, Å, from center to the neighbour's image.
        center, neighbor: per bond, (U,) atoms.
        short: S, number of bonds that take part in angles.
        first, second: per unordered angle, (P,) bonds < S; ``apex`` (P,) the atom that they share.
        sign: per unordered angle, (P,) -1 where one of the bonds points towards the apex, else +1.
        owner: per atom, (N,) crystal.
        numbers: per atom, (N,) atomic number.
        crystals: number of crystals.
    """

    vector: Tensor
    center: Tensor
    neighbor: Tensor
    short: int
    first: Tensor
    second: Tensor
    apex: Tensor
    sign: Tensor
    owner: Tensor
    numbers: Tensor
    crystals: int

    @property
    def bond_ends(self) -> Tensor:
        """(2U,) atom that each directed bond's message goes to."""
        return torch.cat([self.center, self.neighbor])

    @property
    def angle_ends(self) -> Tensor:
        """(2P,) bond that each ordered angle's message goes to."""
        return torch.cat([self.first, self.second])


@dataclass(frozen=True, eq=False)
class Bonds:
    """Undirected bonds of a batch: center and neighbor (U,), vector (U, 3) in Å; sorted by center."""

    center: Tensor
    neighbor: Tensor
    vector: Tensor

    def part(self, start: int, stop: int, first_atom: int) -> Bonds:
        """The bonds start..stop with atoms counted from ``first_atom``."""
        return Bonds(
            self.center[start:stop] - first_atom, self.neighbor[start:stop] - first_atom, self.vector[start:stop]
        )


def undirected_bonds(batch: Batch, cutoff: float) -> Bonds:
    """Every pair of atom images closer than ``cutoff`` (Å) once."""
    edges = periodic_edges(batch.positions, batch.lattice, batch.counts, cutoff=cutoff)
    keep = _forward_half(edges)
    half = Edges(edges.receiver[keep], edges.sender[keep], edges.shift[keep])
    return Bonds(half.receiver, half.sender, half.vectors(batch.positions, batch.lattice, batch.owner))


def _forward_half(edges: Edges) -> Tensor:
    """Indices of one edge of each pair of opposite ones."""
    x, y, z = edges.shift.unbind(-1)
    image = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    same = edges.receiver == edges.sender
    return torch.nonzero((edges.receiver < edges.sender) | (same & image)).squeeze(-1)


def build_graph(bonds: Bonds, batch: Batch, cutoff: float) -> Graph:
    """Add the angles between bonds shorter than ``cutoff`` (Å) to the bonds of a batch."""
    close = bonds.vector.square().sum(-1) < cutoff * cutoff
    order = torch.cat([torch.nonzero(close).squeeze(-1), torch.nonzero(~close).squeeze(-1)])
    center, neighbor, vector = bonds.center[order], bonds.neighbor[order], bonds.vector[order]
    short = int(close.sum())
    a, b, apex = _pairs(torch.cat([center[:short], neighbor[:short]]), len(batch.numbers))
    sign = 1.0 - 2.0 * ((a < short) ^ (b < short)).to(vector.dtype)
    wrap = max(short, 1)
    return Graph(
        vector, center, neighbor, short, a % wrap, b % wrap, apex, sign, batch.owner, batch.numbers, len(batch)
    )


def _pairs(center: Tensor, atoms: int) -> tuple[Tensor, Tensor, Tensor]:
    """All unordered pairs of different directed bonds with the same center: bond, bond, center."""
    order = torch.argsort(center, stable=True)
    size = torch.bincount(center, minlength=atoms)[center[order]]
    rank = torch.arange(len(order), device=center.device)
    first_of_group = torch.searchsorted(center[order].contiguous(), center[order].contiguous())
    partners = size - 1 - (rank - first_of_group)
    a = torch.repeat_interleave(rank, partners)
    offset = torch.arange(len(a), device=center.device) - (torch.cumsum(partners, 0) - partners)[a]
    return order[a], order[a + 1 + offset], center[order[a]]


def angle_counts(bonds: Bonds, atoms: int, cutoff: float) -> Tensor:
    """(N,) number of ordered angles at each atom."""
    close = bonds.vector.square().sum(-1) < cutoff * cutoff
    degree = torch.bincount(torch.cat([bonds.center[close], bonds.neighbor[close]]), minlength=atoms)
    return degree * (degree - 1)


@dataclass(frozen=True, eq=False)
class Gate:
    """A gated MLP from its first linear layer's output on: ``silu(norm(core)) * sigmoid(norm(gate))``.

    Index 0 is the core, 1 the gate. ``matrix`` (2, 64, 64) and ``bias`` (2, 64) are the second linear layer, centred,
    or None where the MLP has one layer only. ``scale`` and ``offset`` (2, 1, 64) belong to the layer norms.
    """

    matrix: Tensor | None
    bias: Tensor | None
    scale: Tensor
    offset: Tensor
    epsilon: float


class _PairMessages(torch.autograd.Function):
    """`pair_messages` with its derivative.

    Written out by hand because the pairs are nearly all the work: autograd would keep and pass over twice as much.
    """

    @staticmethod
    def forward(
        ctx: Any, left: Tensor, right: Tensor, shared: Tensor, own: Tensor | None, matrix: Tensor | None,
        i: Tensor, j: Tensor, gate: Gate,
    ) -> Tensor:  # fmt: skip
        rows = left.new_empty(2, len(i), 2 * WIDTH)
        for side, (here, there) in enumerate(((i, j), (j, i))):
            torch.index_select(left, 0, here, out=rows[side])
            rows[side].add_(right.index_select(0, there)).add_(shared)
            if own is not None and matrix is not None:
                rows[side].addmm_(own[side], matrix)
        hidden = _second_layer(rows.view(-1, 2 * WIDTH), gate)  # (2, E, 64) with E = 2 len(i)
        inverse = torch.rsqrt(torch.linalg.vector_norm(hidden, dim=-1, keepdim=True).square_() / WIDTH + gate.epsilon)
        normed = hidden.mul_(inverse)
        core, opening = torch.addcmul(gate.offset, normed, gate.scale).unbind(0)
        opening.sigmoid_()
        active = nn.functional.silu(core)
        ctx.save_for_backward(rows, normed, inverse, core, active, opening, i, j)
        ctx.gate, ctx.size, ctx.matrix = gate, len(left), None if own is None else matrix
        return (active * opening).view(2, -1, WIDTH)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, normed, inverse, core, active, opening, i, j = ctx.saved_tensors
        grad = grad.reshape(-1, WIDTH)
        back = torch.empty_like(normed)
        torch.ops.aten.silu_backward.grad_input(torch.mul(grad, opening, out=back[0]), core, grad_input=back[0])
        torch.ops.aten.sigmoid_backward.grad_input(torch.mul(grad, active, out=back[1]), opening, grad_input=back[1])
        back *= ctx.gate.scale
        back.addcmul_(normed, (back * normed).mean(-1, keepdim=True), value=-1).mul_(inverse)
        back = _second_layer_back(back, rows.view(-1, 2 * WIDTH), ctx.gate).view_as(rows)
        left = right = None
        if ctx.needs_input_grad[0]:  # not in the first layer, whose atoms are constants
            left, right = back.new_zeros(2, ctx.size, 2 * WIDTH)
            left.index_add_(0, i, back[0]).index_add_(0, j, back[1])
            right.index_add_(0, j, back[0]).index_add_(0, i, back[1])
        own = None if ctx.matrix is None else back @ ctx.matrix.T
        return left, right, back[0] + back[1], own, None, None, None, None


def _second_layer(rows: Tensor, gate: Gate) -> Tensor:
    if gate.matrix is None or gate.bias is None:
        return rows.view(-1, 2, WIDTH).transpose(0, 1).contiguous()
    rows = nn.functional.silu(rows)
    out = rows.new_empty(2, len(rows), WIDTH)
    for i in range(2):
        torch.addmm(gate.bias[i], rows[:, WIDTH * i : WIDTH * (i + 1)], gate.matrix[i], out=out[i])
    return out


def _second_layer_back(back: Tensor, rows: Tensor, gate: Gate) -> Tensor:
    if gate.matrix is None:
        return back.transpose(0, 1).reshape(rows.shape)
    out = torch.empty_like(rows)
    for i in range(2):
        torch.mm(back[i], gate.matrix[i].T, out=out[:, WIDTH * i : WIDTH * (i + 1)])
    return torch.ops.aten.silu_backward.grad_input(out, rows, grad_input=out)


def pair_messages(
    left: Tensor, right: Tensor, shared: Tensor, i: Tensor, j: Tensor, gate: Gate, *,
    own: Tensor | None = None, matrix: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """(2, E, 64) messages of pairs i, j (E,) in both directions: ``gate(left[i] + right[j] + shared + own @ matrix)``.

    Args:
        left, right: (n, 128) first linear layer of the features at either end, core beside gate.
        shared: (E, 128) what the pair itself adds in both directions.
        i, j: (E,) rows of ``left`` and ``right``; they change places in the second direction.
        gate: the rest of the gated MLP.
        own, matrix: (2, E, 64) features of each direction, if they differ, and their part (64, 128) of the layer.
    """
    messages: Tensor = _PairMessages.apply(left, right, shared, own, matrix, i, j, gate)
    return messages


@dataclass(frozen=True, eq=False)
class AtomLayer:
    """Atom convolution: first linear layer split by feature (64, 128 each), gate, output matrix."""

    from_center: Tensor
    bias: Tensor
    from_bond: Tensor
    from_neighbor: Tensor
    gate: Gate
    output: Tensor


@dataclass(frozen=True, eq=False)
class AngleLayer:
    """Bond convolution or angle update: first linear layer split by feature, gate, output matrix (bonds only)."""

    from_first: Tensor
    from_second: Tensor
    from_angle: Tensor
    from_atom: Tensor
    bias: Tensor
    gate: Gate
    output: Tensor | None


class CHGNetNetwork:
    """The trained network on one device in one precision; weights are constants.

    Args:
        model: a ``chgnet.model.CHGNet`` of the published shape (0.3.0, r2SCAN).
        device: where to compute.
        dtype: float32 (as trained) or float64.
    """

    def __init__(self, model: Any, *, device: str | torch.device, dtype: torch.dtype) -> None:
        _check_shape(model)
        radial = copy.deepcopy(model.bond_basis_expansion).to(device=device, dtype=torch.float64).requires_grad_(False)
        model = model.to(device=device, dtype=dtype).requires_grad_(False).eval()
        self.dtype = dtype
        self.atom_cutoff = float(model.graph_converter.atom_graph_cutoff)
        self.bond_cutoff = float(model.graph_converter.bond_graph_cutoff)
        self.elements = model.atom_embedding.embedding.num_embeddings
        self.embedding = model.atom_embedding.embedding.weight
        self.reference = model.composition_model.fc.weight[0].double()  # (elements,) eV
        # In float32 the radial basis (phases up to 31π, cancelling powers) would cause nearly all the noise in forces.
        self.radial, self.radial_short = radial.rbf_expansion_ag, radial.rbf_expansion_bg
        self.frequencies = model.angle_basis_expansion.fourier_expansion.frequencies
        self.atom_layers = [_atom_layer(layer) for layer in model.atom_conv_layers]
        self.bond_layers = [_angle_layer(layer) for layer in model.bond_conv_layers]
        self.angle_layers = [_angle_layer(layer) for layer in model.angle_layers[:-1]]  # the last one is never read
        self.bond_embedding = model.bond_embedding.weight.T.contiguous()
        self.weight_short = model.bond_weights_bg.weight.T.contiguous()
        bond_maps = [self.bond_embedding @ layer.from_bond for layer in self.atom_layers]
        self.radial_map = torch.cat([model.bond_weights_ag.weight.T, *bond_maps], dim=1)  # (31, 64 + 128 layers)
        self.angle_embedding = model.angle_embedding.weight.T.contiguous()
        self.site_wise, self.readout_norm, self.readout = model.site_wise, model.readout_norm, model.mlp

    def bond_gradient(self, graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
        """Site energies (N,) in eV, magnetic moments (N,) in μB and dE/dvector (U, 3) in eV/Å, all detached."""
        vector = graph.vector.detach().requires_grad_(True)
        with torch.enable_grad():
            energy, magmoms = self.forward(vector, graph)
            total = energy.sum()
        if not total.requires_grad:
            return energy, magmoms, torch.zeros_like(vector)
        (gradient,) = torch.autograd.grad(total, vector)
        return energy.detach(), magmoms.detach(), gradient

    def forward(self, vector: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        """Site energies (N,) float64 in eV, reference energies included, and magnetic moments (N,) in μB."""
        length = vector.norm(dim=-1)
        basis = self.radial(length).to(self.dtype)  # (U, 31)
        short_basis = basis[: graph.short]
        parts = (basis @ self.radial_map).split([WIDTH] + [2 * WIDTH] * len(self.atom_layers), dim=-1)
        weight, bond_terms = parts[0], parts[1:]
        atoms = self.embedding.index_select(0, graph.numbers - 1)  # (N, 64)
        atoms = _atom_convolution(atoms, bond_terms[0], weight, graph, self.atom_layers[0])

        start = short_basis @ self.bond_embedding  # (S, 64)
        bonds = start
        short_weight = self.radial_short(length[: graph.short]).to(self.dtype) @ self.weight_short
        pair_weight = torch.stack([short_weight.index_select(0, k) for k in (graph.second, graph.first)])  # (2, P, 64)
        angles = self._angle_features(vector, length, graph)  # (1, P, 64), from the first update on (2, P, 64)
        magmoms = atoms[:, 0]
        for i, (layer, following) in enumerate(zip(self.bond_layers, self.atom_layers[1:], strict=True)):
            message = _angle_messages(atoms, bonds, angles, graph, layer) * pair_weight
            total = torch.zeros_like(bonds).index_add(0, graph.angle_ends, message.view(-1, WIDTH))
            bonds = bonds + (total * short_weight) @ layer.output
            if i < len(self.angle_layers):
                angles = angles + _angle_messages(atoms, bonds, angles, graph, self.angle_layers[i])
            else:
                magmoms = (atoms @ self.site_wise.weight[0] + self.site_wise.bias).abs()
            change = (bonds - start) @ following.from_bond
            term = torch.cat([bond_terms[i + 1][: graph.short] + change, bond_terms[i + 1][graph.short :]])
            atoms = _atom_convolution(atoms, term, weight, graph, following)
        energy = self.readout(self.readout_norm(atoms)).squeeze(-1)
        return energy.double() + self.reference.index_select(0, graph.numbers - 1), magmoms

    def _angle_features(self, vector: Tensor, length: Tensor, graph: Graph) -> Tensor:
        unit = vector[: graph.short] / length[: graph.short, None]
        cosine = graph.sign * (unit.index_select(0, graph.first) * unit.index_select(0, graph.second)).sum(-1)
        angle = torch.acos(cosine * (1 - 1e-6)).to(self.dtype)  # the factor is the package's: acos stays smooth
        wave = angle[:, None] * self.frequencies
        constant = wave.new_full((len(wave), 1), math.sqrt(0.5))
        basis = torch.cat([constant, torch.sin(wave), torch.cos(wave)], dim=-1) / math.sqrt(math.pi)  # (P, 31)
        return (basis @ self.angle_embedding)[None]


def _atom_convolution(atoms: Tensor, bond_term: Tensor, weight: Tensor, graph: Graph, layer: AtomLayer) -> Tensor:
    """New atom features (N, 64); ``bond_term`` (U, 128) is the bonds' part of the first linear layer."""
    left, right = torch.addmm(layer.bias, atoms, layer.from_center), atoms @ layer.from_neighbor
    message = pair_messages(left, right, bond_term, graph.center, graph.neighbor, layer.gate) * weight
    total = torch.zeros_like(atoms).index_add(0, graph.bond_ends, message.view(-1, WIDTH))
    return atoms + total @ layer.output


def _angle_messages(atoms: Tensor, bonds: Tensor, angles: Tensor, graph: Graph, layer: AngleLayer) -> Tensor:
    """(2, P, 64) what every ordered angle says, before any weight."""
    left, right = bonds @ layer.from_first, bonds @ layer.from_second
    shared = torch.addmm(layer.bias, atoms, layer.from_atom).index_select(0, graph.apex)
    if len(angles) == 2:
        own, matrix = angles, layer.from_angle
        return pair_messages(left, right, shared, graph.first, graph.second, layer.gate, own=own, matrix=matrix)
    shared = shared.addmm(angles[0], layer.from_angle)  # at first both directions see the same angle
    return pair_messages(left, right, shared, graph.first, graph.second, layer.gate)


def _check_shape(model: Any) -> None:
    expected = {
        "atom_fea_dim": WIDTH, "bond_fea_dim": WIDTH, "angle_fea_dim": WIDTH, "gMLP_norm": "layer", "mlp_first": True,
        "atom_conv_hidden_dim": WIDTH, "bond_conv_hidden_dim": WIDTH, "angle_layer_hidden_dim": 0,
        "non_linearity": "silu", "mlp_out_bias": False, "is_intensive": True, "update_bond": True, "update_angle": True,
    }  # fmt: skip
    wrong = {key: model.model_args.get(key) for key, value in expected.items() if model.model_args.get(key) != value}
    if wrong:
        raise ValueError(f"this CHGNet has another shape than 0.3.0 and r2SCAN: {wrong}, expected {expected}")


def _centred(matrix: Tensor) -> Tensor:
    """Remove the mean over outputs (last axis), which the layer norm that follows would remove anyway."""
    return matrix - matrix.mean(-1, keepdim=True)


def _gate(block: Any) -> Gate:
    norms = (block.bn1, block.bn2)
    last = [mlp.layers[-1] for mlp in (block.mlp_core, block.mlp_gate)]
    deep = len(block.mlp_core.layers) > 2
    return Gate(
        matrix=torch.stack([_centred(layer.weight.T) for layer in last]) if deep else None,
        bias=torch.stack([_centred(layer.bias) for layer in last]) if deep else None,
        scale=torch.stack([norm.weight for norm in norms])[:, None],
        offset=torch.stack([norm.bias for norm in norms])[:, None],
        epsilon=norms[0].eps,
    )


def _first_layer(block: Any) -> tuple[list[Tensor], Tensor]:
    """First linear layer of core and gate side by side: one (64, 128) matrix per input feature, and the bias (128,)."""
    first = [next(m for m in mlp.layers if isinstance(m, nn.Linear)) for mlp in (block.mlp_core, block.mlp_gate)]
    deep = len(block.mlp_core.layers) > 2
    matrices = [layer.weight.T if deep else _centred(layer.weight.T) for layer in first]
    biases = [layer.bias if deep else _centred(layer.bias) for layer in first]
    return [part.contiguous() for part in torch.cat(matrices, dim=1).split(WIDTH)], torch.cat(biases)


def _atom_layer(layer: Any) -> AtomLayer:
    (center, bond, neighbor), bias = _first_layer(layer.twoBody_atom)
    return AtomLayer(center, bias, bond, neighbor, _gate(layer.twoBody_atom), layer.mlp_out.layers[-1].weight.T)


def _angle_layer(layer: Any) -> AngleLayer:
    (first, second, angle, atom), bias = _first_layer(layer.twoBody_bond)
    output = layer.mlp_out.layers[-1].weight.T if hasattr(layer, "mlp_out") else None
    return AngleLayer(first, second, angle, atom, bias, _gate(layer.twoBody_bond), output)
