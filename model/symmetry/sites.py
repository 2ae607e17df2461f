"""Wyckoff positions of space groups, and the groups' operations in the primitive cells of `model.crystals.lattice`.

Positions are computed from the operations alone, by whole numbers. All special points, lines and planes of the standard
cells of International Tables A go through points whose coordinates are multiples of 1/24, and each holds such points
that lie on no other. So one grid finds every Wyckoff position. `pyxtal` has tables of them in standard cells; here they
are wanted in any cell, primitive ones above all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import spglib

from model.crystals.lattice import CENTRING

GRID = 24
_FAMILIES = ((2, "a"), (15, "m"), (74, "o"), (142, "t"), (194, "h"), (230, "c"))  # last number, crystal family


@dataclass(frozen=True, eq=False, kw_only=True)
class WyckoffSite:
    """A Wyckoff position of a group of operations x → R x + t on columns of fractional coordinates, in some cell.

    Attributes:
        n_free: coordinates that may be chosen, 0 to 3; a site without any can be occupied only once.
        point: (3,) fractional coordinates of one of its points that lies on no other site.
        free_projection: (3, 3) projection of fractional columns onto the directions in which ``point`` may move.
        rotations, translations: (m, 3, 3) and (m, 3), the operations that carry ``point`` to its images, one for each;
            the first leaves it where it is.
    """

    n_free: int
    point: np.ndarray
    free_projection: np.ndarray
    rotations: np.ndarray
    translations: np.ndarray

    @property
    def multiplicity(self) -> int:
        """Points of one orbit in the cell."""
        return len(self.rotations)

    def orbit(self, at: np.ndarray) -> np.ndarray:
        """(m, 3) fractional coordinates of the images of ``at`` (3,) moved onto the site."""
        return self.rotations @ (self.point + self.free_projection @ (at - self.point)) + self.translations


@lru_cache(maxsize=64)
def wyckoff_sites(hall_number: int) -> tuple[WyckoffSite, ...]:
    """The Wyckoff positions of a space-group setting (spglib's Hall number, 1 to 530), fewest points first.

    >>> [(site.multiplicity, site.n_free) for site in wyckoff_sites(523)][:4]  # Fm-3m: 4a, 4b, 8c, 24d
    [(4, 0), (4, 0), (8, 0), (24, 0)]
    """
    symmetry = spglib.get_symmetry_from_database(hall_number)
    if symmetry is None:
        raise ValueError(f"Hall numbers are 1 to 530, got {hall_number}")
    return sites_of(symmetry["rotations"], symmetry["translations"])


@cache
def primitive_sites(number: int) -> tuple[WyckoffSite, ...]:
    """The Wyckoff positions of a space group in its primitive cell, fewest atoms first."""
    return sites_of(*primitive_operations(number))


def sites_of(rotations: np.ndarray, translations: np.ndarray) -> tuple[WyckoffSite, ...]:
    """The Wyckoff positions of the operations (G, 3, 3) and (G, 3) of a group, in any cell whose grid they keep."""
    turns, shifts = rotations.astype(np.int64), np.rint(GRID * translations).astype(np.int64)  # in whole steps
    points = np.stack(np.meshgrid(*[np.arange(GRID)] * 3, indexing="ij"), -1).reshape(-1, 3)
    first, fixed = _orbits(points, turns, shifts)
    found, seen = [], set()
    for index in np.flatnonzero(first == np.arange(len(points))):
        if index in seen:
            continue
        free_projection = turns[fixed[:, index]].mean(0)
        n_free, order = round(np.trace(free_projection)), fixed[:, index].sum()
        cosets = _coset_representatives(turns @ points[index] + shifts)
        found.append(
            WyckoffSite(
                n_free=n_free,
                point=points[index] / GRID,
                free_projection=free_projection,
                rotations=rotations[cosets],
                translations=translations[cosets],
            )
        )
        alike = _index(points[index] + _free_steps(free_projection, n_free))
        seen.update(first[alike[fixed[:, alike].sum(0) == order]])
    return tuple(sorted(found, key=lambda site: (site.multiplicity, site.n_free)))


def _coset_representatives(images: np.ndarray) -> np.ndarray:
    """The first operation that makes each different one of the images (G, 3) of a point, in steps of the grid."""
    return np.sort(np.unique(images % GRID, axis=0, return_index=True)[1])


def _index(points: np.ndarray) -> np.ndarray:
    """Number of each grid point (..., 3) in the list of all, whatever cell it lies in."""
    x, y, z = np.moveaxis(points % GRID, -1, 0)
    return (x * GRID + y) * GRID + z


def _orbits(points: np.ndarray, rotations: np.ndarray, translations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M,) number of the first point of each point's orbit, and (G, M) whether an operation leaves a point in place."""
    own = np.arange(len(points))
    first, fixed = own.copy(), np.empty((len(rotations), len(points)), dtype=bool)
    for place, (rotation, translation) in enumerate(zip(rotations, translations, strict=True)):
        image = _index(points @ rotation.T + translation)
        first = np.minimum(first, image)
        fixed[place] = image == own
    return first, fixed


def _free_steps(free_projection: np.ndarray, n_free: int) -> np.ndarray:
    """(K, 3) all ways on the grid along the free directions."""
    steps = np.arange(GRID)
    if n_free == 0:
        return np.zeros((1, 3), dtype=np.int64)
    if n_free == 3:
        return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    box = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    free = box[np.isclose(box @ free_projection.T, box).all(1) & box.any(1)]
    if n_free == 1:
        return steps[:, None] * free[np.square(free).sum(1).argmin()]
    area = np.square(np.cross(free[:, None], free[None])).sum(-1)
    one, other = np.unravel_index(np.where(area == 0, area.max() + 1, area).argmin(), area.shape)
    return (steps[:, None, None] * free[one] + steps[None, :, None] * free[other]).reshape(-1, 3)


@cache
def groups_of(bravais: str) -> tuple[int, ...]:
    """Numbers of the space groups that have this Bravais lattice (one of `model.crystals.lattice.BRAVAIS`)."""
    return tuple(number for number in range(1, 231) if bravais_of(number) == bravais)


@cache
def groups_in(bravais: str) -> tuple[int, ...]:
    """Space groups whose operations keep every lattice of this type: its own, and those of its special cases' parents.

    A cubic cell is a special tetragonal, orthorhombic, monoclinic and triclinic one.
    """
    family, letter = bravais[0], bravais[1]
    parents = {"c": "ctoma", "t": "toma", "o": "oma", "m": "ma"}.get(family, family)
    lattices = {parent + letter for parent in parents} | {"aP"}
    return tuple(sorted(number for lattice in lattices for number in groups_of(lattice)))


@cache
def bravais_of(number: int) -> str:
    """Pearson symbol of a space group's Bravais lattice; ValueError if no group has this number."""
    if not 1 <= number <= 230:
        raise ValueError(f"space groups have numbers 1 to 230, got {number}")
    family = next(family for last, family in _FAMILIES if number <= last)
    letter = _kind(_settings()[number][0]).international_short[0]
    return family + ("S" if letter in "ABC" else letter)


@cache
def primitive_operations(number: int) -> tuple[np.ndarray, np.ndarray]:
    """(g, 3, 3) and (g, 3) operations x → R x + t of a space group on columns of fractional coordinates.

    The cell is the one that `model.crystals.lattice.sample_lattice` makes for the group's Bravais lattice.
    """
    to_primitive = np.linalg.inv(CENTRING[bravais_of(number)[1]].T)  # of columns of fractional coordinates
    database: Any = spglib.get_symmetry_from_database(_setting(number))
    rotations = np.rint(to_primitive @ database["rotations"] @ np.linalg.inv(to_primitive)).astype(np.int64)
    steps = np.rint(GRID * database["translations"] @ to_primitive.T).astype(np.int64) % GRID
    _, first = np.unique(np.concatenate([rotations.reshape(-1, 9), steps], axis=1), axis=0, return_index=True)
    first.sort()  # the identity stays first
    return rotations[first], steps[first] / GRID


def _setting(number: int) -> int:
    """The first setting (Hall number) with `model.crystals.lattice`'s centring: C for S, rhombohedral axes for R."""
    letter = bravais_of(number)[1].replace("S", "C")
    kinds = {hall: _kind(hall) for hall in _settings()[number]}
    return next(
        hall
        for hall, kind in kinds.items()
        if kind.international_full[0] == letter and (letter != "R" or kind.choice == "R")
    )


@cache
def _settings() -> dict[int, list[int]]:
    """Hall numbers of each space group."""
    halls: dict[int, list[int]] = {}
    for hall in range(1, 531):
        halls.setdefault(_kind(hall).number, []).append(hall)
    return halls


def _kind(hall: int) -> Any:
    return spglib.get_spacegroup_type(hall)
