"""The voids of a host, from the Voronoi cells of its atoms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree, Voronoi

from model.crystals.crystal import Crystal
from model.crystals.periodic_images import cells_across, shortest_lengths


@dataclass(frozen=True, eq=False)
class Void:
    """A void of a host.

    Attributes:
        fractional: (3,) its centre.
        radius: Å to the nearest atom.
    """

    fractional: np.ndarray
    radius: float


def void_sites(host: Crystal, *, min_radius: float = 1.2, merge: float = 0.6) -> list[Void]:
    """The voids of a host: corners of its atoms' Voronoi cells, the widest first.

    A corner is a point of locally largest distance from at least four atoms. pymatgen's VoronoiInterstitialGenerator
    finds such points too; here the order does not depend on Qhull, so that the same seed gives the same crystals.

    Args:
        host: the crystal.
        min_radius: Å, smaller voids are omitted.
        merge: Å, of corners closer than this, only the widest is kept.

    Example:
        >>> fcc = Crystal(2 * (1 - np.eye(3)), [[0, 0, 0]], [29])
        >>> for void in void_sites(fcc):
        ...     print(void.fractional.round(2), round(void.radius, 2))
        [0.5 0.5 0.5] 2.0
        [0.25 0.25 0.25] 1.73
        [0.75 0.75 0.75] 1.73
    """
    edges = np.abs(np.diag(np.linalg.qr(host.lattice.T)[1]))  # of a box that repeats as the lattice does
    atoms = _images(host, margin=float(np.linalg.norm(edges)) / 2)  # no point is further from an atom
    corners = Voronoi(atoms).vertices
    fractional = corners @ np.linalg.inv(host.lattice)
    inside = ((fractional > -1e-6) & (fractional < 1 - 1e-6)).all(1)
    distance = KDTree(atoms).query(corners[inside])[0]
    sites, chosen = np.abs(fractional[inside]), np.empty(0, dtype=int)
    order = np.lexsort((*sites.T.round(6), -distance.round(6)))  # equally wide ones by position
    order = order[distance[order] >= min_radius]
    for index in order:
        if len(chosen) == 0 or shortest_lengths(sites[index] - sites[chosen], host.lattice).min() > merge:
            chosen = np.append(chosen, index)
    return [Void(sites[index], float(distance[index])) for index in chosen]


def _images(crystal: Crystal, margin: float) -> np.ndarray:
    """(m, 3) Cartesian positions of all atoms in the cell and in planes up to ``margin`` Å around it."""
    reach = cells_across(crystal.lattice, margin)
    ranges = [np.arange(-n, n + 1) for n in np.ceil(reach).astype(int)]
    shifts = np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, 1, 3)
    fractional = (crystal.wrapped().fractional + shifts).reshape(-1, 3)
    near = ((fractional > -reach - 1e-6) & (fractional < 1 + reach + 1e-6)).all(1)
    return fractional[near] @ crystal.lattice
