"""The voids of a host, by the Voronoi cells of its atoms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree, Voronoi

from model.crystals.crystal import Crystal
from model.crystals.periodic_images import lengths


@dataclass(frozen=True, eq=False)
class Void:
    """A hole of a host.

    Attributes:
        fractional: (3,) its middle.
        radius: Å to the nearest atom.
    """

    fractional: np.ndarray
    radius: float


def void_sites(host: Crystal, *, min_radius: float = 1.2, merge: float = 0.6) -> list[Void]:
    """The holes of a host: corners of its atoms' Voronoi cells, the widest first.

    A corner is as far as it can be from at least four atoms. Corners closer than ``merge`` count once, as the widest.

    Args:
        host: the crystal.
        min_radius: Å, narrower holes are left out.
        merge: Å.
    """
    edges = np.abs(np.diag(np.linalg.qr(host.lattice.T)[1]))  # of a box that repeats as the lattice does
    atoms = _images(host, margin=float(np.linalg.norm(edges)) / 2)  # no point is further from an atom
    corners = Voronoi(atoms).vertices
    fractional = corners @ np.linalg.inv(host.lattice)
    inside = ((fractional > -1e-6) & (fractional < 1 - 1e-6)).all(1)
    distance = KDTree(atoms).query(corners[inside])[0]
    sites, chosen = np.abs(fractional[inside]), np.empty(0, dtype=int)
    order = np.lexsort((*sites.T.round(6), -distance.round(6)))  # of equally wide ones by place, whatever Qhull does
    order = order[distance[order] >= min_radius]
    for index in order:
        if len(chosen) == 0 or lengths(host, sites[index] - sites[chosen]).min() > merge:
            chosen = np.append(chosen, index)
    return [Void(sites[index], float(distance[index])) for index in chosen]


def _images(crystal: Crystal, margin: float) -> np.ndarray:
    """(m, 3) Cartesian positions of all atoms in the cell and in planes up to ``margin`` Å around it."""
    reach = margin * np.linalg.norm(np.linalg.inv(crystal.lattice), axis=0)
    ranges = [np.arange(-n, n + 1) for n in np.ceil(reach).astype(int)]
    shifts = np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, 1, 3)
    fractional = (crystal.wrapped().fractional + shifts).reshape(-1, 3)
    near = ((fractional > -reach - 1e-6) & (fractional < 1 + reach + 1e-6)).all(1)
    return fractional[near] @ crystal.lattice
