"""Powder patterns as a diffractometer would measure them."""

from collections.abc import Sequence

import numpy as np

from model.crystals.crystal import Crystal
from model.verification.diffraction import Pattern, profile, reflections


def measured(parts: Sequence[tuple[Crystal, float]], seed: int = 0) -> Pattern:
    """A pattern of strained crystals with texture, noise and background; parts are (crystal, share)."""
    rng = np.random.default_rng(seed)
    grid = np.arange(10, 90, 0.02)
    total = np.zeros_like(grid)
    for crystal, share in parts:
        lattice = crystal.lattice * (1 + rng.choice([-1, 1]) * 0.015)
        peaks = reflections(crystal, highest=95)
        curve = profile(peaks.angles_in(lattice), peaks.intensities * rng.uniform(0.6, 1.6, len(peaks.angles)), grid)
        total += share * curve / curve.max()
    counts = 2000 * total + 200 * np.exp(-(grid - 10) / 20) + 60 + 40 * np.exp(-(((grid - 24) / 7) ** 2))
    return Pattern(angles=grid, intensities=rng.poisson(counts).astype(float))
