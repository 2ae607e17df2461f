"""Noise levels, noised crystals, and the displacements that the network is trained to predict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.crystals.batch import Batch
from model.crystals.periodic_images import plane_spacings, reduced_cell, rounded_steps


def exponential_levels(low: float, high: float, steps: int) -> np.ndarray:
    """``steps`` noise levels in Å from ``low`` to ``high``, evenly spaced in log sigma (CHGGen, eq. 3).

    >>> exponential_levels(0.1, 10.0, 3).tolist()
    [0.1, 1.0, 10.0]
    """
    return np.geomspace(low, high, steps)


def power_levels(low: float, high: float, steps: int, *, rho: float) -> np.ndarray:
    """``steps`` levels in Å from ``high`` down to ``low``, evenly spaced in sigma^(1/rho) (Karras 2022, eq. 5)."""
    return np.linspace(high ** (1 / rho), low ** (1 / rho), steps) ** rho


def wrapped_displacement(noised: Tensor, clean: Tensor, sigma: Tensor, lattice: Tensor, owner: Tensor) -> Tensor:
    """Mean displacement from a noised position back to the periodic images of its clean one.

    The images are weighted by the probability that Gaussian noise started from them, so that this is
    ``sigma² ∇ log p(noised | clean)`` of the wrapped normal distribution; images farther than 4.5 sigma are omitted.

    Args:
        noised, clean: (N, 3) Cartesian in Å.
        sigma: (B,) in Å.
        lattice: (B, 3, 3).
        owner: (N,).

    Returns:
        (N, 3) in Å.
    """
    reach = torch.ceil(4.5 * sigma[:, None] / plane_spacings(lattice)).amax(dim=0).clamp_min(2)
    vectors = _to_images(noised, clean, lattice, owner, reach=reach.int().tolist())
    weights = torch.softmax(-vectors.square().sum(-1) / (2 * sigma[owner, None].square()), dim=-1)
    return (weights[:, :, None] * vectors).sum(dim=1)


def minimum_image_displacement(noised: Tensor, clean: Tensor, lattice: Tensor, owner: Tensor) -> Tensor:
    """(N, 3) displacement in Å from a noised position to the nearest image of its clean one (arguments as above)."""
    reduced = torch.stack([torch.from_numpy(reduced_cell(cell)[0].copy()) for cell in lattice.cpu().numpy()])
    vectors = _to_images(noised, clean, reduced.to(lattice), owner, reach=(1, 1, 1))  # enough in a reduced cell
    nearest = vectors.square().sum(-1).argmin(dim=1)
    return vectors[torch.arange(len(vectors), device=vectors.device), nearest]


def _to_images(noised: Tensor, clean: Tensor, lattice: Tensor, owner: Tensor, *, reach: Sequence[int]) -> Tensor:
    """(N, K, 3) vectors in Å from each noised position to the images of its clean one, ``reach`` cells to each side."""
    difference = rounded_steps(torch.einsum("ni,nij->nj", clean - noised, torch.linalg.inv(lattice)[owner]))
    images = torch.cartesian_prod(*(torch.arange(-n, n + 1) for n in reach)).to(difference)
    return torch.einsum("nki,nij->nkj", difference[:, None] + images, lattice[owner])


def draw_sigma(
    count: int, rng: np.random.Generator, *, centre: float, width: float, broad: float, limits: tuple[float, float]
) -> np.ndarray:
    """Training noise levels in Å: log-normal about ``centre``, a share ``broad`` log-uniform within ``limits``."""
    focused = centre * np.exp(width * rng.standard_normal(count))
    low, high = np.log(limits)
    uniform = np.exp(rng.uniform(float(low), float(high), count))
    return np.clip(np.where(rng.random(count) < broad, uniform, focused), *limits)


def add_noise(batch: Batch, sigma: Tensor, guest: Tensor, generator: torch.Generator, *, host_jitter: float) -> Batch:
    """Displace guests (N,) by sigma (B,) and hosts by ``host_jitter``, both in Å."""
    size = torch.where(guest, sigma[batch.owner], torch.full_like(sigma[batch.owner], host_jitter))
    noise = torch.randn(batch.positions.shape, generator=generator, dtype=batch.positions.dtype)
    return batch.replace(positions=batch.positions + size[:, None] * noise.to(batch.positions.device))
