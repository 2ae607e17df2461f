"""Radial distribution functions.

A test compares g(r) with pymatgen's RadialDistributionFunction, which takes one cell for all crystals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers

from model.crystals.crystal import Crystal
from model.crystals.neighbors import pair_vectors


@dataclass(frozen=True, eq=False)
class RadialDistribution:
    """How often atoms of one element lie at a distance from those of another.

    Attributes:
        centers: (k,) Å, middles of the bins.
        density: (k,) g(r); 1 where neighbours are as frequent as in an ideal gas of the same density.
        neighbours: (k,) mean number of neighbours up to the end of each bin.
    """

    centers: np.ndarray
    density: np.ndarray
    neighbours: np.ndarray


def radial_distribution(
    crystals: Sequence[Crystal], center: str, neighbour: str, *, cutoff: float = 8.0, width: float = 0.05
) -> RadialDistribution:
    """g(r) of an element around another, the mean over all such centres of all crystals.

    In each crystal, counts in the shell from r to r + dr are divided by its number density of ``neighbour`` times the
    shell's volume.

    Args:
        crystals: of any composition; those without both elements are left out.
        center, neighbour: element symbols; may be the same.
        cutoff: Å, largest distance.
        width: Å, of a bin.

    Raises:
        ValueError: no crystal has both elements, or cutoff and width make no bins.
    """
    if not 0 < width <= cutoff:
        raise ValueError(f"cutoff and width must be positive with width <= cutoff, got {cutoff} and {width} Å")
    z_center, z_neighbour = atomic_numbers[center], atomic_numbers[neighbour]
    chosen = [crystal for crystal in crystals if {z_center, z_neighbour} <= set(crystal.numbers.tolist())]
    if not chosen:
        raise ValueError(f"no crystal contains both {center} and {neighbour}")
    bounds = np.arange(round(cutoff / width) + 1) * width
    shell = 4 / 3 * np.pi * np.diff(bounds**3)
    counts, density, atoms = np.zeros(len(shell)), np.zeros(len(shell)), 0
    for crystal in chosen:
        first, second, vector = pair_vectors(crystal, cutoff=float(bounds[-1]))
        right = (crystal.numbers[first] == z_center) & (crystal.numbers[second] == z_neighbour)
        found = np.histogram(np.linalg.norm(vector[right], axis=1), bounds)[0].astype(float)
        counts += found
        density += found / (shell * (crystal.numbers == z_neighbour).sum() / crystal.volume)
        atoms += int((crystal.numbers == z_center).sum())
    return RadialDistribution((bounds[:-1] + bounds[1:]) / 2, density / atoms, np.cumsum(counts) / atoms)
