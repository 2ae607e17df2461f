"""The radial networks of SevenNet, compressed and tabulated.

Every layer multiplies its messages by up to 1,760 functions of the distance. They are linear combinations of the 64
hidden values of a small network, and over the distances that occur these are so smooth that far fewer combinations are
enough: ``w(r) = c(r) @ mix`` with K of them, found by a singular value decomposition. A crystal whose atoms are further
apart needs fewer, so there is one table per shortest distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.potentials.sevennet.weights import LayerWeights, Weights

POINTS = 2000  # of the tables; a multiple of 10, so that the kink of XPLOR's second derivative is one of them
SHORTEST = (1.5, 1.0, 0.6, 0.0)  # Å, the distances from which on the tables are exact


@dataclass(frozen=True, eq=False, kw_only=True)
class RadialTable:
    """Compressed radial functions of all layers, as cubic polynomials in each of `POINTS` intervals.

    Attributes:
        coefficients: (points, 4·ΣK) of 1, t, t², t³ with t in [0, 1) in each interval.
        step: Å, length of the intervals.
        sizes: K of each layer.
        mix: per layer, (K, W) float64: from the compressed functions to all.
    """

    coefficients: Tensor
    step: float
    sizes: list[int]
    mix: list[Tensor]

    def __call__(self, length: Tensor, real: Tensor) -> Tensor:
        """(E, ΣK) functions of lengths (E,) in Å, in the table's precision; zero where not ``real`` (E,)."""
        values: Tensor = _Interpolation.apply(length, real, self.coefficients, self.step)
        return values


class _Interpolation(torch.autograd.Function):
    """The table's functions (E, ΣK) and, for the backward pass, their exact slopes."""

    @staticmethod
    def forward(ctx: Any, length: Tensor, real: Tensor, coefficients: Tensor, step: float) -> Tensor:
        place = length / step
        interval = place.floor().clamp_max(len(coefficients) - 1)
        t = (place - interval).to(coefficients.dtype)[:, None]
        zero, one, two, three = coefficients.index_select(0, interval.long()).chunk(4, dim=-1)
        slope = torch.addcmul(2 * two, three, 3 * t).mul_(t).add_(one).div_(step)
        value = torch.addcmul(two, three, t).mul_(t).add_(one).mul_(t).add_(zero)
        weight = real.to(value.dtype)[:, None]
        ctx.save_for_backward(slope.mul_(weight))
        return value.mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return torch.linalg.vecdot(grad, slope).double(), None, None, None


def radial_table(weights: Weights, shortest: float, *, tolerance: float, dtype: torch.dtype) -> RadialTable:
    """The table for distances from ``shortest`` Å on.

    Args:
        weights: of the network.
        shortest: Å; below, the functions may be wrong.
        tolerance: root mean square of what the compression leaves out, relative to that of all functions.
        dtype: of the table.
    """
    length = torch.linspace(0, weights.cutoff, POINTS + 1, dtype=torch.float64).clamp_min(1e-6)
    step, kept = weights.cutoff / POINTS, length >= shortest
    basis, basis_slope = _basis(length, weights)
    values, slopes, mixes = [], [], []
    for layer in weights.layers:
        hidden, hidden_slope = _hidden(basis, basis_slope, layer)
        to_compressed, mix = _compressed(hidden[kept] * length[kept, None], layer.radial_last, tolerance)
        values.append(hidden @ to_compressed)
        slopes.append(hidden_slope @ to_compressed * step)
        mixes.append(mix)
    value, slope = torch.cat(values, dim=-1), torch.cat(slopes, dim=-1)
    rise = value[1:] - value[:-1]
    cubic = [value[:-1], slope[:-1], 3 * rise - 2 * slope[:-1] - slope[1:], slope[:-1] + slope[1:] - 2 * rise]
    coefficients = torch.cat(cubic, dim=-1).to(dtype)
    return RadialTable(coefficients=coefficients, step=step, sizes=[v.shape[1] for v in values], mix=mixes)


def _basis(length: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    """(P, 8) Bessel functions times the cutoff function, and their slopes."""
    r, c = length[:, None], weights.cutoff
    phase = r * weights.frequencies
    wave = 2 / c * torch.sin(phase) / r
    bend = 2 / c * torch.cos(phase) * weights.frequencies / r - wave / r
    if weights.switch_on is None:
        x = r / c
        envelope = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
        fall = (-168 * x**5 + 336 * x**6 - 168 * x**7) / c
    else:
        square, on, off = r * r, weights.switch_on**2, c * c
        inside, scale = (square > on).double(), (off - on) ** 3
        envelope = 1 + inside * ((off - square) ** 2 * (off + 2 * square - 3 * on) / scale - 1)
        fall = inside * 12 * r * (off - square) * (on - square) / scale
    return wave * envelope, bend * envelope + wave * fall


def _hidden(basis: Tensor, slope: Tensor, layer: LayerWeights) -> tuple[Tensor, Tensor]:
    """(P, 64) hidden values of a radial network before its last layer, and their slopes."""
    for matrix in layer.radial:
        value, slope = basis @ matrix, slope @ matrix
        gate = torch.sigmoid(value)
        basis, slope = value * gate, slope * gate * (1 + value * (1 - gate))
    return basis, slope


def _compressed(hidden: Tensor, last: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """(64, K) and (K, W) whose product stands for the last layer (64, W) on all rows of ``hidden``."""
    directions, triangle = torch.linalg.qr(last.T)  # (W, 64), (64, 64)
    _, size, axes = torch.linalg.svd(hidden @ triangle.T, full_matrices=False)
    left = (size.square().flip(0).cumsum(0).flip(0) / size.square().sum()).sqrt()  # without this one and all after
    count = int((left > tolerance).sum())
    axes = axes[:count].T
    return triangle.T @ axes, axes.T @ directions.T


def table_index(shortest: float) -> int:
    """Which of `SHORTEST` serves a crystal whose shortest distance this is (Å)."""
    return next((i for i, least in enumerate(SHORTEST) if shortest >= least), len(SHORTEST) - 1)
