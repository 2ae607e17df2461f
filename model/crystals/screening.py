"""Rejecting crystals before relaxation, with a reason."""

from __future__ import annotations

import numpy as np
import torch
from ase.data import covalent_radii

from model.crystals.crystal import Crystal
from model.crystals.neighbors import pair_distances
from model.crystals.periodic_images import plane_spacings
from model.reasons import Reason
from model.settings import Settings


class ScreenSettings(Settings):
    """Limits beyond which a crystal is rejected; 1 Å is the paper's filter, the others are ours."""

    min_distance: float = 1.0  # Å, any two atoms
    min_distance_hydrogen: float = 0.7  # Å, pairs with H, whose real bonds (O-H, H-H) are shorter than 1 Å
    covalent_fraction: float = 0.6  # of the sum of covalent radii, any two atoms
    max_nearest: float = 6.0  # Å, to an atom's nearest neighbour
    min_volume_per_atom: float = 3.0  # Å³
    max_volume_per_atom: float = 150.0  # Å³
    max_aspect: float = 20.0  # longest cell vector over the smallest distance between opposite faces


def screen(crystal: Crystal, settings: ScreenSettings | None = None) -> Reason | None:
    """Return the first reason to reject a crystal, or None if there is none.

    >>> screen(Crystal(3 * np.eye(3), [[0, 0, 0], [0.1, 0.1, 0.1]], [3, 14]))
    <Reason.TOO_CLOSE: 'too_close'>
    """
    settings = settings or ScreenSettings()
    if len(crystal) == 0:
        return Reason.EMPTY
    if not (np.isfinite(crystal.lattice).all() and np.isfinite(crystal.fractional).all()):
        return Reason.NAN
    return _screen_cell(crystal, settings) or _screen_distances(crystal, settings)


def too_close(crystal: Crystal, settings: ScreenSettings | None = None) -> bool:
    """Whether two atoms (or an atom and its image) overlap; of a host without its guests, only this is checked."""
    settings = settings or ScreenSettings()
    return _overlap(crystal.numbers, *pair_distances(crystal, cutoff=settings.max_nearest), settings)


def _screen_cell(crystal: Crystal, settings: ScreenSettings) -> Reason | None:
    if crystal.volume < 1e-6:
        return Reason.FLAT_CELL
    if not settings.min_volume_per_atom <= crystal.volume / len(crystal) <= settings.max_volume_per_atom:
        return Reason.VOLUME
    smallest = float(plane_spacings(torch.tensor(crystal.lattice)[None]).min())
    longest = np.linalg.norm(crystal.lattice, axis=1).max()
    return Reason.NEEDLE if longest > settings.max_aspect * smallest else None


def _screen_distances(crystal: Crystal, settings: ScreenSettings) -> Reason | None:
    pairs = pair_distances(crystal, cutoff=settings.max_nearest)
    if _overlap(crystal.numbers, *pairs, settings):
        return Reason.TOO_CLOSE
    return Reason.ISOLATED if len(np.unique(pairs[0])) < len(crystal) else None


def _overlap(
    numbers: np.ndarray, first: np.ndarray, second: np.ndarray, distance: np.ndarray, settings: ScreenSettings
) -> bool:
    return bool((distance < closest_allowed(numbers[first], numbers[second], settings)).any())


def closest_allowed(z_first: np.ndarray, z_second: np.ndarray, settings: ScreenSettings) -> np.ndarray:
    """Distances in Å below which atoms of these atomic numbers overlap; the two arrays are broadcast."""
    hydrogen = (z_first == 1) | (z_second == 1)
    limit = np.where(hydrogen, settings.min_distance_hydrogen, settings.min_distance)
    bond = settings.covalent_fraction * (covalent_radii[z_first] + covalent_radii[z_second])
    return np.maximum(limit, bond)
