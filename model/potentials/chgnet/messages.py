"""CHGNet's gated messages between the ends of pairs, which are nearly all of its work, with their derivative.

A pair is a bond, whose ends are two atoms, or an angle, whose ends are two bonds. It sends a message in either
direction. There are n ends and E pairs; a direction d = 0, 1 of pair p has a target and a source, and d = 1 exchanges
those of d = 0. With k = 0 for the core and k = 1 for the gate (B. Deng et al., Nat. Mach. Intell. 5, 1031 (2023),
Methods; LN is a layer norm, products are elementwise but for those with the matrices A_k and M):

    x_dp = L[target] + R[source] + S[p] + F_dp M     first linear layer, 128 = core beside gate
    h_k  = silu(x_k) A_k + b_k                       second linear layer, 64; h_k = x_k where the MLP has only one
    g(x) = silu(LN_0(h_0)) sigmoid(LN_1(h_1))        gated MLP, 64
    m_dp = w_p g(x_dp)                               message, 64
    y_i  = Σ c_dp m_dp                               sum over all directions with target i, 64

The layer acts on concatenated features; L, R, S and F M are its products with those of the target, the source, the pair
in both directions, and the pair in each direction (angles only). The weight w falls to zero with the lengths of the
bonds. The counts c are one, except in a `model.potentials.chgnet.orbit_graph`.

The derivative is written by hand, because autograd would keep and pass over twice as much. With Y = ∂E/∂y, and the
transposed Jacobian J of g at x_dp (`GatedMLP.backward`),

    ∂E/∂m_dp = c_dp Y[target]
    ∂E/∂w_p  = Σ_d ∂E/∂m_dp g(x_dp)
    X_dp     = ∂E/∂x_dp = J (w_p ∂E/∂m_dp)
    ∂E/∂L[i] = Σ X_dp over all with target i         likewise R with source i
    ∂E/∂S[p] = X_0p + X_1p
    ∂E/∂F_dp = X_dp Mᵀ

A, b, M and the layer norms are constants. Where messages are not summed, ∂E/∂m is given instead of Y.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

WIDTH = 64  # features per atom, bond and angle in every published CHGNet
LEAN_BLOCK = 4096  # pairs in memory at the same time when memory is short


@dataclass(frozen=True, eq=False)
class Pairs:
    """E pairs in both directions.

    Attributes:
        target: (2E,) the end that each message goes to, first all in one direction, then all in the other.
        message_weight: (2E, 1) c, how many times a sum counts each message, or None for once.
    """

    target: Tensor
    message_weight: Tensor | None = None

    def ends(self, block: slice) -> tuple[Tensor, Tensor]:
        """(2b,) targets and sources of a block of b pairs in both directions."""
        target = self.target.view(2, -1)[:, block]
        return target.reshape(-1), target.flip(0).reshape(-1)

    def weigh_(self, messages: Tensor, block: slice) -> Tensor:
        """The messages (2b, 64) of a block of b pairs in both directions, times ``message_weight``; in place."""
        if self.message_weight is None:
            return messages
        return messages.mul_(self.message_weight.view(2, -1, 1)[:, block].reshape(-1, 1))


class GateActivations(NamedTuple):
    """What the derivative of a gated MLP of n rows needs: (n, 128) ``first``, (n, 1) means and inverse deviations.

    The others are (n, 64). The value is ``active * opening``.
    """

    first: Tensor  # x
    core_hidden: Tensor  # h_0
    gate_hidden: Tensor  # h_1
    core: Tensor  # LN_0(h_0)
    core_mean: Tensor
    core_spread: Tensor
    gate_mean: Tensor
    gate_spread: Tensor
    opening: Tensor  # sigmoid(LN_1(h_1))
    active: Tensor  # silu(LN_0(h_0))


@dataclass(frozen=True, eq=False, kw_only=True)
class GatedMLP:
    """A gated MLP after its first linear layer.

    Attributes:
        matrix, bias: (2, 64, 64) A and (2, 64) b, second linear layers of core and gate, or None where there are none.
        scale, offset: (2, 64) of the layer norms.
        epsilon: of the layer norms.
    """

    matrix: Tensor | None
    bias: Tensor | None
    scale: Tensor
    offset: Tensor
    epsilon: float

    def forward(self, first: Tensor) -> GateActivations:
        """All activations from the output (n, 128) of the first layer."""
        core_hidden, gate_hidden = self._second_layer(first)
        (core, core_mean, core_spread), (opening, gate_mean, gate_spread) = (
            torch.native_layer_norm(hidden, (WIDTH,), self.scale[k], self.offset[k], self.epsilon)
            for k, hidden in enumerate((core_hidden, gate_hidden))
        )
        active = nn.functional.silu(core)
        return GateActivations(
            first=first,
            core_hidden=core_hidden,
            gate_hidden=gate_hidden,
            core=core,
            core_mean=core_mean,
            core_spread=core_spread,
            gate_mean=gate_mean,
            gate_spread=gate_spread,
            opening=opening.sigmoid_(),
            active=active,
        )

    def backward(self, at: GateActivations, grad: Tensor) -> Tensor:
        """(n, 128) derivative with respect to the first layer's output, from that with respect to the value (n, 64)."""
        aten = torch.ops.aten
        core, opening = grad * at.opening, grad * at.active
        aten.silu_backward.grad_input(core, at.core, grad_input=core)
        aten.sigmoid_backward.grad_input(opening, at.opening, grad_input=opening)
        result = torch.empty_like(at.first)
        sides = (
            (core, at.core_hidden, at.core_mean, at.core_spread),
            (opening, at.gate_hidden, at.gate_mean, at.gate_spread),
        )
        for k, (of_norm, hidden, mean, spread) in enumerate(sides):
            of_hidden, _, _ = aten.native_layer_norm_backward(
                of_norm, hidden, (WIDTH,), mean, spread, self.scale[k], self.offset[k], (True, False, False)
            )
            half = result[:, WIDTH * k : WIDTH * (k + 1)]
            half.copy_(of_hidden) if self.matrix is None else torch.mm(of_hidden, self.matrix[k].T, out=half)
        if self.matrix is not None:
            aten.silu_backward.grad_input(result, at.first, grad_input=result)
        return result

    def _second_layer(self, first: Tensor) -> list[Tensor]:
        """h_0 and h_1, (n, 64) each."""
        if self.matrix is None or self.bias is None:
            return [half.contiguous() for half in first.split(WIDTH, -1)]
        halves = nn.functional.silu(first).split(WIDTH, -1)
        return [torch.addmm(self.bias[k], halves[k], self.matrix[k]) for k in (0, 1)]


class _FirstLayer(NamedTuple):
    """The terms of x: L and R (n, 128), S (E, 128), and where the directions differ F (2E, 64) and M (64, 128)."""

    of_target: Tensor
    of_source: Tensor
    of_pair: Tensor
    features: Tensor | None
    matrix: Tensor | None

    def rows(self, target: Tensor, source: Tensor, block: slice) -> Tensor:
        """(2b, 128) x of a block of b pairs in both directions."""
        rows = self.of_target.index_select(0, target).add_(self.of_source.index_select(0, source))
        rows.view(2, -1, 2 * WIDTH).add_(self.of_pair[block])
        if self.features is not None and self.matrix is not None:
            rows.addmm_(self.features.view(2, -1, WIDTH)[:, block].reshape(-1, WIDTH), self.matrix)
        return rows


class _Messages(torch.autograd.Function):
    """`messages`; with ``lean`` in blocks of pairs, whose activations are computed again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        of_target: Tensor,
        of_source: Tensor,
        of_pair: Tensor,
        features: Tensor | None,
        pair_weight: Tensor | None,
        matrix: Tensor | None,
        pairs: Pairs,
        mlp: GatedMLP,
        size: int | None,
        lean: bool,
    ) -> Tensor:
        ctx.pairs, ctx.mlp, ctx.matrix, ctx.size, ctx.lean = pairs, mlp, matrix, size, lean
        ctx.n_ends, ctx.n_pairs = len(of_target), len(of_pair)
        layer = _FirstLayer(of_target, of_source, of_pair, features, matrix)
        result = of_pair.new_empty(2, len(of_pair), WIDTH) if size is None else of_pair.new_zeros(size, WIDTH)
        at = None
        for block in _blocks(len(of_pair), lean):
            target, source = pairs.ends(block)
            at = mlp.forward(layer.rows(target, source, block))
            message = (at.active * at.opening).view(2, -1, WIDTH)
            if pair_weight is not None:
                message.mul_(pair_weight[block])
            if size is None:
                result[:, block] = message
            else:
                result.index_add_(0, target, pairs.weigh_(message.view(-1, WIDTH), block))
        ctx.save_for_backward(pair_weight, *(layer[:4] if lean else at or ()))
        return result.view(-1, WIDTH)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        pair_weight, *kept = ctx.saved_tensors
        pairs, mlp, matrix = ctx.pairs, ctx.mlp, ctx.matrix
        of_target = of_source = of_features = of_weight = None  # derivatives, here and below
        if ctx.needs_input_grad[0]:  # not in the first layer, whose atoms are constants
            of_target, of_source = grad.new_zeros(2, ctx.n_ends, 2 * WIDTH)
        if ctx.needs_input_grad[3]:
            of_features = grad.new_empty(2, ctx.n_pairs, WIDTH)
        if pair_weight is not None:
            of_weight = torch.empty_like(pair_weight)
        of_pair = grad.new_empty(ctx.n_pairs, 2 * WIDTH)
        for block in _blocks(ctx.n_pairs, ctx.lean):
            target, source = pairs.ends(block)
            if ctx.lean:
                at = mlp.forward(_FirstLayer._make([*kept, matrix]).rows(target, source, block))
            else:
                at = GateActivations(*kept)
            if ctx.size is None:
                of_message = grad.view(2, -1, WIDTH)[:, block].reshape(-1, WIDTH)
            else:
                of_message = pairs.weigh_(grad.index_select(0, target), block)
            if pair_weight is not None and of_weight is not None:
                of_weight[block] = (of_message * at.active).mul_(at.opening).view(2, -1, WIDTH).sum(0)
                of_message = (of_message.view(2, -1, WIDTH) * pair_weight[block]).view(-1, WIDTH)
            of_rows = mlp.backward(at, of_message)  # X
            torch.sum(of_rows.view(2, -1, 2 * WIDTH), 0, out=of_pair[block])
            if of_target is not None and of_source is not None:
                of_target.index_add_(0, target, of_rows)
                of_source.index_add_(0, source, of_rows)
            if of_features is not None:
                of_features[:, block] = (of_rows @ matrix.T).view(2, -1, WIDTH)
        of_features = None if of_features is None else of_features.view(-1, WIDTH)
        return of_target, of_source, of_pair, of_features, of_weight, None, None, None, None, None


def _blocks(pairs: int, lean: bool) -> Iterator[slice]:
    step = LEAN_BLOCK if lean else max(pairs, 1)
    return (slice(start, min(start + step, pairs)) for start in range(0, max(pairs, 1), step))


def messages(
    of_target: Tensor,
    of_source: Tensor,
    of_pair: Tensor,
    pairs: Pairs,
    mlp: GatedMLP,
    *,
    features: Tensor | None = None,
    matrix: Tensor | None = None,
    pair_weight: Tensor | None = None,
    size: int | None = None,
    lean: bool = False,
) -> Tensor:
    """(2E, 64) messages m of pairs in both directions, or their sums y; see the head of this module.

    Args:
        of_target, of_source: (n, 128) L and R, the ends' parts of the first linear layer.
        of_pair: (E, 128) S, the pairs' part.
        pairs: targets and sources of the messages.
        mlp: the rest of the gated MLP.
        features, matrix: (2E, 64) F and (64, 128) M, where the directions of a pair differ.
        pair_weight: (E, 64) w, the same in both directions.
        size: sum the messages at their targets into so many rows, (size, 64).
        lean: keep nothing for the backward pass, in a third more time.
    """
    result: Tensor = _Messages.apply(
        of_target, of_source, of_pair, features, pair_weight, matrix, pairs, mlp, size, lean
    )
    return result
