"""Surroundings of atoms, room between them, and voltages: what a crystal tells without a simulation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import atomic_numbers
from pymatgen.core import Composition, Element
from scipy.spatial import KDTree, Voronoi

from model.crystal import Crystal
from model.neighbors import periodic_edges

NEIGHBOURS = np.array(list(itertools.product([-1, 0, 1], repeat=3)))  # cells around one, itself too


@dataclass(frozen=True, eq=False)
class RadialDistribution:
    """How often atoms of one element lie at a distance from those of another.

    Attributes:
        centers: (k,) Å, middles of the bins.
        density: (k,) g(r), 1 where neighbours are as frequent as in an ideal gas of the same density.
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
        crystals: of any composition; those without one of the elements are left out.
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
        raise ValueError(f"no crystal holds both {center} and {neighbour}")
    bounds = np.arange(round(cutoff / width) + 1) * width
    shell = 4 / 3 * np.pi * np.diff(bounds**3)
    counts, density, atoms = np.zeros(len(shell)), np.zeros(len(shell)), 0
    for crystal in chosen:
        first, second, vector = _pairs(crystal, cutoff)
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

    A neighbour counts if it is at most ``distance_cutoff`` times as far as the nearest one, and if the face that it
    shares with the atom in the Voronoi tessellation is seen under at least ``angle_cutoff`` times the solid angle of
    the largest face. These are the two criteria of ChemEnv's simplest strategy, with its values (Waroquiers et al.,
    Chem. Mater. 29, 8346 (2017)), which the CHGGen paper uses through LocalGeometryFinder.

    Args:
        crystal: the crystal.
        neighbours: only these elements count, for example the anions; all when left out. The tessellation then knows
            only them and the atom itself.
        distance_cutoff: relative to the nearest neighbour.
        angle_cutoff: relative to the largest solid angle.
    """
    wanted = {atomic_numbers[symbol] for symbol in neighbours} if neighbours else set(crystal.numbers.tolist())
    counts = np.isin(crystal.numbers, list(wanted))
    if not counts.any():
        return np.zeros(len(crystal), dtype=int)
    reach = 4.0 * np.cbrt(crystal.volume / counts.sum())
    first, second, vector = _pairs(crystal, reach)
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
        ValueError: no crystal holds the element.
    """
    z = atomic_numbers[center]
    parts = [
        coordination_numbers(crystal, neighbours=neighbours)[crystal.numbers == z]
        for crystal in crystals
        if z in crystal.numbers
    ]
    if not parts:
        raise ValueError(f"no crystal holds {center}")
    values, counts = np.unique(np.concatenate(parts), return_counts=True)
    return {int(value): float(count) / counts.sum() for value, count in zip(values, counts, strict=True)}


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


def _pairs(crystal: Crystal, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Periodic pairs within ``cutoff`` Å, each in both directions: first atom, second atom, (m, 3) vector in Å."""
    positions, lattice = torch.tensor(crystal.cartesian), torch.tensor(crystal.lattice)[None]
    edges = periodic_edges(positions, lattice, torch.tensor([len(crystal)]), cutoff=cutoff)
    vectors = edges.vectors(positions, lattice, torch.zeros(len(crystal), dtype=torch.long))
    return edges.receiver.numpy(), edges.sender.numpy(), vectors.numpy()


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


@dataclass(frozen=True)
class VoltageStep:
    """A plateau of a voltage curve.

    Attributes:
        start, end: guests per formula unit of the host, before and after.
        phases: formulas of the two ends.
        voltage: V against the guest's element.
    """

    start: float
    end: float
    phases: tuple[str, str]
    voltage: float


def voltage_curve(
    phases: Sequence[tuple[str, float]], guest: str, host: str, *, guest_energy: float, charge: int | None = None
) -> list[VoltageStep]:
    """Average voltages between the stable phases of a guest in a host (Aydinol et al., Phys. Rev. B 56, 1354 (1997)).

    V = -(E(x₂) - E(x₁) - (x₂ - x₁) E_guest) / (x₂ - x₁) / z, energies per formula unit of the host; entropy and volume
    work are left out. Phases above the hull of the line from host to guest take no part, nor do those with more guests
    than the guest's element gives of its own accord.

    Args:
        phases: (formula, eV/atom) of everything known; what is not made of host and guest is left out.
        guest: element.
        host: formula unit, for example ``MnO2``.
        guest_energy: eV/atom of the guest's element.
        charge: z of the guest's ion; its highest common oxidation state when left out.

    Returns:
        steps by increasing guest content, voltages falling; none where fewer than two phases are known.
    """
    guest_content(host, guest, host)  # refuses a host that holds the guest, whatever is known
    lowest: dict[float, tuple[float, str]] = {}
    for formula, energy in phases:
        x = guest_content(formula, guest, host)
        if x is None:
            continue
        total = energy * (Composition(host).num_atoms + x) - x * guest_energy
        lowest[x] = min(lowest.get(x, (np.inf, "")), (total, formula))
    fullest = min(lowest, key=lambda x: lowest[x][0], default=0.0)
    hull = _lower_hull([(x, *lowest[x]) for x in sorted(lowest) if x <= fullest])
    z = charge or max(Element(guest).common_oxidation_states)
    return [
        VoltageStep(x1, x2, (one, other), -(e2 - e1) / (x2 - x1) / z)
        for (x1, e1, one), (x2, e2, other) in itertools.pairwise(hull)
    ]


def guest_content(formula: str, guest: str, host: str) -> float | None:
    """Guests a formula unit of the host in a crystal; None if it is not made of these two.

    Raises:
        ValueError: the host holds the guest.
    """
    unit, composition = Composition(host), Composition(formula)
    if guest in unit:
        raise ValueError(f"the host {host} holds the guest {guest}")
    rest = Composition({element: n for element, n in composition.items() if element.symbol != guest})
    if not rest or rest.reduced_formula != unit.reduced_formula:
        return None
    return round(composition[guest] * unit.num_atoms / rest.num_atoms, 9)


def _lower_hull(points: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Lower convex hull of points sorted by x (Andrew's monotone chain)."""
    hull: list[tuple[float, float, str]] = []
    for point in points:
        while len(hull) > 1 and _slope(hull[-2], point) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(point)
    return hull


def _slope(one: tuple[float, float, str], other: tuple[float, float, str]) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])
