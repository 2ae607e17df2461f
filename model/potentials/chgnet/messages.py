"""CHGNet's gated messages over pairs (atoms of a bond, bonds of an angle), which are nearly all of its work.

They are differentiated by hand: autograd would keep and pass over twice as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

WIDTH = 64  # features per atom, bond and angle in every published CHGNet
LEAN_BLOCK = 4096  # pairs that are in memory at once where memory is short


@dataclass(frozen=True, eq=False)
class Pairs:
    """E pairs in both directions: ``here`` (2E,) is where a message goes to; its reverse comes from there.

    Where ``heard`` (2E, 1) is given, a sum of messages takes each that often.
    """

    here: Tensor
    heard: Tensor | None = None

    def part(self, block: slice) -> tuple[Tensor, Tensor]:
        """(2b,) ``here`` and ``there`` of a block of b pairs in both directions."""
        both = self.here.view(2, -1)[:, block]
        return both.reshape(-1), both.flip(0).reshape(-1)

    def weighed(self, rows: Tensor, block: slice) -> Tensor:
        """The rows (2b, 64) of a block of b pairs in both directions, as often as they are heard; in place."""
        return rows if self.heard is None else rows.mul_(self.heard.view(2, -1, 1)[:, block].reshape(-1, 1))


@dataclass(frozen=True, eq=False)
class Gate:
    """A gated MLP from its first linear layer's output on: ``silu(norm(core)) * sigmoid(norm(gate))``.

    Index 0 is the core, 1 the gate. ``matrix`` (2, 64, 64) and ``bias`` (2, 64) are the second linear layer, or None
    where the MLP has one layer only. ``scale`` and ``offset`` (2, 64) belong to the layer norms.
    """

    matrix: Tensor | None
    bias: Tensor | None
    scale: Tensor
    offset: Tensor
    epsilon: float


class _Opened(NamedTuple):
    """A gated MLP of n rows, as its derivative needs it: (n, 128) first layer, (n, 64) and (n, 1) what follows."""

    rows: Tensor
    hidden_core: Tensor
    hidden_gate: Tensor
    core: Tensor
    core_mean: Tensor
    core_spread: Tensor
    gate_mean: Tensor
    gate_spread: Tensor
    opening: Tensor
    active: Tensor


class _Messages(torch.autograd.Function):
    """`messages` with its derivative; the lean way goes through blocks of pairs, and again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        left: Tensor,
        right: Tensor,
        shared: Tensor,
        own: Tensor | None,
        weight: Tensor | None,
        matrix: Tensor | None,
        pairs: Pairs,
        gate: Gate,
        size: int | None,
        lean: bool,
    ) -> Tensor:
        ctx.pairs, ctx.gate, ctx.matrix, ctx.size, ctx.lean = pairs, gate, matrix, size, lean
        ctx.atoms, ctx.length = len(left), len(shared)
        result = shared.new_empty(2, len(shared), WIDTH) if size is None else shared.new_zeros(size, WIDTH)
        opened = None
        for block in _blocks(len(shared), lean):
            here, there = pairs.part(block)
            opened = _open(_first_layer_rows(left, right, shared, own, matrix, here, there, block), gate)
            message = (opened.active * opened.opening).view(2, -1, WIDTH)
            if weight is not None:
                message.mul_(weight[block])
            if size is None:
                result[:, block] = message
            else:
                result.index_add_(0, here, pairs.weighed(message.view(-1, WIDTH), block))
        ctx.save_for_backward(weight, *((left, right, shared, own) if lean else opened or ()))
        return result.view(-1, WIDTH)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *kept = ctx.saved_tensors
        pairs, gate, matrix, length = ctx.pairs, ctx.gate, ctx.matrix, ctx.length
        left = right = own = of_weight = None
        if ctx.needs_input_grad[0]:  # not in the first layer, whose atoms are constants
            left, right = grad.new_zeros(2, ctx.atoms, 2 * WIDTH)
        if ctx.needs_input_grad[3]:
            own = grad.new_empty(2, length, WIDTH)
        if weight is not None:
            of_weight = torch.empty_like(weight)
        shared = grad.new_empty(length, 2 * WIDTH)
        for block in _blocks(length, ctx.lean):
            here, there = pairs.part(block)
            if ctx.lean:
                left_in, right_in, shared_in, own_in = kept
                rows = _first_layer_rows(left_in, right_in, shared_in, own_in, matrix, here, there, block)
                opened = _open(rows, gate)
            else:
                opened = _Opened(*kept)
            if ctx.size is None:
                back = grad.view(2, -1, WIDTH)[:, block].reshape(-1, WIDTH)
            else:
                back = pairs.weighed(grad.index_select(0, here), block)
            if weight is not None and of_weight is not None:
                of_weight[block] = (back * opened.active).mul_(opened.opening).view(2, -1, WIDTH).sum(0)
                back = (back.view(2, -1, WIDTH) * weight[block]).view(-1, WIDTH)
            of_rows = _close(opened, back, gate)
            torch.sum(of_rows.view(2, -1, 2 * WIDTH), 0, out=shared[block])
            if left is not None and right is not None:
                left.index_add_(0, here, of_rows)
                right.index_add_(0, there, of_rows)
            if own is not None:
                own[:, block] = (of_rows @ matrix.T).view(2, -1, WIDTH)
        own = None if own is None else own.view(-1, WIDTH)
        return left, right, shared, own, of_weight, None, None, None, None, None


def _blocks(pairs: int, lean: bool) -> Iterator[slice]:
    step = LEAN_BLOCK if lean else max(pairs, 1)
    return (slice(start, min(start + step, pairs)) for start in range(0, max(pairs, 1), step))


def _first_layer_rows(
    left: Tensor,
    right: Tensor,
    shared: Tensor,
    own: Tensor | None,
    matrix: Tensor | None,
    here: Tensor,
    there: Tensor,
    block: slice,
) -> Tensor:
    """(2b, 128) first linear layer of a block of b pairs in both directions."""
    rows = left.index_select(0, here).add_(right.index_select(0, there))
    rows.view(2, -1, 2 * WIDTH).add_(shared[block])
    if own is not None and matrix is not None:
        rows.addmm_(own.view(2, -1, WIDTH)[:, block].reshape(-1, WIDTH), matrix)
    return rows


def _open(rows: Tensor, gate: Gate) -> _Opened:
    """The rest of the gated MLP; its value is ``active * opening``."""
    hidden_core, hidden_gate = _second_layer(rows, gate)
    (core, mean, spread), (opening, gate_mean, gate_spread) = (
        torch.native_layer_norm(hidden, (WIDTH,), gate.scale[k], gate.offset[k], gate.epsilon)
        for k, hidden in enumerate((hidden_core, hidden_gate))
    )
    active = nn.functional.silu(core)
    return _Opened(
        rows, hidden_core, hidden_gate, core, mean, spread, gate_mean, gate_spread, opening.sigmoid_(), active
    )


def _close(opened: _Opened, grad: Tensor, gate: Gate) -> Tensor:
    """(n, 128) derivative with respect to the first layer, from that of the value (n, 64)."""
    aten = torch.ops.aten
    core, opening = grad * opened.opening, grad * opened.active
    aten.silu_backward.grad_input(core, opened.core, grad_input=core)
    aten.sigmoid_backward.grad_input(opening, opened.opening, grad_input=opening)
    result = torch.empty_like(opened.rows)
    sides = (
        (core, opened.hidden_core, opened.core_mean, opened.core_spread),
        (opening, opened.hidden_gate, opened.gate_mean, opened.gate_spread),
    )
    for k, (back, hidden, mean, spread) in enumerate(sides):
        through, _, _ = aten.native_layer_norm_backward(
            back, hidden, (WIDTH,), mean, spread, gate.scale[k], gate.offset[k], (True, False, False)
        )
        half = result[:, WIDTH * k : WIDTH * (k + 1)]
        half.copy_(through) if gate.matrix is None else torch.mm(through, gate.matrix[k].T, out=half)
    if gate.matrix is not None:
        aten.silu_backward.grad_input(result, opened.rows, grad_input=result)
    return result


def _second_layer(rows: Tensor, gate: Gate) -> list[Tensor]:
    """Core and gate (n, 64) before their norms."""
    if gate.matrix is None or gate.bias is None:
        return [half.contiguous() for half in rows.split(WIDTH, -1)]
    halves = nn.functional.silu(rows).split(WIDTH, -1)
    return [torch.addmm(gate.bias[k], halves[k], gate.matrix[k]) for k in (0, 1)]


def messages(
    left: Tensor,
    right: Tensor,
    shared: Tensor,
    pairs: Pairs,
    gate: Gate,
    *,
    own: Tensor | None = None,
    matrix: Tensor | None = None,
    weight: Tensor | None = None,
    size: int | None = None,
    lean: bool = False,
) -> Tensor:
    """(2E, 64) messages of pairs in both directions.

    They are ``weight * gate(left[here] + right[there] + shared + own @ matrix)``.

    Args:
        left, right: (n, 128) first linear layer of the features at either end, core beside gate.
        shared: (E, 128) what the pair itself adds in both directions.
        pairs: the rows of ``left`` and ``right``.
        gate: the rest of the gated MLP.
        own, matrix: (2E, 64) features of each direction, if they differ, and their part (64, 128) of the layer.
        weight: (E, 64), the same in both directions.
        size: sum the messages at ``here`` into so many rows (size, 64).
        lean: keep nothing for the backward pass, in a third more time.
    """
    result: Tensor = _Messages.apply(left, right, shared, own, weight, matrix, pairs, gate, size, lean)
    return result
