"""The nearest of a vector's periodic images."""

from __future__ import annotations

import itertools

import numpy as np

from model.crystals.crystal import Crystal

NEIGHBOURS = np.array(list(itertools.product([-1, 0, 1], repeat=3)))  # cells around one, itself too


def lengths(host: Crystal, steps: np.ndarray) -> np.ndarray:
    """(...,) Å of the shortest steps that differ from fractional ones (..., 3) by lattice vectors."""
    return np.linalg.norm(closest(host, steps) @ host.lattice, axis=-1)


def closest(host: Crystal, steps: np.ndarray) -> np.ndarray:
    """(..., 3) the shortest of the fractional steps that differ from ``steps`` (..., 3) by lattice vectors.

    Right for reduced cells; in others for steps up to half their size.
    """
    near = (steps - np.round(steps))[..., None, :] + NEIGHBOURS
    nearest = np.linalg.norm(near @ host.lattice, axis=-1).argmin(-1)
    return np.take_along_axis(near, nearest[..., None, None], -2)[..., 0, :]
