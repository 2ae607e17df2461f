"""The sites of one crystal as a file gives them, and the checks that every format goes through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase.data import atomic_numbers
from ase.neighborlist import primitive_neighbor_list
from pymatgen.core import Structure
from scipy.spatial import cKDTree

from model.crystals.crystal import Crystal

OVERLAP = 0.5  # Å; closer atoms are one atom given twice, or the wrong cell. The shortest bond, in H2, has 0.74 Å
FULL = 1e-6  # by which an occupancy may differ from 1
SHOWN = 3  # examples in a message


@dataclass(frozen=True, eq=False, kw_only=True)
class Sites:
    """Sites of a crystal, possibly shared by several elements or partly empty.

    Attributes:
        lattice: (3, 3) Å.
        fractional: (n, 3).
        species: per site, element -> occupancy.
        labels: per site, its name in messages.
        moments: (n, 3) magnetic moments, μB, Cartesian; None if the file gives none.
        fixed: (n,) bool, atoms that the file says must not move; None if it fixes none.
        warnings: what the user should know about how the file was read.
    """

    lattice: np.ndarray
    fractional: np.ndarray
    species: Sequence[Mapping[str, float]]
    labels: Sequence[str]
    moments: np.ndarray | None = None
    fixed: np.ndarray | None = None
    warnings: tuple[str, ...] = ()

    @property
    def is_ordered(self) -> bool:
        """Whether every site is full with one element."""
        return not self.disorder()

    def disorder(self) -> str:
        """Why they are no crystal of whole atoms; empty if they are one."""
        partial = [i for i, one in enumerate(self.species) if len(one) > 1 or abs(_total(one) - 1) > FULL]
        if not partial:
            return ""
        sites = [f"{_content(self.species[i])} at {np.round(self.fractional[i], 3).tolist()}" for i in partial]
        return (
            f"partially occupied sites are not supported: {_examples(sites)}. "
            "`hostguide inpaint FILE` orders them first"
        )

    def crystal(self) -> Crystal:
        """The crystal, if it `is_ordered`."""
        assert self.is_ordered
        numbers = np.array([atomic_numbers[next(iter(one))] for one in self.species])
        return Crystal(self.lattice, self.fractional, numbers)

    def structure(self) -> Structure:
        """The sites as a pymatgen Structure of elements without charges."""
        return Structure(self.lattice, [dict(one) for one in self.species], self.fractional)


def sites_of(crystal: Crystal) -> Sites:
    """The sites of a crystal, all of them full."""
    labels = [f"{symbol}{place}" for place, symbol in enumerate(crystal.symbols, start=1)]
    species = [{symbol: 1.0} for symbol in crystal.symbols]
    return Sites(lattice=crystal.lattice, fractional=crystal.fractional, species=species, labels=labels)


def checked(sites: Sites) -> Sites:
    """The sites, if they can be those of a crystal.

    Raises:
        ValueError: no sites, a cell without volume, numbers that are not finite, or overlapping atoms.
    """
    if not len(sites.species):
        raise ValueError("it contains no atoms")
    if not (np.isfinite(sites.lattice).all() and np.isfinite(sites.fractional).all()):
        raise ValueError("a cell vector or a coordinate is not a finite number")
    volume = abs(np.linalg.det(sites.lattice))
    if volume < 1:
        raise ValueError(f"its cell has a volume of {volume:.3g} Å³: correct the cell")
    overlapping = overlaps(sites)
    if overlapping:
        pairs = _examples([_pair(sites, *pair) for pair in overlapping])
        raise ValueError(
            f"atoms on top of each other: {pairs}. Remove the atoms that are given twice, give more digits, or correct "
            "the cell or the space group"
        )
    return sites


def overlaps(sites: Sites) -> list[tuple[int, int, float]]:
    """Pairs of sites closer than `OVERLAP` that may be occupied at the same time, with their distance in Å."""
    occupied = np.array([_total(one) for one in sites.species])
    first, second, distance = near_pairs(sites.lattice, sites.fractional, OVERLAP)
    both = occupied[first] + occupied[second] > 1 + 0.02  # two parts of one site add up to 1
    return list(zip(first[both].tolist(), second[both].tolist(), distance[both].tolist(), strict=True))


def near_pairs(lattice: np.ndarray, fractional: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs i <= j of places (n, 3) closer than ``radius`` (Å), in any cell: (k,) i, (k,) j, (k,) distance in Å."""
    reach = radius * np.linalg.norm(np.linalg.inv(lattice), 2)  # the longest such step in fractions
    if reach >= 0.5:  # a cell so flat that several images of one place may be near
        first, second, distance = primitive_neighbor_list("ijd", [True] * 3, lattice, fractional @ lattice, radius)
        once = first <= second
        return first[once], second[once], distance[once]
    tree = cKDTree(fractional % 1 % 1, boxsize=1)  # twice, as -1e-17 % 1 is 1
    first, second = tree.query_pairs(reach, output_type="ndarray").T
    steps = fractional[first] - fractional[second]
    distance = np.linalg.norm((steps - np.rint(steps)) @ lattice, axis=1)
    near = distance < radius
    return first[near], second[near], distance[near]


def collinear(moments: np.ndarray) -> np.ndarray:
    """Moments (n, 3) as signed numbers (n,) along their common axis if they have one, else unchanged; μB.

    The axis is that of the longest moment, in the direction in which its last component that is not zero is positive.
    """
    longest = moments[np.argmax(np.linalg.norm(moments, axis=1))]
    if not longest.any():
        return np.zeros(len(moments))
    axis = longest / np.linalg.norm(longest)
    axis = axis * np.sign(axis[np.flatnonzero(np.abs(axis) > 1e-6)[-1]])
    along = moments @ axis
    return along if np.allclose(moments, along[:, None] * axis, atol=0.01) else moments


def with_warnings(sites: Sites, *texts: str) -> Sites:
    """The sites with more warnings."""
    return replace(sites, warnings=(*sites.warnings, *texts))


def _total(species: Mapping[str, float]) -> float:
    return sum(species.values())


def _content(species: Mapping[str, float]) -> str:
    return ", ".join(f"{element}:{occupancy:.4g}" for element, occupancy in species.items())


def _examples(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more


def _pair(sites: Sites, one: int, other: int, distance: float) -> str:
    if one == other:
        return f"{sites.labels[one]} and its own image in the next cell are {distance:.3f} Å apart"
    names = sites.labels[one], sites.labels[other]
    return f"{names[0]} and {names[1]} are {distance:.3f} Å apart"
