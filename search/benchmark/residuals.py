"""Ways to say which of several samples of one template is the best, beside the potential's energy of them as they are.

In each the lowest number wins.
"""

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
    """The crystals after the guests alone have moved, in fixed host and cell."""
    return relax(crystals, potential, settings, free=guests)


def denoising_residuals(
    denoiser: Denoiser,
    templates: Sequence[Template],
    *,
    sigmas: Sequence[float] = (0.1, 0.2, 0.4),
    draws: int = 2,
    device: str = "cpu",
) -> np.ndarray:
    """How badly the model takes guests back to where they are: no potential and no likelihood needed.

    Guests get noise σz, and the model answers with D(x + σz, σ), which is −σz if x is where it would put them:

        residual = mean over guests, σ and draws of ‖D(x + σz, σ) + σz‖² / 3σ².

    Zero is a perfect denoiser's; one means that it knows nothing.

    Args:
        denoiser: see `model.diffusion.sampler`.
        templates: samples, with the guests where they are to be judged. Equal seeds mean equal noise, atom by atom,
            which makes samples of one template comparable.
        sigmas: Å.
        draws: of noise, a sigma.
        device: where the denoiser is.

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
