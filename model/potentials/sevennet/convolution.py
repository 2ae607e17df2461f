"""SevenNet's convolution: messages from all neighbours, coupled, weighted by distance, summed and mixed.

A receiver has Q edges e, with harmonics Y of their directions and weights w of their lengths, from senders with
features x. For each path p = (l1, l2, l3) and channel u of degree l1, and with the coupling coefficients C_p,

    S[p, m3, u] = Σ_e w_p,u(r_e) Σ_m1 G_e,p[m1, m3] x_e[m1, u]         G_e,p[m1, m3] = Σ_m2 C_p[m2, m1, m3] Y_e[m2]

and a linear map acts on S. The package makes and adds up a message of each edge. Here ``y = w x`` is made first, so
that the sum over the edges and m1 becomes one matrix product of each receiver and path. The weights are combinations
of K functions, ``w = c @ mix`` (`model.potentials.sevennet.radial`).

Receivers are computed in blocks that fit the processor's cache. Nothing but the inputs is kept for the backward pass,
which is written by hand: with Z = ∂E/∂S,

    ∂E/∂y[e, p, m1, u] = Σ_m3 G_e,p[m1, m3] Z[p, m3, u]        ∂E/∂G_e,p[m1, m3] = Σ_u y[e, p, m1, u] Z[p, m3, u]

Shapes: b receivers of a block, E = b·Q edges (the last ones of a receiver may be padding), M = (L+1)² harmonics, U
channels of a degree, W weights of all paths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.potentials.sevennet.weights import LayerWeights


@dataclass(frozen=True, eq=False)
class Block:
    """Receivers that are computed together: their ``rows``, their ``edges``, and (b, Q) the ``sender`` of each edge."""

    rows: slice
    edges: slice
    sender: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class _Path:
    """One product of features of degree ``l1``, as it is computed.

    Attributes:
        l1, l3: degrees of the features and of the result.
        harmonics: columns of the edges' harmonics that it reads.
        weights: columns of w.
        symbols: (2l2+1, (2l1+1)·(2l3+1)) from the harmonics to G.
        channels: columns of S among those of all paths to ``l3``.
    """

    l1: int
    l3: int
    harmonics: slice
    weights: slice
    symbols: Tensor
    channels: slice


class Convolution:
    """The convolution of one layer; ``mix`` (K, W) as in the radial table."""

    def __init__(self, layer: LayerWeights, mix: Tensor, *, dtype: torch.dtype) -> None:
        self.mix = mix.to(dtype)
        self.after = [matrix.to(dtype) for matrix in layer.after]
        self.paths: list[_Path] = []
        filled = [0] * len(layer.after)
        for path in layer.paths:
            start = filled[path.l3]
            filled[path.l3] = stop = start + path.weights.stop - path.weights.start
            self.paths.append(
                _Path(
                    l1=path.l1,
                    l3=path.l3,
                    harmonics=slice(path.l2**2, (path.l2 + 1) ** 2),
                    weights=path.weights,
                    symbols=path.symbols.reshape(2 * path.l2 + 1, -1).to(dtype),
                    channels=slice(start, stop),
                )
            )

    def __call__(self, radial: Tensor, harmonics: Tensor, features: list[Tensor], blocks: list[Block]) -> list[Tensor]:
        """Per degree, (R, 2l+1, out) for R receivers.

        Args:
            radial: (E, K) c of the edges, zero for padding.
            harmonics: (E, M) Y of the edges.
            features: per degree, (n, 2l+1, U) x of the atoms.
            blocks: all receivers and edges, in order.
        """
        return list(_Convolve.apply(radial, harmonics, blocks, self, *features))

    def forward(self, radial: Tensor, harmonics: Tensor, sent: list[Tensor]) -> list[Tensor]:
        """The result for one block; ``sent`` per degree (b, Q, 2l+1, U)."""
        weights = (radial @ self.mix).view(*sent[0].shape[:2], 1, -1)
        sums: list[list[Tensor]] = [[] for _ in self.after]
        for path in self.paths:
            product, geometry = self._product(path, weights, sent), self._geometry(path, harmonics, sent)
            sums[path.l3].append(torch.bmm(geometry.mT, product))
        return [torch.cat(parts, dim=-1) @ matrix for parts, matrix in zip(sums, self.after, strict=True)]

    def backward(
        self, radial: Tensor, harmonics: Tensor, sent: list[Tensor], grads: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Derivatives with respect to the arguments of `forward`, from those with respect to its result."""
        weights = (radial @ self.mix).view(*sent[0].shape[:2], 1, -1)
        of_sums = [grad @ matrix.T for grad, matrix in zip(grads, self.after, strict=True)]
        of_weights, of_harmonics = torch.empty_like(weights), torch.zeros_like(harmonics)
        of_sent = [torch.zeros_like(x) for x in sent]
        for path in self.paths:
            product, geometry = self._product(path, weights, sent), self._geometry(path, harmonics, sent)
            of_sum = of_sums[path.l3][..., path.channels]  # (b, 2l3+1, U)
            of_geometry = torch.bmm(product, of_sum.mT)
            of_harmonics[:, path.harmonics].addmm_(of_geometry.view(len(harmonics), -1), path.symbols.T)
            of_product = torch.bmm(geometry, of_sum).view_as(sent[path.l1])
            of_sent[path.l1].addcmul_(of_product, weights[..., path.weights])
            torch.sum(of_product.mul_(sent[path.l1]), 2, keepdim=True, out=of_weights[..., path.weights])
        return of_weights.view(len(radial), -1) @ self.mix.T, of_harmonics, of_sent

    def _product(self, path: _Path, weights: Tensor, sent: list[Tensor]) -> Tensor:
        """(b, Q·(2l1+1), U) y."""
        product = weights[..., path.weights] * sent[path.l1]
        return product.view(len(product), -1, product.shape[-1])

    def _geometry(self, path: _Path, harmonics: Tensor, sent: list[Tensor]) -> Tensor:
        """(b, Q·(2l1+1), 2l3+1) G."""
        return (harmonics[:, path.harmonics] @ path.symbols).view(len(sent[0]), -1, 2 * path.l3 + 1)


class _Convolve(torch.autograd.Function):
    """`Convolution` block by block."""

    @staticmethod
    def forward(
        ctx: Any, radial: Tensor, harmonics: Tensor, blocks: list[Block], how: Convolution, *features: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(radial, harmonics, *features)
        ctx.blocks, ctx.how = blocks, how
        parts = [how.forward(radial[b.edges], harmonics[b.edges], _sent(features, b)) for b in blocks]
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        radial, harmonics, *features = ctx.saved_tensors
        of_radial, of_harmonics = torch.empty_like(radial), torch.empty_like(harmonics)
        wanted = any(ctx.needs_input_grad[4:])  # not in the first layer, whose features are constants
        of_features = [torch.zeros_like(x) for x in features] if wanted else []
        for b in ctx.blocks:
            mine = [grad[b.rows] for grad in grads]
            found = ctx.how.backward(radial[b.edges], harmonics[b.edges], _sent(features, b), mine)
            of_radial[b.edges], of_harmonics[b.edges], of_sent = found
            for total, part in zip(of_features, of_sent, strict=wanted):
                total.index_add_(0, b.sender.view(-1), part.flatten(0, 1))
        rest: list[Tensor | None] = [*of_features] if wanted else [None] * len(features)
        return of_radial, of_harmonics, None, None, *rest


def _sent(features: tuple[Tensor, ...] | list[Tensor], block: Block) -> list[Tensor]:
    """Per degree, (b, Q, 2l+1, U) features of the senders."""
    index = block.sender.view(-1)
    return [x.index_select(0, index).view(*block.sender.shape, *x.shape[1:]) for x in features]
