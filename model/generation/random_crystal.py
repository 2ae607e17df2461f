"""Random sensible crystals: atoms on random Wyckoff positions, no two too close.

Symmetry and minimum distances make random crystals worth relaxing (AIRSS: C. J. Pickard, R. J. Needs, J. Phys.:
Condens. Matter 23, 053201 (2011)). Here the cell is given, so a group of its Bravais lattice is drawn; `pyxtal` draws
a cell for a given group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Literal

import numpy as np
from ase.data import covalent_radii
from ase.geometry import minkowski_reduce
from pydantic import Field, model_validator

from model.crystals.crystal import Crystal
from model.crystals.periodic_images import image_steps
from model.settings import Settings
from model.symmetry.sites import WyckoffSite, groups_in, primitive_operations, primitive_sites

LOOSEN = 0.95  # factor on the separation when no draw fitted
DRAWS = 10  # groups and sites tried at each separation
PLACEMENT_TRIES = 10  # points tried for an orbit


class RandomSettings(Settings):
    """Random crystals with symmetry and minimum distances."""

    kind: Literal["random"] = "random"
    symmetric: float = Field(0.8, ge=0, le=1)  # share with a space group of the cell's lattice; others are P1
    separation: float = Field(1.1, gt=0)  # of the sum of covalent radii, smallest distance tried first
    smallest: float = Field(0.6, gt=0)  # of the sum of covalent radii, smallest distance tried last

    @model_validator(mode="after")
    def _ordered(self) -> RandomSettings:
        if self.smallest > self.separation:
            raise ValueError(f"smallest ({self.smallest}) must not exceed separation ({self.separation})")
        return self


def random_crystal(
    crystal: Crystal, bravais: str, rng: np.random.Generator, settings: RandomSettings | None = None
) -> Crystal:
    """Place the atoms of a cell at random.

    Args:
        crystal: cell and atoms; its positions are ignored.
        bravais: Bravais lattice of the cell, one from `model.crystals.lattice.sample_lattice`.
        rng: the only source of randomness.
        settings: how close atoms may come.

    Returns:
        the crystal, its atoms in the order given. Where they do not fit even at the smallest separation, they lie
        anywhere, and the screening is left to reject the crystal.

    Example:
        >>> from model.crystals.lattice import sample_lattice
        >>> from model.symmetry.space_group import space_group
        >>> rng = np.random.default_rng(0)
        >>> cell = sample_lattice("cF", volume=80.0, rng=rng)
        >>> crystal = random_crystal(Crystal(cell, np.zeros((4, 3)), [3, 3, 3, 14]), "cF", rng)
        >>> crystal.formula, space_group(crystal, 0.01).number
        ('Li3Si', 225)
    """
    settings = settings or RandomSettings()
    numbers, counts = np.unique(crystal.numbers, return_counts=True)
    content = {int(z): int(count) for z, count in zip(numbers, counts, strict=True)}
    groups = suitable_groups(bravais, tuple(counts.tolist())) if rng.random() < settings.symmetric else (1,)
    share = np.array([1 / len(primitive_operations(group)[0]) for group in groups])
    share /= share.sum()
    cell = _Cell(crystal.lattice)
    factor = settings.separation
    while factor >= settings.smallest:
        for _ in range(DRAWS):
            group = int(rng.choice(groups, p=share))
            sites = distribute(content, primitive_sites(group), rng)
            placed = None if sites is None else _place(sites, cell, factor, rng)
            if placed is not None:
                return crystal.replace(fractional=_in_order(*placed, crystal.numbers))
        factor *= LOOSEN
    return crystal.replace(fractional=rng.random((len(crystal), 3)))


@cache
def suitable_groups(bravais: str, counts: tuple[int, ...]) -> tuple[int, ...]:
    """Space groups above P1 of a Bravais lattice over whose Wyckoff positions such numbers of atoms can be distributed.

    P1 alone where there is none.
    """
    content = dict(enumerate(counts))
    rng = np.random.default_rng(0)
    return tuple(g for g in groups_in(bravais) if g > 1 and distribute(content, primitive_sites(g), rng)) or (1,)


def distribute(
    content: Mapping[int, int], positions: Sequence[WyckoffSite], rng: np.random.Generator
) -> list[tuple[int, WyckoffSite]] | None:
    """Distribute atoms over Wyckoff positions at random, large orbits with higher probability.

    Args:
        content: atomic number -> atoms in the primitive cell.
        positions: of a group; those without free coordinates are taken at most once.
        rng: the only source of randomness.

    Returns:
        atomic number and position of every orbit, or None when ten draws failed.
    """
    for _ in range(10):
        taken: set[int] = set()
        sites = [
            (z, index) for z in rng.permutation(list(content)) for index in _draw(content[z], positions, taken, rng)
        ]
        if sum(positions[index].multiplicity for _, index in sites) == sum(content.values()):
            return [(int(z), positions[index]) for z, index in sites]
    return None


def _draw(count: int, positions: Sequence[WyckoffSite], taken: set[int], rng: np.random.Generator) -> Iterator[int]:
    """Positions for one element until its atoms are used up or nothing fits; fixed ones are added to ``taken``."""
    sizes = np.array([position.multiplicity for position in positions])
    while count:
        fits = np.array([size <= count and i not in taken for i, size in enumerate(sizes)])
        if not fits.any():
            return
        index = int(rng.choice(len(sizes), p=fits * sizes / (fits * sizes).sum()))
        if positions[index].n_free == 0:
            taken.add(index)
        count -= int(sizes[index])
        yield index


class _Cell:
    """A lattice and its reduced cell, in which the shortest of 27 images is the nearest."""

    def __init__(self, lattice: np.ndarray) -> None:
        self.reduced, _ = minkowski_reduce(lattice)
        self.change = lattice @ np.linalg.inv(self.reduced)

    def distances(self, point: np.ndarray, others: np.ndarray) -> np.ndarray:
        """(n,) smallest distances in Å from a point to images of others; for the point itself, to its next image."""
        images = image_steps((others - point) @ self.change)
        square = np.square(images @ self.reduced).sum(-1)
        return np.sqrt(np.where(square < 1e-12, np.inf, square).min(1))


def _place(
    sites: Sequence[tuple[int, WyckoffSite]], cell: _Cell, factor: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """(n, 3) fractional coordinates and (n,) atomic numbers, orbit after orbit; None when they do not fit."""
    points, numbers = np.zeros((0, 3)), np.zeros(0, dtype=int)
    for z, position in sites:
        everything = np.append(numbers, np.full(position.multiplicity, z))
        limits = factor * (covalent_radii[z] + covalent_radii[everything])
        for _ in range(PLACEMENT_TRIES if position.n_free else 1):
            orbit = position.orbit(rng.random(3))
            # What is placed already has the symmetry, so one atom of the orbit represents all.
            if (cell.distances(orbit[0], np.concatenate([points, orbit])) >= limits).all():
                break
        else:
            return None
        points, numbers = np.concatenate([points, orbit]), everything
    return points, numbers


def _in_order(points: np.ndarray, numbers: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The points in an order in which their atomic numbers are those ``wanted``."""
    ordered = np.empty_like(points)
    ordered[np.argsort(wanted, kind="stable")] = points[np.argsort(numbers, kind="stable")]
    return ordered
