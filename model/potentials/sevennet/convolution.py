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

    def row_size(self, group: Group) -> int:
        """Q·(2l1+1)."""
        return self.sender.shape[1] * (2 * group.l1 + 1)


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
        values: per block and group of `Coupling`, (p·b, 2l3+1, Q·(2l1+1)).
        gradients: the same of ∂E/∂G, to which the backward pass of every layer adds its part.
    """

    values: list[list[Tensor]]
    gradients: list[list[Tensor]]


class Coupling:
    """From the harmonics of all edges to G of all groups that occur in a network, and back."""

    def __init__(self, layers: Sequence[LayerWeights], *, dtype: torch.dtype) -> None:
        known = {group: paths for layer in layers for group, paths in groups_of(layer.paths).items()}
        highest = max(max(group.l2) for group in known)
        self.groups = list(known)
        self.symbols = [_spread(paths, highest).to(dtype) for paths in known.values()]

    def __call__(self, harmonics: Tensor, blocks: list[Block]) -> Geometry:
        """G of edges with ``harmonics`` (E, M)."""
        values: list[list[Tensor]] = [[] for _ in blocks]
        for group, symbols in zip(self.groups, self.symbols, strict=True):
            coupled = harmonics @ symbols
            for block, mine in zip(blocks, values, strict=True):
                part = _path_first(coupled, group, block)
                mine.append(part.new_empty(part.shape).copy_(part).view(-1, part.shape[2], block.row_size(group)))
        return Geometry(values, [[torch.zeros_like(part) for part in mine] for mine in values])

    def of_harmonics(self, geometry: Geometry, blocks: list[Block]) -> Tensor:
        """(E, M) ∂E/∂Y from what all layers have added to the gradients."""
        edges = blocks[-1].edges.stop
        total = self.symbols[0].new_zeros(edges, len(self.symbols[0]))
        for place, (group, symbols) in enumerate(zip(self.groups, self.symbols, strict=True)):
            of_coupled = symbols.new_empty(edges, symbols.shape[1])
            for block, mine in zip(blocks, geometry.gradients, strict=True):
                target = _path_first(of_coupled, group, block)
                target.copy_(mine[place].view(target.shape))
            total.addmm_(of_coupled, symbols.T)
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


def _path_first(coupled: Tensor, group: Group, block: Block) -> Tensor:
    """(p, b, 2l3+1, Q, 2l1+1) the part of a block in an array (E, p·(2l3+1)·(2l1+1)) of all edges."""
    part = coupled[block.edges].view(*block.sender.shape, len(group.l2), 2 * group.l3 + 1, 2 * group.l1 + 1)
    return part.permute(2, 0, 3, 1, 4)


@dataclass(frozen=True)
class _Target:
    """One group as a layer computes it.

    Attributes:
        place: of the group in `Coupling`.
        l3: degree that it goes to.
        paths: among those from the same degree.
        channels: of S, among those of all groups to the same degree.
    """

    place: int
    l3: int
    paths: slice
    channels: slice


@dataclass(frozen=True)
class _Source:
    """All groups from one degree: their ``columns`` of w, and the groups."""

    columns: slice
    targets: list[_Target]


class Convolution:
    """The convolution of one layer; ``mix`` (K, W) as in the radial table, ``groups`` as in `Coupling`."""

    def __init__(self, layer: LayerWeights, mix: Tensor, groups: list[Group], *, dtype: torch.dtype) -> None:
        known = groups_of(layer.paths)
        self.mix = torch.cat([mix[:, path.weights] for paths in known.values() for path in paths], dim=1).to(dtype)
        self.after = [matrix.to(dtype) for matrix in layer.after]
        self.sources: list[_Source] = []
        stop, filled = 0, [0] * len(self.after)
        for l1, before in enumerate(layer.before):
            start, count, targets = stop, 0, []
            for group in (group for group in known if group.l1 == l1):
                paths, size = len(group.l2), len(group.l2) * len(before)
                channels = slice(filled[group.l3], filled[group.l3] + size)
                targets.append(_Target(groups.index(group), group.l3, slice(count, count + paths), channels))
                filled[group.l3] += size
                count, stop = count + paths, stop + size
            self.sources.append(_Source(slice(start, stop), targets))

    def __call__(self, radial: Tensor, geometry: Geometry, features: list[Tensor], blocks: list[Block]) -> list[Tensor]:
        """Per degree, (R, 2l+1, out) for R receivers.

        Args:
            radial: (E, K) c of the edges, zero for padding.
            geometry: of the edges; the backward pass adds to its gradients.
            features: per degree, (n, 2l+1, U) x of the atoms.
            blocks: all receivers and edges, in order.
        """
        return list(_Convolve.apply(radial, geometry, blocks, self, *features))

    def forward(self, radial: Tensor, geometry: list[Tensor], sent: list[Tensor]) -> list[Tensor]:
        """The result for one block; ``geometry`` G, ``sent`` per degree (b, Q, 2l+1, U)."""
        nodes, edges = sent[0].shape[:2]
        weights = (radial @ self.mix).view(nodes, edges, -1)
        sums = [weights.new_empty(nodes, 2 * l3 + 1, matrix.shape[0]) for l3, matrix in enumerate(self.after)]
        for x, source in zip(sent, self.sources, strict=True):
            product = _product(_by_path(weights[..., source.columns], x), x)
            for to in source.targets:
                found = torch.bmm(geometry[to.place], _rows(product[to.paths]))
                target = _by_path(sums[to.l3][..., to.channels], x)
                target.copy_(found.view(target.shape))
        return [part @ matrix for part, matrix in zip(sums, self.after, strict=True)]

    def backward(
        self,
        radial: Tensor,
        geometry: list[Tensor],
        of_geometry: list[Tensor],
        sent: list[Tensor],
        grads: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """Derivatives with respect to c and x from those with respect to the result; adds to that of G."""
        nodes, edges = sent[0].shape[:2]
        flat = radial @ self.mix
        of_flat = torch.empty_like(flat)
        weights, of_weights = flat.view(nodes, edges, -1), of_flat.view(nodes, edges, -1)
        of_sums = [grad @ matrix.T for grad, matrix in zip(grads, self.after, strict=True)]
        of_sent = []
        for x, source in zip(sent, self.sources, strict=True):
            mine = _by_path(weights[..., source.columns], x)
            product = _product(mine, x)
            of_product = torch.empty_like(product)
            for to in source.targets:
                part = _by_path(of_sums[to.l3][..., to.channels], x)
                of_sum = part.new_empty(part.shape).copy_(part).view(-1, *part.shape[2:])  # (p·b, 2l3+1, U)
                of_geometry[to.place].baddbmm_(of_sum, _rows(product[to.paths]).mT)
                torch.bmm(geometry[to.place].mT, of_sum, out=_rows(of_product[to.paths]))
            torch.mul(of_product, mine[:, :, :, None], out=product)
            of_sent.append(product.sum(0))
            torch.sum(of_product.mul_(x), 3, out=_by_path(of_weights[..., source.columns], x))
        return (self.mix @ of_flat.T).T, of_sent  # faster than with the small matrix behind


def _by_path(values: Tensor, x: Tensor) -> Tensor:
    """(p, b, ·, U) from (b, ·, p·U), where ``x`` says U."""
    nodes, rows, channels = values.shape
    return values.view(nodes, rows, channels // x.shape[-1], x.shape[-1]).permute(2, 0, 1, 3)


def _product(weights: Tensor, x: Tensor) -> Tensor:
    """(p, b, Q, 2l1+1, U) y."""
    product = x.new_empty(weights.shape[0], *x.shape)
    return torch.mul(weights[:, :, :, None], x, out=product)


def _rows(product: Tensor) -> Tensor:
    """(p·b, Q·(2l1+1), U) of the same numbers."""
    paths, nodes, edges, components, channels = product.shape
    return product.view(paths * nodes, edges * components, channels)


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
