"""Real spherical harmonics up to degree 3, and how they turn."""

from __future__ import annotations

import math

import torch
from torch import Tensor

HIGHEST = 3


def harmonics(unit: Tensor, highest: int) -> Tensor:
    """(E, (L+1)²) harmonics of unit vectors (E, 3), in the order and signs of e3nn; Σ_m Y_lm² = 2l+1."""
    x, y, z = unit.unbind(-1)
    parts = [torch.ones_like(x)]
    if highest >= 1:
        parts += [math.sqrt(3) * x, math.sqrt(3) * y, math.sqrt(3) * z]
    if highest >= 2:
        xz, flat, diagonal = x * z, x * x + z * z, (z * z - x * x) / 2
        five = math.sqrt(15)
        parts += [five * xz, five * x * y, math.sqrt(5) * (y * y - flat / 2), five * y * z, five * diagonal]
    if highest >= 3:
        outer, inner = math.sqrt(35 / 2), math.sqrt(21 / 8)
        tall = 4 * y * y - flat
        parts += [
            outer * (xz * z + diagonal * x),
            math.sqrt(105) * xz * y,
            inner * tall * x,
            math.sqrt(7) / 2 * y * (2 * y * y - 3 * flat),
            inner * tall * z,
            math.sqrt(105) * diagonal * y,
            outer * (diagonal * z - xz * x),
        ]
    return torch.stack(parts, dim=-1)


def turns(rotations: Tensor, highest: int) -> list[Tensor]:
    """Per degree, (G, 2l+1, 2l+1) matrices D with Y(v @ rotation) = D Y(v), of rotations (G, 3, 3) of rows."""
    points = torch.randn(32, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = (points / points.norm(dim=-1, keepdim=True)).to(rotations)
    before, after = harmonics(unit, highest), harmonics((unit @ rotations).flatten(0, 1), highest)
    after = after.view(len(rotations), len(unit), -1)
    found = []
    for degree in range(highest + 1):
        part = slice(degree**2, (degree + 1) ** 2)
        found.append((torch.linalg.pinv(before[:, part]) @ after[:, :, part]).mT.contiguous())
    return found
