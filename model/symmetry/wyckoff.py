"""Wyckoff positions of the space groups, computed from their operations alone.

All special points, lines and planes of the standard cells of International Tables A go through points whose
coordinates are multiples of 1/24, and each holds such points that lie on no other. So one grid finds every Wyckoff
position, in whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import spglib

GRID = 24


@dataclass(frozen=True, eq=False)
class WyckoffPosition:
    """One Wyckoff position in the standard cell of its space group.

    Attributes:
        multiplicity: points in the standard cell.
        freedom: coordinates that may be chosen, 0 to 3.
        point: (3,) fractional coordinates of one of its points that lies on no other position.
        span: (3, 3) projection of fractional columns onto the directions in which ``point`` may move.
    """

    multiplicity: int
    freedom: int
    point: np.ndarray
    span: np.ndarray


@lru_cache(maxsize=64)
def wyckoff_positions(hall_number: int) -> tuple[WyckoffPosition, ...]:
    """The Wyckoff positions of a space-group setting (spglib's Hall number, 1 to 530), fewest points first."""
    symmetry = spglib.get_symmetry_from_database(hall_number)
    if symmetry is None:
        raise ValueError(f"Hall numbers are 1 to 530, got {hall_number}")
    return positions_of(symmetry["rotations"], symmetry["translations"])


def positions_of(rotations: np.ndarray, translations: np.ndarray) -> tuple[WyckoffPosition, ...]:
    """The same of a group of operations x → R x + t, (G, 3, 3) and (G, 3), in any cell whose grid they keep."""
    rotations, translations = rotations.astype(np.int64), np.rint(GRID * translations).astype(np.int64)
    points = np.stack(np.meshgrid(*[np.arange(GRID)] * 3, indexing="ij"), -1).reshape(-1, 3)
    first, fixed = _orbits(points, rotations, translations)
    found, seen = [], set()
    for index in np.flatnonzero(first == np.arange(len(points))):
        if index in seen:
            continue
        span = rotations[fixed[:, index]].mean(0)
        freedom, order = round(np.trace(span)), fixed[:, index].sum()
        found.append(WyckoffPosition(len(rotations) // order, freedom, points[index] / GRID, span))
        alike = _index(points[index] + _shifts(span, freedom))
        seen.update(first[alike[fixed[:, alike].sum(0) == order]])
    return tuple(sorted(found, key=lambda one: (one.multiplicity, one.freedom)))


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


def _shifts(span: np.ndarray, freedom: int) -> np.ndarray:
    """(K, 3) all ways on the grid along the directions that ``span`` leaves free."""
    steps = np.arange(GRID)
    if freedom == 0:
        return np.zeros((1, 3), dtype=np.int64)
    if freedom == 3:
        return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    box = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    free = box[np.isclose(box @ span.T, box).all(1) & box.any(1)]
    if freedom == 1:
        return steps[:, None] * free[np.square(free).sum(1).argmin()]
    area = np.square(np.cross(free[:, None], free[None])).sum(-1)
    one, other = np.unravel_index(np.where(area == 0, area.max() + 1, area).argmin(), area.shape)
    return (steps[:, None, None] * free[one] + steps[None, :, None] * free[other]).reshape(-1, 3)
