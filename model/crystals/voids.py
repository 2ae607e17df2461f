"""The voids of a host, from the Voronoi cells of its atoms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree, Voronoi

from model.crystals.crystal import Crystal
from model.crystals.periodic_images import cells_across, shortest_lengths, shortest_steps

SAME_CORNER = 0.1  # Å, corners of Voronoi cells that differ by less are one
EQUALLY_WIDE = 0.01  # Å
WAY = np.linspace(0, 1, 11)  # points on the way from void to void


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


def guest_sites(host: Crystal, *, min_radius: float = 1.2) -> list[Void]:
    """The voids of a host, those that touch as one site, the widest first.

    Two voids touch if the centre of the narrower one lies inside the wider one and the straight way between them is
    nowhere much narrower than the narrower one (`_narrowing`): a guest rolls from there to the wider one. A site lies
    at its widest void or, where several are equally wide, in the middle of them.

    Args:
        host: the crystal.
        min_radius: Å, smaller voids are omitted.

    Example:
        >>> rutile = Crystal(np.diag([4.59, 4.59, 2.96]), [[0, 0, 0], [0.5, 0.5, 0.5], [0.305, 0.305, 0],
        ...     [0.695, 0.695, 0], [0.195, 0.805, 0.5], [0.805, 0.195, 0.5]], [22, 22, 8, 8, 8, 8])
        >>> for site in guest_sites(rutile, min_radius=1.5):
        ...     print(site.fractional.round(2), round(site.radius, 2))
        [0.5  0.   0.25] 1.82
        [0.   0.5  0.25] 1.82
        [0.5  0.   0.75] 1.82
        [0.   0.5  0.75] 1.82
    """
    voids = void_sites(host, min_radius=min_radius, merge=SAME_CORNER)
    if not voids:
        return []
    places, radii = np.array([void.fractional for void in voids]), np.array([void.radius for void in voids])
    atoms = KDTree(_images(host, margin=2 * float(radii[0])))
    widest = np.arange(len(voids))  # void of each one's site
    offset = np.zeros((len(voids), 3))  # from there, in fractional coordinates
    for index in range(len(voids)):
        steps = shortest_steps(places[:index] - places[index], host.lattice)
        length = np.linalg.norm(steps @ host.lattice, axis=1)
        for wider in np.argsort(length, kind="stable"):
            way = (places[index] + WAY[:, None] * steps[wider]) @ host.lattice
            if length[wider] <= radii[wider] and atoms.query(way)[0].min() >= radii[index] - _narrowing(length[wider]):
                widest[index], offset[index] = widest[wider], offset[wider] - steps[wider]
                break
    sites = []
    for index in np.unique(widest):
        alike = (widest == index) & (radii >= radii[index] - EQUALLY_WIDE)
        place = (places[index] + offset[alike].mean(0)).round(9) % 1.0  # rounded so that -1e-17 does not become 1
        sites.append(Void(place, voids[index].radius))
    return sites


def _narrowing(length: float) -> float:
    """Å by which the way between two voids that touch, so far apart, may be narrower than the narrower one.

    Between corners of one site it is up to 0.06 Å. Between two sites it is 0.08 Å or more (tetrahedral to octahedral in
    CoO2 and spinels). Corners less than 1.3 Å apart belong to one site even at 0.1 Å.
    """
    return 0.1 if length < 1.3 else 0.06


def _images(crystal: Crystal, margin: float) -> np.ndarray:
    """(m, 3) Cartesian positions of all atoms in the cell and in planes up to ``margin`` Å around it."""
    reach = cells_across(crystal.lattice, margin)
    ranges = [np.arange(-n, n + 1) for n in np.ceil(reach).astype(int)]
    shifts = np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, 1, 3)
    fractional = (crystal.wrapped().fractional + shifts).reshape(-1, 3)
    near = ((fractional > -reach - 1e-6) & (fractional < 1 + reach + 1e-6)).all(1)
    return fractional[near] @ crystal.lattice
