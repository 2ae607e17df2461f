"""Space groups in the primitive cells of `model.crystals.lattice`: their operations and Wyckoff positions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import spglib

from model.crystals.lattice import CENTRING
from model.symmetry.wyckoff import GRID, WyckoffPosition, positions_of

_FAMILIES = ((2, "a"), (15, "m"), (74, "o"), (142, "t"), (194, "h"), (230, "c"))  # last number, crystal family


@dataclass(frozen=True, eq=False)
class PrimitiveSite:
    """A Wyckoff position in a primitive cell.

    Attributes:
        freedom: coordinates that may be chosen, 0 to 3; a site without any can be occupied only once.
        point: (3,) fractional coordinates of one of its points.
        span: (3, 3) projection of fractional columns onto the directions in which ``point`` may move.
        rotations, translations: (m, 3, 3) and (m, 3), the operations x → R x + t that carry ``point`` to its images.
    """

    freedom: int
    point: np.ndarray
    span: np.ndarray
    rotations: np.ndarray
    translations: np.ndarray

    @property
    def multiplicity(self) -> int:
        """Images in the primitive cell."""
        return len(self.rotations)

    def orbit(self, at: np.ndarray) -> np.ndarray:
        """(m, 3) fractional coordinates of the images of ``at`` (3,) moved onto the site."""
        return self.rotations @ (self.point + self.span @ (at - self.point)) + self.translations


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


@cache
def primitive_sites(number: int) -> tuple[PrimitiveSite, ...]:
    """The Wyckoff positions of a space group in its primitive cell, fewest atoms first."""
    rotations, translations = primitive_operations(number)
    return tuple(_site(position, rotations, translations) for position in positions_of(rotations, translations))


def _site(position: WyckoffPosition, rotations: np.ndarray, translations: np.ndarray) -> PrimitiveSite:
    images = np.rint(GRID * (rotations @ position.point + translations)).astype(np.int64) % GRID
    _, makers = np.unique(images, axis=0, return_index=True)
    makers.sort()
    return PrimitiveSite(position.freedom, position.point, position.span, rotations[makers], translations[makers])


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
