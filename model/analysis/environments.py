"""Local environments of atoms: radial distribution functions and coordination numbers.

A test compares g(r) with pymatgen's RadialDistributionFunction, which takes one cell for all crystals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers
from scipy.spatial import Voronoi

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
        first, second, vector = pair_vectors(crystal, cutoff=cutoff)
        right = (crystal.numbers[first] == z_center) & (crystal.numbers[second] == z_neighbour)
        found = np.histogram(np.linalg.norm(vector[right], axis=1), bounds)[0].astype(float)
        counts += found
        density += found / (shell * (crystal.numbers == z_neighbour).sum() / crystal.volume)
        atoms += int((crystal.numbers == z_center).sum())
    return RadialDistribution((bounds[:-1] + bounds[1:]) / 2, density / atoms, np.cumsum(counts) / atoms)


def coordination_numbers(
    crystal: Crystal,
    *,
    neighbours: Sequence[str] | None = None,
    distance_cutoff: float = 1.4,
    angle_cutoff: float = 0.3,
) -> np.ndarray:
    """Coordination number of every atom: (n,) integers.

    A neighbour counts if it is at most ``distance_cutoff`` times as far as the nearest one, and if the Voronoi face
    that it shares with the atom subtends at least ``angle_cutoff`` times the solid angle of the largest face. These are
    the two criteria of ChemEnv's simplest strategy, with its values (Waroquiers et al., Chem. Mater. 29, 8346 (2017)),
    which the CHGGen paper uses through LocalGeometryFinder; pymatgen's VoronoiNN has no cutoff relative to the nearest
    neighbour.

    Args:
        crystal: the crystal.
        neighbours: elements that count, for example the anions (default: all). The tessellation is that of these atoms
            and the atom itself.
        distance_cutoff: relative to the nearest neighbour.
        angle_cutoff: relative to the largest solid angle.

    Example:
        >>> salt = Crystal(2.82 * (1 - np.eye(3)), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
        >>> print(coordination_numbers(salt))
        [6 6]
    """
    wanted = {atomic_numbers[symbol] for symbol in neighbours} if neighbours else set(crystal.numbers.tolist())
    counts = np.isin(crystal.numbers, list(wanted))
    if not counts.any():
        return np.zeros(len(crystal), dtype=int)
    reach = 4.0 * np.cbrt(crystal.volume / counts.sum())
    first, second, vector = pair_vectors(crystal, cutoff=reach)
    keep = counts[second]
    first, vector = first[keep], vector[keep]
    return np.array(
        [_coordination(vector[first == atom], distance_cutoff, angle_cutoff) for atom in range(len(crystal))]
    )


def _coordination(vectors: np.ndarray, distance_cutoff: float, angle_cutoff: float) -> int:
    """Neighbours among (m, 3) vectors from an atom, by distance and solid angle."""
    order = np.argsort(np.linalg.norm(vectors, axis=1))[:60]
    near = vectors[order]
    distance = np.linalg.norm(near, axis=1)
    cells = Voronoi(np.vstack([np.zeros(3), near]))
    angle = np.zeros(len(near))
    for (a, b), ridge in zip(cells.ridge_points, cells.ridge_vertices, strict=True):
        if min(a, b) == 0 and -1 not in ridge:
            angle[max(a, b) - 1] = _solid_angle(cells.vertices[ridge])
    chosen = (distance <= distance_cutoff * distance[0]) & (angle >= angle_cutoff * angle.max())
    return int(chosen.sum())


def _solid_angle(corners: np.ndarray) -> float:
    """Solid angle of a convex polygon (k, 3) seen from the origin (van Oosterom and Strackee 1983, in triangles)."""
    unit = corners / np.linalg.norm(corners, axis=1, keepdims=True)
    a, b, c = unit[:1], unit[1:-1], unit[2:]
    triple = np.abs(np.einsum("ij,ij->i", np.broadcast_to(a, b.shape), np.cross(b, c)))
    dots = 1 + (a * b).sum(1) + (b * c).sum(1) + (a * c).sum(1)
    return float(2 * np.arctan2(triple, dots).sum())


def coordination_statistics(
    crystals: Sequence[Crystal], center: str, neighbours: Sequence[str] | None = None
) -> dict[int, float]:
    """Share of the atoms of an element with each coordination number; the shares sum to 1.

    Raises:
        ValueError: no crystal contains the element.
    """
    z = atomic_numbers[center]
    parts = [
        coordination_numbers(crystal, neighbours=neighbours)[crystal.numbers == z]
        for crystal in crystals
        if z in crystal.numbers
    ]
    if not parts:
        raise ValueError(f"no crystal contains {center}")
    values, counts = np.unique(np.concatenate(parts), return_counts=True)
    return {int(value): float(count) / counts.sum() for value, count in zip(values, counts, strict=True)}
