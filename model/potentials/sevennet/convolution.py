"""SevenNet's convolution: messages from all neighbours, coupled, weighted by distance, summed and mixed.

A receiver has Q edges e, with harmonics Y of their directions and weights w of their lengths, from senders with
features x. For each path p = (l1, l2, l3) and channel u of degree l1, and with the coupling coefficients C_p,

    S[p, m3, u] = Σ_e w_p,u(r_e) Σ_m1 G_e,p[m1, m3] x_e[m1, u]         G_e,p[m1, m3] = Σ_m2 C_p[m2, m1, m3] Y_e[m2]

and a linear map acts on S. The package makes and adds up a message of each edge. Here ``y = w x`` is made first, so
that the sum over the edges and m1 becomes one matrix product of each receiver and path. The weights are combinations
of K functions, ``w = c @ mix`` (`model.potentials.sevennet.radial`), and all layers share G (`geometry`).

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

    @property
    def size(self) -> int:
        """Numbers in G of an edge."""
        return len(self.l2) * (2 * self.l1 + 1) * (2 * self.l3 + 1)

    def of_block(self, flat: Tensor, block: Block) -> Tensor:
        """(b·p, Q·(2l1+1), 2l3+1) G of a block, a part of that of all edges."""
        part = flat[block.edges.start * self.size : block.edges.stop * self.size]
        nodes, edges = block.sender.shape
        return part.view(nodes * len(self.l2), edges * (2 * self.l1 + 1), 2 * self.l3 + 1)


def groups_of(paths: Sequence[Path3]) -> dict[Group, list[Path3]]:
    """The paths of a layer by group, ordered by l1 and l3."""
    pairs = sorted({(path.l1, path.l3) for path in paths})
    members = [[path for path in paths if (path.l1, path.l3) == pair] for pair in pairs]
    return {Group(*pair, tuple(path.l2 for path in mine)): mine for pair, mine in zip(pairs, members, strict=True)}


class Geometry:
    """From the harmonics of all edges to G of all groups that occur in a network."""

    def __init__(self, layers: Sequence[LayerWeights], *, dtype: torch.dtype) -> None:
        known = {group: paths for layer in layers for group, paths in groups_of(layer.paths).items()}
        highest = max(max(group.l2) for group in known)
        self.groups = list(known)
        self.symbols = [_spread(paths, highest).to(dtype) for paths in known.values()]  # (M, p·(2l1+1)·(2l3+1))

    def __call__(self, harmonics: Tensor, blocks: list[Block]) -> dict[Group, Tensor]:
        """Per group, G of all edges, block after block, as a flat tensor; ``harmonics`` (E, M)."""
        return dict(zip(self.groups, _Couple.apply(harmonics, blocks, self), strict=True))


def _spread(paths: list[Path3], highest: int) -> Tensor:
    """Coupling coefficients of a group's paths side by side, in the rows of the harmonics that they read."""
    columns = []
    for path in paths:
        column = path.symbols.new_zeros((highest + 1) ** 2, path.symbols.numel() // (2 * path.l2 + 1))
        column[path.l2**2 : (path.l2 + 1) ** 2] = path.symbols.reshape(2 * path.l2 + 1, -1)
        columns.append(column)
    return torch.cat(columns, dim=-1)


class _Couple(torch.autograd.Function):
    """`Geometry`."""

    @staticmethod
    def forward(ctx: Any, harmonics: Tensor, blocks: list[Block], how: Geometry) -> tuple[Tensor, ...]:
        ctx.blocks, ctx.how = blocks, how
        found = tuple(harmonics.new_empty(len(harmonics) * group.size) for group in how.groups)
        for group, symbols, flat in zip(how.groups, how.symbols, found, strict=True):
            coupled = harmonics @ symbols
            for block in blocks:
                _path_first(group.of_block(flat, block), group, block).copy_(_edge_first(coupled, group, block))
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        how, edges = ctx.how, ctx.blocks[-1].edges.stop
        total = grads[0].new_zeros(edges, len(how.symbols[0]))
        for group, symbols, grad in zip(how.groups, how.symbols, grads, strict=True):
            of_coupled = grad.new_empty(edges, group.size)
            for block in ctx.blocks:
                _edge_first(of_coupled, group, block).copy_(_path_first(group.of_block(grad, block), group, block))
            total.addmm_(of_coupled, symbols.T)
        return total, None, None


def _path_first(part: Tensor, group: Group, block: Block) -> Tensor:
    nodes, edges = block.sender.shape
    return part.view(nodes, len(group.l2), edges, -1)


def _edge_first(coupled: Tensor, group: Group, block: Block) -> Tensor:
    nodes, edges = block.sender.shape
    return coupled[block.edges].view(nodes, edges, len(group.l2), -1).transpose(1, 2)


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

    def __call__(
        self, radial: Tensor, geometry: dict[Group, Tensor], features: list[Tensor], blocks: list[Block]
    ) -> list[Tensor]:
        """Per degree, (R, 2l+1, out) for R receivers.

        Args:
            radial: (E, K) c of the edges, zero for padding.
            geometry: of the edges.
            features: per degree, (n, 2l+1, U) x of the atoms.
            blocks: all receivers and edges, in order.
        """
        mine = [geometry[group] for group in self.groups]
        return list(_Convolve.apply(radial, blocks, self, *mine, *features))

    def forward(self, radial: Tensor, geometry: list[Tensor], sent: list[Tensor]) -> list[Tensor]:
        """The result for one block; ``geometry`` per group, ``sent`` per degree (b, Q, 2l+1, U)."""
        weights = (radial @ self.mix).view(*sent[0].shape[:2], -1)
        sums = [weights.new_empty(len(weights), 2 * l3 + 1, len(matrix)) for l3, matrix in enumerate(self.after)]
        for group, columns, channels, coupled in zip(
            self.groups, self.columns, self.channels, geometry, strict=True
        ):
            product = _product(weights[..., columns], sent[group.l1], group)
            found = torch.bmm(coupled.mT, product.view(*coupled.shape[:2], -1))
            _paths(sums[group.l3][..., channels], group).copy_(found.view(len(weights), len(group.l2), -1, found.shape[-1]))
        return [part @ matrix for part, matrix in zip(sums, self.after, strict=True)]

    def backward(
        self, radial: Tensor, geometry: list[Tensor], of_geometry: list[Tensor], sent: list[Tensor], grads: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Derivatives with respect to c and x from those with respect to the result; fills in that of G."""
        weights = (radial @ self.mix).view(*sent[0].shape[:2], -1)
        of_sums = [grad @ matrix.T for grad, matrix in zip(grads, self.after, strict=True)]
        of_weights, of_sent = torch.empty_like(weights), [torch.zeros_like(x) for x in sent]
        for group, columns, channels, coupled, of_coupled in zip(
            self.groups, self.columns, self.channels, geometry, of_geometry, strict=True
        ):
            x = sent[group.l1]
            product = _product(weights[..., columns], x, group)
            of_sum = _paths(of_sums[group.l3][..., channels], group).flatten(0, 1)  # (b·p, 2l3+1, U)
            torch.bmm(product.view(*coupled.shape[:2], -1), of_sum.mT, out=of_coupled)
            of_product = torch.bmm(coupled, of_sum).view_as(product)
            torch.mul(of_product, _paths(weights[..., columns], group)[:, :, :, None], out=product)
            of_sent[group.l1].add_(product[:, 0] if len(group.l2) == 1 else product.sum(1))
            of_product.mul_(x[:, None])
            torch.sum(of_product, 3, out=_paths(of_weights[..., columns], group))
        return of_weights.view(len(radial), -1) @ self.mix.T, of_sent


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
    def forward(ctx: Any, radial: Tensor, blocks: list[Block], how: Convolution, *rest: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(radial, *rest)
        ctx.blocks, ctx.how = blocks, how
        geometry, features = rest[: len(how.groups)], rest[len(how.groups) :]
        parts = [
            how.forward(radial[block.edges], _of_block(how.groups, geometry, block), _sent(features, block))
            for block in blocks
        ]
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        radial, *rest = ctx.saved_tensors
        how = ctx.how
        geometry, features = rest[: len(how.groups)], rest[len(how.groups) :]
        of_radial, of_geometry = torch.empty_like(radial), [torch.empty_like(flat) for flat in geometry]
        wanted = any(ctx.needs_input_grad[3 + len(geometry) :])  # not in the first layer, whose features are constants
        of_features = [torch.zeros_like(x) for x in features] if wanted else []
        for block in ctx.blocks:
            of_radial[block.edges], of_sent = how.backward(
                radial[block.edges],
                _of_block(how.groups, geometry, block),
                _of_block(how.groups, of_geometry, block),
                _sent(features, block),
                [grad[block.rows] for grad in grads],
            )
            for total, part in zip(of_features, of_sent, strict=wanted):
                total.index_add_(0, block.sender.view(-1), part.flatten(0, 1))
        last: list[Tensor | None] = [*of_features] if wanted else [None] * len(features)
        return of_radial, None, None, *of_geometry, *last


def _of_block(groups: list[Group], geometry: Sequence[Tensor], block: Block) -> list[Tensor]:
    return [group.of_block(flat, block) for group, flat in zip(groups, geometry, strict=True)]


def _sent(features: Sequence[Tensor], block: Block) -> list[Tensor]:
    """Per degree, (b, Q, 2l+1, U) features of the senders."""
    index = block.sender.view(-1)
    return [x.index_select(0, index).view(*block.sender.shape, *x.shape[1:]) for x in features]
