"""Ordered arrangements of crystals with partially occupied sites, each once up to symmetry.

Own code because pymatgen's OrderDisorderedStructureTransformation needs oxidation states and icet enumerates
supercells; here symmetrically distinct arrangements without overlaps are drawn in the given cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from math import comb
from typing import Any

import numpy as np
import spglib
from pymatgen.core import Structure
from scipy.optimize import milp
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from model.crystals.crystal import Crystal
from model.crystals.periodic_images import reduced_cell
from model.crystals.screening import ScreenSettings, closest_allowed
from model.symmetry.space_group import SYMPREC, nearest_alike

EMPTY = 0  # atomic number of a vacancy
ENUMERATED = 20_000  # number of arrangements up to which all are enumerated
SUBGROUPS = 300  # random subgroups whose orbits are filled, beyond that number of arrangements
ORDERING_TRIES = 50  # random arrangements tried per wanted one


@dataclass(frozen=True, eq=False, kw_only=True)
class Disordered:
    """A crystal with partially occupied sites.

    Attributes:
        lattice: (3, 3) Å.
        fractional: (n, 3) of all sites.
        fixed: (n,) atomic number where the site is full with one element, else 0.
        groups: (indices, {atomic number: count}) of sites with equal occupancies, and the atoms to put there; the other
            indices stay empty.
        occupancy: element -> atoms in the cell by the occupancies, before rounding.
    """

    lattice: np.ndarray
    fractional: np.ndarray
    fixed: np.ndarray
    groups: list[tuple[np.ndarray, dict[int, int]]]
    occupancy: dict[str, float]

    @classmethod
    def from_pymatgen(cls, structure: Structure) -> Disordered:
        """Read the occupancies; counts of the whole crystal are rounded first, then those of equally occupied sites.

        Raises:
            ValueError: every site is full.
        """
        if structure.is_ordered:
            raise ValueError("every site is full: there is nothing to order")
        kinds = [_kind(site.species) for site in structure]
        fixed = np.array([kind[0][0] if len(kind) == 1 and kind[0][1] == 1 else 0 for kind in kinds])
        partial = sorted({kind for kind, full in zip(kinds, fixed, strict=True) if not full})
        sites = [np.array([i for i, other in enumerate(kinds) if other == kind]) for kind in partial]
        groups = list(zip(sites, _counts(partial, [len(some) for some in sites]), strict=True))
        occupancy = {str(element): float(n) for element, n in structure.composition.element_composition.items()}
        return cls(
            lattice=structure.lattice.matrix,
            fractional=structure.frac_coords,
            fixed=fixed,
            groups=groups,
            occupancy=occupancy,
        )

    @property
    def free(self) -> np.ndarray:
        """(n,) whether a site is partially occupied."""
        return self.fixed == 0

    def counts(self) -> dict[int, int]:
        """Atoms of every arrangement: atomic number -> count."""
        numbers = self.fixed[~self.free].tolist()
        for _, content in self.groups:
            numbers += [z for z, n in content.items() for _ in range(n)]
        return {z: numbers.count(z) for z in sorted(set(numbers))}

    def arrangements(self) -> int:
        """Number of ways to put the atoms on the sites, regardless of symmetry and overlaps."""
        total = 1
        for sites, content in self.groups:
            left = len(sites)
            for n in content.values():
                total *= comb(left, n)
                left -= n
        return total

    def crystal(self, numbers: np.ndarray) -> tuple[Crystal, np.ndarray]:
        """The arrangement (n,) as a crystal, and which of its atoms are on partially occupied sites."""
        there = numbers != EMPTY
        return Crystal(self.lattice, self.fractional[there], numbers[there]), self.free[there]


def order(
    disordered: Disordered, limit: int, *, seed: int, screening: ScreenSettings | None = None
) -> list[np.ndarray]:
    """Symmetrically distinct arrangements (n,) of atomic numbers, 0 for empty, without overlapping atoms.

    Up to `ENUMERATED` arrangements, all are enumerated and ``limit`` distinct ones drawn; of more, random ones are made
    by placing one atom after the other on sites that are still allowed.

    Args:
        disordered: the crystal.
        limit: maximum number of arrangements.
        seed: determines which ones.
        screening: below which distances atoms overlap.

    Raises:
        ValueError: the limit is below 1, or no arrangement without overlapping atoms is found.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    rng = np.random.default_rng(seed)
    room = _Room(disordered, screening or ScreenSettings())
    images = _permutations(disordered)
    if disordered.arrangements() <= ENUMERATED:
        found = list(_distinct(filter(room.fits, _all(disordered)), images))
        if not found:
            raise ValueError(f"in every arrangement two atoms overlap: {room.closest()}. Check occupancies and cell")
        chosen = np.sort(rng.permutation(len(found))[:limit])
        return [found[i] for i in chosen]
    tries = limit * ORDERING_TRIES
    made = list(islice(_distinct(_random(disordered, room, rng, tries), images), limit))
    if not made:
        raise ValueError(
            f"{tries} random arrangements were tried, and in each an atom had no site left without an overlap: "
            f"{room.closest()}. Check occupancies and cell, or try a smaller --supercell"
        )
    return made


def most_symmetric(disordered: Disordered, limit: int) -> list[np.ndarray]:
    """The arrangements (n,) of atomic numbers that most permutations by symmetry keep, regardless of overlaps.

    Up to `ENUMERATED` arrangements, all are compared; of more, those in which whole orbits of a subgroup have one
    element, with subgroups of one or two generators.

    Returns:
        number of operations that keep it, and (n,) atomic numbers, of at most ``limit`` distinct arrangements.
    """
    images = _permutations(disordered)
    every = _all(disordered) if disordered.arrangements() <= ENUMERATED else _of_orbits(disordered, images)
    distinct = list(_distinct(every, images))
    return sorted(distinct, key=lambda numbers: -int((numbers[images] == numbers).all(1).sum()))[:limit]


def _of_orbits(disordered: Disordered, images: np.ndarray) -> Iterator[np.ndarray]:
    """Arrangements in which the sites of an orbit under a subgroup have the same element; subgroups at random."""
    rng = np.random.default_rng(0)
    for _ in range(SUBGROUPS):
        generators = images[rng.integers(len(images), size=rng.integers(1, 3))]
        n = images.shape[1]
        pairs = (np.tile(np.arange(n), len(generators)), generators.ravel())
        orbit = connected_components(coo_array((np.ones(len(pairs[0])), pairs), shape=(n, n)), directed=False)[1]
        numbers = disordered.fixed.astype(np.int16)
        if all(_fill_orbits(numbers, sites, content, orbit, rng) for sites, content in disordered.groups):
            yield numbers


def _fill_orbits(
    numbers: np.ndarray, sites: np.ndarray, content: dict[int, int], orbit: np.ndarray, rng: np.random.Generator
) -> bool:
    """Put atoms on whole orbits of sites, in random order; False if one does not fit."""
    left = dict(content)
    for which in rng.permutation(np.unique(orbit[sites])):
        members = sites[orbit[sites] == which]
        fitting = [z for z, count in left.items() if count >= len(members)]
        if not fitting:
            continue
        z = fitting[rng.integers(len(fitting))]
        numbers[members] = z
        left[z] -= len(members)
    return not any(left.values())


def _distinct(candidates: Iterable[np.ndarray], images: np.ndarray) -> Iterator[np.ndarray]:
    """Those that no symmetry operation maps to an earlier one."""
    seen: set[bytes] = set()
    for numbers in candidates:
        if numbers.tobytes() not in seen:
            seen.update(image.tobytes() for image in numbers[images])
            yield numbers


class _Room:
    """Which atoms overlap."""

    def __init__(self, disordered: Disordered, settings: ScreenSettings) -> None:
        cell = Structure(disordered.lattice, ["H"] * len(disordered.fractional), disordered.fractional)
        self.distance = cell.distance_matrix
        np.fill_diagonal(self.distance, np.linalg.norm(reduced_cell(disordered.lattice)[0][0]))  # an atom and its image
        self.settings, self.fractional = settings, disordered.fractional

    def fits(self, numbers: np.ndarray) -> bool:
        """Whether no two atoms of the arrangement overlap."""
        there = np.flatnonzero(numbers)
        limit = closest_allowed(numbers[there][:, None], numbers[there][None], self.settings)
        return bool((self.distance[np.ix_(there, there)] >= limit).all())

    def closest(self) -> str:
        """The two sites that are closest to each other, or the site closest to its own image, in words."""
        pair = np.unravel_index(self.distance.argmin(), self.distance.shape)
        first, second = (" ".join(f"{x:.3f}" for x in self.fractional[site]) for site in pair)
        apart = f"{self.distance.min():.2f} Å apart"
        if first == second:
            return f"the images of the site {first} are {apart}"
        return f"the closest sites, {first} and {second}, are {apart}"

    def allowed(self, numbers: np.ndarray, sites: np.ndarray, z: int) -> np.ndarray:
        """Those of the sites that an atom of this element can occupy, given the arrangement so far."""
        there = np.flatnonzero(numbers)
        limit = closest_allowed(numbers[there], np.array(z), self.settings)
        fits = (self.distance[np.ix_(sites, there)] >= limit).all(1) & (numbers[sites] == EMPTY)
        return sites[fits]


def _all(disordered: Disordered) -> Iterator[np.ndarray]:
    """Every arrangement."""
    steps = [(sites, z, n) for sites, content in disordered.groups for z, n in content.items()]

    def extended(numbers: np.ndarray, step: int) -> Iterator[np.ndarray]:
        if step == len(steps):
            yield numbers
            return
        sites, z, n = steps[step]
        for chosen in combinations(sites[numbers[sites] == EMPTY], n):
            more = numbers.copy()
            more[list(chosen)] = z
            yield from extended(more, step + 1)

    return extended(disordered.fixed.astype(np.int16), 0)


def _random(disordered: Disordered, room: _Room, rng: np.random.Generator, tries: int) -> Iterator[np.ndarray]:
    """Random arrangements without overlaps; atoms are placed in random order, dead ends are discarded."""
    atoms = [(sites, z) for sites, content in disordered.groups for z, n in content.items() for _ in range(n)]
    for _ in range(tries):
        numbers = disordered.fixed.astype(np.int16)
        for index in rng.permutation(len(atoms)):
            sites, z = atoms[index]
            allowed = room.allowed(numbers, sites, z)
            if not len(allowed):
                break
            numbers[rng.choice(allowed)] = z
        else:
            yield numbers


def _permutations(disordered: Disordered) -> np.ndarray:
    """(operations, n) sites that each symmetry operation of the disordered crystal maps its sites to."""
    kinds = disordered.fixed.copy()
    for index, (sites, _) in enumerate(disordered.groups):
        kinds[sites] = 200 + index
    cell: Any = (disordered.lattice, disordered.fractional, kinds)
    operations = spglib.get_symmetry(cell, symprec=SYMPREC)
    identity = np.arange(len(kinds))
    if operations is None:
        return identity[None]
    rows = []
    for rotation, translation in zip(operations["rotations"], operations["translations"], strict=True):
        row = nearest_alike(disordered.lattice, disordered.fractional, kinds, rotation, translation)
        if len(set(row.tolist())) == len(row):
            rows.append(row)
    return np.unique([identity, *rows], axis=0)


def _kind(species: Any) -> tuple[tuple[int, float], ...]:
    """Occupancies of a site as (atomic number, share), rounded so that equal sites are equal."""
    shares: dict[int, float] = {}
    for specie, share in species.items():
        shares[specie.Z] = shares.get(specie.Z, 0.0) + float(share)
    return tuple(sorted((z, round(share, 3)) for z, share in shares.items()))


def _counts(kinds: Sequence[tuple[tuple[int, float], ...]], sites: Sequence[int]) -> list[dict[int, int]]:
    """Whole atoms of each element on so many sites of each kind.

    Every number, also that of vacancies, is rounded up or down so that the sums of sites and atoms are right
    (controlled rounding). The count of an element in the whole crystal is kept as close as possible first, then its
    counts on the kinds of sites.
    """
    full = [sum(share for _, share in kind) for kind in kinds]  # can exceed one slightly because shares are rounded
    shares = [
        {z: share / max(1.0, total) for z, share in kind} | {EMPTY: max(0.0, 1.0 - total)}
        for kind, total in zip(kinds, full, strict=True)
    ]
    cells = [(row, z) for row, share in enumerate(shares) for z in share]
    exact = np.array([shares[row][z] * sites[row] for row, z in cells])
    whole = np.floor(exact + 1e-6)
    part = exact - whole
    rows = np.array([[row == other for other, _ in cells] for row in range(len(sites))], dtype=float)
    elements = sorted({z for _, z in cells if z != EMPTY})
    columns = np.array([[z == other for _, other in cells] for z in elements], dtype=float)
    left = columns @ part
    least = np.floor(left + 1e-6)
    cost = 1 - 2 * part + 2 * len(cells) * (1 - 2 * (left - least)) @ columns  # of rounding up instead of down
    up = milp(
        cost,
        integrality=np.ones(len(cells)),
        bounds=(0, np.ceil(part - 1e-6)),
        constraints=[(rows, *[np.array(sites) - rows @ whole] * 2), (columns, least, np.ceil(left - 1e-6))],
    ).x
    counts: list[dict[int, int]] = [{} for _ in sites]
    for (row, z), n in zip(cells, np.rint(whole + up).astype(int).tolist(), strict=True):
        if z != EMPTY and n:
            counts[row][z] = n
    return counts
