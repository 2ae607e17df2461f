"""SevenNet's convolution: messages from all neighbours, coupled, weighted by distance, summed and mixed.

A receiver has Q edges e, with harmonics Y of their directions and weights w of their lengths, from senders with
features x. For each path p = (l1, l2, l3) and channel u of degree l1, and with the coupling coefficients C_p,

    S[p, m3, u] = Σ_e w_p,u(r_e) Σ_m1 G_e,p[m1, m3] x_e[m1, u]         G_e,p[m1, m3] = Σ_m2 C_p[m2, m1, m3] Y_e[m2]

and a linear map acts on S. The package makes and adds up a message of each edge. Here ``y = w x`` is made first, so
that the sum over the edges and m1 becomes one matrix product of each receiver and path. The weights are combinations
of K functions, ``w = c @ mix`` (`model.potentials.sevennet.radial`), and all layers share G (`Geometry`).

Receivers are computed in blocks that fit the processor's cache. Nothing but the inputs is kept for the backward pass,
which is written by hand: with Z = ∂E/∂S,

    ∂E/∂y[e, p, m1, u] = Σ_m3 G_e,p[m1, m3] Z[p, m3, u]        ∂E/∂G_e,p[m1, m3] = Σ_u y[e, p, m1, u] Z[p, m3, u]

Shapes: b receivers of a block, E = b·Q edges (the last ones of a receiver may be padding), M = (L+1)² harmonics, U
channels of a degree. The paths with the same l1 and l3 are computed together as a `Group` of p paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.potentials.sevennet.weights import LayerWeights, Path3


@dataclass(frozen=True, eq=False)
class Block:
    """Receivers that are computed together: their ``rows``, their ``edges``, and (b, Q) the ``sender`` of each edge."""

    rows: slice
    edges: slice
    sender: Tensor


@dataclass(frozen=True)
class Group:
    """All paths from degree ``l1`` to ``l3``: their degrees of harmonics, ``l2``."""

    l1: int
    l3: int
    l2: tuple[int, ...]


def groups_of(paths: Sequence[Path3]) -> dict[Group, list[Path3]]:
    """The paths of a layer by group, ordered by l1 and l3."""
    pairs = sorted({(path.l1, path.l3) for path in paths})
    members = [[path for path in paths if (path.l1, path.l3) == pair] for pair in pairs]
    return {Group(*pair, tuple(path.l2 for path in mine)): mine for pair, mine in zip(pairs, members, strict=True)}


@dataclass(frozen=True, eq=False)
class Geometry:
    """G of all edges, which all layers share.

    Attributes:
        values: per block and group, (b·p, 2l3+1, Q·(2l1+1)).
        gradients: the same of ∂E/∂G, to which the backward pass of every layer adds its part.
    """

    values: list[dict[Group, Tensor]]
    gradients: list[dict[Group, Tensor]]


class Coupling:
    """From the harmonics of all edges to G of all groups that occur in a network, and back."""

    def __init__(self, layers: Sequence[LayerWeights], *, dtype: torch.dtype) -> None:
        known = {group: paths for layer in layers for group, paths in groups_of(layer.paths).items()}
        highest = max(max(group.l2) for group in known)
        self.symbols = {group: _spread(paths, highest).to(dtype) for group, paths in known.items()}

    def __call__(self, harmonics: Tensor, blocks: list[Block]) -> Geometry:
        """G of edges with ``harmonics`` (E, M)."""
        values: list[dict[Group, Tensor]] = [{} for _ in blocks]
        for group, symbols in self.symbols.items():
            coupled = harmonics @ symbols
            for block, mine in zip(blocks, values, strict=True):
                mine[group] = _by_edge(coupled, group, block).permute(0, 2, 3, 1, 4).flatten(0, 1).flatten(2)
        return Geometry(values, [{group: torch.zeros_like(part) for group, part in mine.items()} for mine in values])

    def of_harmonics(self, geometry: Geometry, blocks: list[Block]) -> Tensor:
        """(E, M) ∂E/∂Y from what all layers have added to the gradients."""
        total: Tensor | None = None
        for group, symbols in self.symbols.items():
            of_coupled = symbols.new_empty(blocks[-1].edges.stop, symbols.shape[1])
            for block, mine in zip(blocks, geometry.gradients, strict=True):
                target = _by_edge(of_coupled, group, block).permute(0, 2, 3, 1, 4)
                target.copy_(mine[group].view(target.shape))
            total = of_coupled @ symbols.T if total is None else total.addmm_(of_coupled, symbols.T)
        assert total is not None
        return total


def _spread(paths: list[Path3], highest: int) -> Tensor:
    """(M, p·(2l3+1)·(2l1+1)) coupling coefficients of a group's paths, in the rows of the harmonics that they read."""
    columns = []
    for path in paths:
        column = path.symbols.new_zeros((highest + 1) ** 2, (2 * path.l3 + 1) * (2 * path.l1 + 1))
        symbols = path.symbols.unflatten(0, (2 * path.l2 + 1, -1)).mT  # (2l2+1, 2l3+1, 2l1+1)
        column[path.l2**2 : (path.l2 + 1) ** 2] = symbols.flatten(1)
        columns.append(column)
    return torch.cat(columns, dim=-1)


def _by_edge(coupled: Tensor, group: Group, block: Block) -> Tensor:
    """(b, Q, p, 2l3+1, 2l1+1) the part of a block in an array of all edges."""
    return coupled[block.edges].view(*block.sender.shape, len(group.l2), 2 * group.l3 + 1, 2 * group.l1 + 1)


class Convolution:
    """The convolution of one layer; ``mix`` (K, W) as in the radial table."""

    def __init__(self, layer: LayerWeights, mix: Tensor, *, dtype: torch.dtype) -> None:
        known = groups_of(layer.paths)
        self.groups = list(known)
        self.mix = torch.cat([mix[:, path.weights] for paths in known.values() for path in paths], dim=1).to(dtype)
        self.after = [matrix.to(dtype) for matrix in layer.after]
        self.columns: list[slice] = []  # of w, per group
        self.channels: list[slice] = []  # of S, among those of all groups to the same degree
        stop, filled = 0, [0] * len(self.after)
        for group, paths in known.items():
            size = sum(path.weights.stop - path.weights.start for path in paths)
            self.columns.append(slice(stop, stop := stop + size))
            self.channels.append(slice(filled[group.l3], filled[group.l3] + size))
            filled[group.l3] += size

    def __call__(self, radial: Tensor, geometry: Geometry, features: list[Tensor], blocks: list[Block]) -> list[Tensor]:
        """Per degree, (R, 2l+1, out) for R receivers.

        Args:
            radial: (E, K) c of the edges, zero for padding.
            geometry: of the edges; the backward pass adds to its gradients.
            features: per degree, (n, 2l+1, U) x of the atoms.
            blocks: all receivers and edges, in order.
        """
        return list(_Convolve.apply(radial, geometry, blocks, self, *features))

    def forward(self, radial: Tensor, geometry: dict[Group, Tensor], sent: list[Tensor]) -> list[Tensor]:
        """The result for one block; ``geometry`` G, ``sent`` per degree (b, Q, 2l+1, U)."""
        weights = (radial @ self.mix).view(*sent[0].shape[:2], -1)
        sums = [weights.new_empty(len(weights), 2 * l3 + 1, len(matrix)) for l3, matrix in enumerate(self.after)]
        for group, columns, channels in zip(self.groups, self.columns, self.channels, strict=True):
            coupled = geometry[group]
            product = _product(weights[..., columns], sent[group.l1], group)
            target = _paths(sums[group.l3][..., channels], group)
            target.copy_(torch.bmm(coupled, product.view(len(coupled), coupled.shape[-1], -1)).view(target.shape))
        return [part @ matrix for part, matrix in zip(sums, self.after, strict=True)]

    def backward(
        self,
        radial: Tensor,
        geometry: dict[Group, Tensor],
        of_geometry: dict[Group, Tensor],
        sent: list[Tensor],
        grads: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """Derivatives with respect to c and x from those with respect to the result; adds to that of G."""
        weights = (radial @ self.mix).view(*sent[0].shape[:2], -1)
        of_sums = [grad @ matrix.T for grad, matrix in zip(grads, self.after, strict=True)]
        of_weights, of_sent = torch.empty_like(weights), [torch.zeros_like(x) for x in sent]
        for group, columns, channels in zip(self.groups, self.columns, self.channels, strict=True):
            coupled = geometry[group]
            x = sent[group.l1]
            product = _product(weights[..., columns], x, group)
            of_sum = _paths(of_sums[group.l3][..., channels], group).flatten(0, 1)  # (b·p, 2l3+1, U)
            of_geometry[group].baddbmm_(of_sum, product.view(len(coupled), coupled.shape[-1], -1).mT)
            of_product = torch.bmm(coupled.mT, of_sum).view_as(product)
            torch.mul(of_product, _paths(weights[..., columns], group)[:, :, :, None], out=product)
            of_sent[group.l1].add_(product[:, 0] if len(group.l2) == 1 else product.sum(1))
            of_product.mul_(x[:, None])
            torch.sum(of_product, 3, out=_paths(of_weights[..., columns], group))
        return (self.mix @ of_weights.view(len(radial), -1).T).T, of_sent  # faster than with the small matrix behind


def _paths(values: Tensor, group: Group) -> Tensor:
    """(b, p, ·, U) from (b, ·, p·U)."""
    nodes, rows, channels = values.shape
    return values.view(nodes, rows, len(group.l2), channels // len(group.l2)).transpose(1, 2)


def _product(weights: Tensor, x: Tensor, group: Group) -> Tensor:
    """(b, p, Q, 2l1+1, U) y."""
    product = x.new_empty(len(x), len(group.l2), *x.shape[1:])
    return torch.mul(_paths(weights, group)[:, :, :, None], x[:, None], out=product)


class _Convolve(torch.autograd.Function):
    """`Convolution` block by block."""

    @staticmethod
    def forward(
        ctx: Any, radial: Tensor, geometry: Geometry, blocks: list[Block], how: Convolution, *features: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(radial, *features)
        ctx.geometry, ctx.blocks, ctx.how = geometry, blocks, how
        parts = [
            how.forward(radial[block.edges], coupled, _sent(features, block))
            for block, coupled in zip(blocks, geometry.values, strict=True)
        ]
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        radial, *features = ctx.saved_tensors
        of_radial = torch.empty_like(radial)
        wanted = any(ctx.needs_input_grad[4:])  # not in the first layer, whose features are constants
        of_features = [torch.zeros_like(x) for x in features] if wanted else []
        for block, coupled, of_coupled in zip(ctx.blocks, ctx.geometry.values, ctx.geometry.gradients, strict=True):
            mine = [grad[block.rows] for grad in grads]
            sent = _sent(features, block)
            of_radial[block.edges], of_sent = ctx.how.backward(radial[block.edges], coupled, of_coupled, sent, mine)
            for total, part in zip(of_features, of_sent, strict=wanted):
                total.index_add_(0, block.sender.view(-1), part.flatten(0, 1))
        rest: list[Tensor | None] = [*of_features] if wanted else [None] * len(features)
        return of_radial, None, None, None, *rest


def _sent(features: Sequence[Tensor], block: Block) -> list[Tensor]:
    """Per degree, (b, Q, 2l+1, U) features of the senders."""
    index = block.sender.view(-1)
    return [x.index_select(0, index).view(*block.sender.shape, *x.shape[1:]) for x in features]
