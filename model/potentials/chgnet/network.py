"""CHGNet's network, rewritten for speed on top of the trained weights of the ``chgnet`` package.

The numbers are those of ``chgnet.model.CHGNet`` (B. Deng et al., Nat. Mach. Intell. 5, 1031 (2023)); the work is less:

* A first linear layer on concatenated features is split into one product per kind of feature, taken before atoms and
  bonds are gathered: ``W [a_i, b_ij, a_j] = W₁ a_i + W₂ b_ij + W₃ a_j`` (`model.potentials.chgnet.messages`).
* Bond features begin as a linear map of 31 radial functions, so all layers read them by one merged matrix.
* Geometry and radial functions are float64 in any precision: it costs nothing and makes float32 forces ten times
  more exact than the package's.
* Numbers below 1e-38 count as zero: gates fall to exp(-1000), and processors are slow with such numbers.
* Energy is differentiated with respect to the bond vectors only; forces and virial follow by sums (`bond_gradient`).

An undirected bond u goes from ``center[u]`` to ``neighbor[u]``; directed bond ``U + u`` is its reverse. Likewise the
ordered angle ``P + p`` is the unordered pair p with its two bonds exchanged. Nothing needs a lookup table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.crystals.batch import Batch
from model.crystals.neighbors import Bonds
from model.potentials.chgnet.messages import WIDTH, GatedMLP, Pairs, messages


@dataclass(frozen=True, eq=False, kw_only=True)
class BondGraph:
    """U bonds, P angles and N nodes of a batch; the S bonds that form angles (shorter than their cutoff) come first.

    A node is an atom, or in a `model.potentials.chgnet.orbit_graph` one atom per orbit.

    Attributes:
        vector: (V, 3) float64, Å, from center to the neighbour's image: the U bonds, then those used for angles only.
        center, neighbor: (V,) atoms.
        short: S, number of bonds that form angles.
        bonds: the two nodes of every bond in both directions, (2U,).
        angles: the two bonds (< S) of every unordered angle in both orders, (2P,).
        spans: (2P,) as ``angles``, the rows of ``vector`` that form the angle.
        apex: per unordered angle, (P,) the node that its bonds share.
        sign: per unordered angle, (P,) -1 where one of the bonds points towards the apex, else +1.
        numbers: per node, (N,) atomic number.
        copies: per node, (N,) float64 number of atoms that it stands for, or None for one each.
        crystals: number of crystals.
        lean: compute with little memory, in a third more time.
    """

    vector: Tensor
    center: Tensor
    neighbor: Tensor
    short: int
    bonds: Pairs
    angles: Pairs
    spans: Tensor
    apex: Tensor
    sign: Tensor
    numbers: Tensor
    copies: Tensor | None
    crystals: int
    lean: bool = False


def build_graph(bonds: Bonds, batch: Batch, cutoff: float, *, lean: bool = False) -> BondGraph:
    """Add the angles between bonds shorter than ``cutoff`` (Å) to the bonds of a batch."""
    close = bonds.vector.square().sum(-1) < cutoff * cutoff
    order = torch.cat([torch.nonzero(close).squeeze(-1), torch.nonzero(~close).squeeze(-1)])
    center, neighbor, vector = bonds.center[order], bonds.neighbor[order], bonds.vector[order]
    short = int(close.sum())
    directed = torch.cat([center[:short], neighbor[:short]])
    a, b = unordered_pairs(directed, len(batch.numbers))
    sign = 1.0 - 2.0 * ((a < short) ^ (b < short)).to(vector.dtype)
    wrap = max(short, 1)
    angles = torch.cat([a % wrap, b % wrap])
    return BondGraph(
        vector=vector,
        center=center,
        neighbor=neighbor,
        short=short,
        bonds=Pairs(torch.cat([center, neighbor])),
        angles=Pairs(angles),
        spans=angles,
        apex=directed[a],
        sign=sign,
        numbers=batch.numbers,
        copies=None,
        crystals=len(batch),
        lean=lean,
    )


def unordered_pairs(center: Tensor, atoms: int) -> tuple[Tensor, Tensor]:
    """All unordered pairs of different directed bonds with the same center, from the center of each bond."""
    order = torch.argsort(center, stable=True)
    size = torch.bincount(center, minlength=atoms)[center[order]]
    rank = torch.arange(len(order), device=center.device)
    first_of_group = torch.searchsorted(center[order].contiguous(), center[order].contiguous())
    partners = size - 1 - (rank - first_of_group)
    a = torch.repeat_interleave(rank, partners)
    offset = torch.arange(len(a), device=center.device) - (torch.cumsum(partners, 0) - partners)[a]
    return order[a], order[a + 1 + offset]


def angle_counts(bonds: Bonds, atoms: int, cutoff: float) -> Tensor:
    """(N,) number of ordered angles at each atom."""
    close = bonds.vector.square().sum(-1) < cutoff * cutoff
    degree = torch.bincount(torch.cat([bonds.center[close], bonds.neighbor[close]]), minlength=atoms)
    return degree * (degree - 1)


class _Radial(torch.autograd.Function):
    """Smoothed radial Bessel functions (U, 31) of lengths (U,), their derivative in closed form."""

    @staticmethod
    def forward(ctx: Any, length: Tensor, basis: RadialBasis) -> Tensor:
        value, slope = basis.value_and_slope(length)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return (grad * slope).sum(-1), None


class RadialBasis:
    """``u(r) √(2/c) sin(nπr/c) / r`` with the polynomial envelope u (J. Gasteiger et al., ICLR 2020, eqs. 7 and 8).

    In float32 (phases up to 31π, cancelling powers) it would cause nearly all the noise in forces.
    """

    def __init__(self, module: Any) -> None:
        self.frequencies = module.frequencies.double() * module.inv_cutoff  # nπ/c with trained n
        self.norm, self.inverse = module.norm_const, module.inv_cutoff
        self.power = module.smooth_cutoff.p

    def __call__(self, length: Tensor) -> Tensor:
        """(U, 31) float64 from lengths (U,) in Å."""
        value: Tensor = _Radial.apply(length, self)
        return value

    def value_and_slope(self, length: Tensor) -> tuple[Tensor, Tensor]:
        """(U, 31) functions and their derivatives with respect to the length."""
        x, p = length * self.inverse, self.power
        power = x ** (p - 1)
        a, b, c = -(p + 1) * (p + 2) / 2, p * (p + 2), -p * (p + 1) / 2
        inside = x < 1
        envelope = (1 + power * x * (a + x * (b + x * c))) * inside
        bend = power * (a * p + x * (b * (p + 1) + x * (c * (p + 2)))) * self.inverse * inside
        factor = self.norm * envelope / length
        fall = self.norm * bend / length - factor / length
        phase = length[:, None] * self.frequencies
        wave = torch.sin(phase)
        slope = torch.cos(phase).mul_(self.frequencies).mul_(factor[:, None]).addcmul_(wave, fall[:, None])
        return wave * factor[:, None], slope


@dataclass(frozen=True, eq=False, kw_only=True)
class AtomLayer:
    """Atom convolution: first linear layer split by feature (64, 128 each), rest of the gated MLP, output matrix."""

    from_center: Tensor
    bias: Tensor
    from_bond: Tensor
    from_neighbor: Tensor
    mlp: GatedMLP
    output: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class AngleLayer:
    """Bond convolution or angle update, as `AtomLayer`; only a bond convolution has an output matrix."""

    from_first: Tensor
    from_second: Tensor
    from_angle: Tensor
    from_atom: Tensor
    bias: Tensor
    mlp: GatedMLP
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
        model = model.to(device=device, dtype=dtype).requires_grad_(False).eval()
        self.dtype = dtype
        self.atom_cutoff = float(model.graph_converter.atom_graph_cutoff)
        self.bond_cutoff = float(model.graph_converter.bond_graph_cutoff)
        self.elements = model.atom_embedding.embedding.num_embeddings
        self.embedding = model.atom_embedding.embedding.weight
        self.reference = model.composition_model.fc.weight[0].double()  # (elements,) eV
        radial = model.bond_basis_expansion
        self.radial, self.radial_short = RadialBasis(radial.rbf_expansion_ag), RadialBasis(radial.rbf_expansion_bg)
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

    def bond_gradient(self, graph: BondGraph) -> tuple[Tensor, Tensor, Tensor]:
        """Site energies (N,) in eV, magnetic moments (N,) in μB and dE/dvector (U, 3) in eV/Å, all detached."""
        vector = graph.vector.detach().requires_grad_(True)
        with torch.enable_grad(), _tiny_is_zero():
            energy, magmoms = self.forward(vector, graph)
            total = energy.sum() if graph.copies is None else energy @ graph.copies
            if not total.requires_grad:
                return energy, magmoms, torch.zeros_like(vector)
            (gradient,) = torch.autograd.grad(total, vector)
        return energy.detach(), magmoms.detach(), gradient

    def forward(self, vector: Tensor, graph: BondGraph) -> tuple[Tensor, Tensor]:
        """Site energies (N,) float64 in eV, reference energies included, and magnetic moments (N,) in μB."""
        length = vector.norm(dim=-1)
        basis = self.radial(length[: len(graph.bonds.target) // 2]).to(self.dtype)  # (U, 31)
        short_basis = basis[: graph.short]
        parts = (basis @ self.radial_map).split([WIDTH] + [2 * WIDTH] * len(self.atom_layers), dim=-1)
        weight, bond_terms = parts[0], parts[1:]
        atoms = self.embedding.index_select(0, graph.numbers - 1)  # (N, 64)
        atoms = _atom_convolution(atoms, bond_terms[0], weight, graph, self.atom_layers[0])

        start = short_basis @ self.bond_embedding  # (S, 64)
        bonds = start
        short_weight = self.radial_short(length[: graph.short]).to(self.dtype) @ self.weight_short
        first, second = graph.angles.target.chunk(2)
        half = (len(first), WIDTH)
        pair_weight = short_weight.index_select(0, first) * short_weight.index_select(0, second)  # (P, 64)
        angles = self._angle_features(vector, length, graph)  # (P, 64), from the first update on (2P, 64)
        magmoms = atoms[:, 0]
        for i, (layer, following) in enumerate(zip(self.bond_layers, self.atom_layers[1:], strict=True)):
            assert layer.output is not None
            total = _angle_messages(atoms, bonds, angles, graph, layer, pair_weight=pair_weight, size=graph.short)
            bonds = bonds + total @ layer.output
            if i < len(self.angle_layers):
                update = _angle_messages(atoms, bonds, angles, graph, self.angle_layers[i])
                angles = (update.view(2, *half) + angles.view(1 if i == 0 else 2, *half)).view(-1, WIDTH)
            else:
                magmoms = (atoms @ self.site_wise.weight[0] + self.site_wise.bias).abs()
            change = (bonds - start) @ following.from_bond
            term = torch.cat([bond_terms[i + 1][: graph.short] + change, bond_terms[i + 1][graph.short :]])
            atoms = _atom_convolution(atoms, term, weight, graph, following)
        energy = self.readout(self.readout_norm(atoms)).squeeze(-1)
        return energy.double() + self.reference.index_select(0, graph.numbers - 1), magmoms

    def _angle_features(self, vector: Tensor, length: Tensor, graph: BondGraph) -> Tensor:
        used = graph.short if graph.spans is graph.angles.target else len(length)
        unit = vector[:used] / length[:used, None]
        first, second = graph.spans.chunk(2)
        cosine = graph.sign * (unit.index_select(0, first) * unit.index_select(0, second)).sum(-1)
        angle = torch.acos(cosine * (1 - 1e-6)).to(self.dtype)  # the factor is the package's: acos stays smooth
        wave = angle[:, None] * self.frequencies
        constant = wave.new_full((len(wave), 1), math.sqrt(0.5))
        basis = torch.cat([constant, torch.sin(wave), torch.cos(wave)], dim=-1) / math.sqrt(math.pi)  # (P, 31)
        return basis @ self.angle_embedding


def _atom_convolution(atoms: Tensor, bond_term: Tensor, weight: Tensor, graph: BondGraph, layer: AtomLayer) -> Tensor:
    """New atom features (N, 64); ``bond_term`` (U, 128) is the bonds' part of the first linear layer."""
    center, neighbor = torch.addmm(layer.bias, atoms, layer.from_center), atoms @ layer.from_neighbor
    total = messages(
        center, neighbor, bond_term, graph.bonds, layer.mlp, pair_weight=weight, size=len(atoms), lean=graph.lean
    )
    return atoms + total @ layer.output


def _angle_messages(
    atoms: Tensor, bonds: Tensor, angles: Tensor, graph: BondGraph, layer: AngleLayer, **sums: Any
) -> Tensor:
    """(2P, 64) the message of every ordered angle, or (S, 64) their sum at every bond; ``sums`` as in `messages`."""
    first, second = bonds @ layer.from_first, bonds @ layer.from_second
    shared = torch.addmm(layer.bias, atoms, layer.from_atom).index_select(0, graph.apex)
    sums["lean"] = graph.lean
    if len(angles) == 2 * len(shared):
        return messages(
            first, second, shared, graph.angles, layer.mlp, features=angles, matrix=layer.from_angle, **sums
        )
    shared = shared.addmm(angles, layer.from_angle)  # before the first update, angles are the same in both directions
    return messages(first, second, shared, graph.angles, layer.mlp, **sums)


@contextmanager
def _tiny_is_zero() -> Iterator[None]:
    """Treat denormal numbers as zero on this thread, if the processor can."""
    already = float(torch.tensor(1e-39) * 1.0) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


def _check_shape(model: Any) -> None:
    expected = {
        "atom_fea_dim": WIDTH,
        "bond_fea_dim": WIDTH,
        "angle_fea_dim": WIDTH,
        "gMLP_norm": "layer",
        "mlp_first": True,
        "atom_conv_hidden_dim": WIDTH,
        "bond_conv_hidden_dim": WIDTH,
        "angle_layer_hidden_dim": 0,
        "non_linearity": "silu",
        "mlp_out_bias": False,
        "is_intensive": True,
        "update_bond": True,
        "update_angle": True,
    }
    wrong = {key: model.model_args.get(key) for key, value in expected.items() if model.model_args.get(key) != value}
    if wrong:
        raise ValueError(f"this CHGNet has another shape than 0.3.0 and r2SCAN: {wrong}, expected {expected}")


def _gated_mlp(block: Any) -> GatedMLP:
    norms = (block.bn1, block.bn2)
    last = [mlp.layers[-1] for mlp in (block.mlp_core, block.mlp_gate)]
    deep = len(block.mlp_core.layers) > 2
    return GatedMLP(
        matrix=torch.stack([layer.weight.T for layer in last]) if deep else None,
        bias=torch.stack([layer.bias for layer in last]) if deep else None,
        scale=torch.stack([norm.weight for norm in norms]),
        offset=torch.stack([norm.bias for norm in norms]),
        epsilon=norms[0].eps,
    )


def _first_layer(block: Any) -> tuple[list[Tensor], Tensor]:
    """First linear layer of core and gate side by side: one (64, 128) matrix per input feature, and the bias (128,)."""
    first = [next(m for m in mlp.layers if isinstance(m, nn.Linear)) for mlp in (block.mlp_core, block.mlp_gate)]
    matrix = torch.cat([layer.weight.T for layer in first], dim=1)
    return [part.contiguous() for part in matrix.split(WIDTH)], torch.cat([layer.bias for layer in first])


def _atom_layer(layer: Any) -> AtomLayer:
    (center, bond, neighbor), bias = _first_layer(layer.twoBody_atom)
    return AtomLayer(
        from_center=center,
        bias=bias,
        from_bond=bond,
        from_neighbor=neighbor,
        mlp=_gated_mlp(layer.twoBody_atom),
        output=layer.mlp_out.layers[-1].weight.T,
    )


def _angle_layer(layer: Any) -> AngleLayer:
    (first, second, angle, atom), bias = _first_layer(layer.twoBody_bond)
    output = layer.mlp_out.layers[-1].weight.T if hasattr(layer, "mlp_out") else None
    return AngleLayer(
        from_first=first,
        from_second=second,
        from_angle=angle,
        from_atom=atom,
        bias=bias,
        mlp=_gated_mlp(layer.twoBody_bond),
        output=output,
    )
