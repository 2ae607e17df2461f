"""Criteria for ranking samples of one template, besides their single-point energies; the lowest value is best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.diffusion.sampler import Denoiser, Noise, Template
from model.potentials.interface import Potential
from model.relaxation.relax import Relaxation, RelaxSettings, relax

GUESTS_ONLY = RelaxSettings(cell="fixed", optimizer="lbfgs", fmax=0.05, max_steps=100)


def guests_relaxed(
    crystals: Sequence[Crystal],
    guests: Sequence[np.ndarray],
    potential: Potential,
    settings: RelaxSettings = GUESTS_ONLY,
) -> list[Relaxation]:
    """The crystals after relaxing only the guests, with host and cell fixed."""
    return relax(crystals, potential, settings, free=guests)


def denoising_residuals(
    denoiser: Denoiser,
    templates: Sequence[Template],
    *,
    sigmas: Sequence[float] = (0.1, 0.2, 0.4),
    draws: int = 2,
    device: str = "cpu",
) -> np.ndarray:
    """Error of the model in denoising guests back to their positions; needs neither potential nor likelihood.

    Guests get noise σz, and the model answers with D(x + σz, σ), which is −σz if x is where it would put them:

        residual = mean over guests, σ and draws of ‖D(x + σz, σ) + σz‖² / 3σ².

    Zero corresponds to perfect denoising, one to a model that has learned nothing.

    Args:
        denoiser: see `model.diffusion.sampler`.
        templates: samples, with the guests at the positions to evaluate. Equal seeds give equal noise for each atom,
            which makes samples of one template comparable.
        sigmas: noise levels, Å.
        draws: number of draws of noise per sigma.
        device: device of the denoiser.

    Returns:
        (B,), after ``len(sigmas) * draws`` evaluations.
    """
    batch = Batch.from_crystals([template.crystal for template in templates], device=device)
    guest = torch.from_numpy(np.concatenate([template.guest for template in templates])).to(device)
    noise = Noise(templates, batch)
    counts = torch.zeros(len(batch), device=device).index_add_(0, batch.owner[guest], torch.ones(int(guest.sum())))
    total = torch.zeros_like(counts)
    with torch.no_grad():
        for sigma in np.repeat(sigmas, draws):
            shift = float(sigma) * noise.normal() * guest[:, None]
            moved = batch.replace(positions=batch.positions + shift)
            error = denoiser(moved, torch.full_like(counts, float(sigma)), guest) + shift
            squared = error.square().sum(-1)[guest] / (3 * float(sigma) ** 2)
            total.index_add_(0, batch.owner[guest], squared)
    return (total / counts / (len(sigmas) * draws)).cpu().numpy()
