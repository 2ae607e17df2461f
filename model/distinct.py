"""Which crystals are new, and which repeat one already seen."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from ase.data import atomic_numbers
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from model.crystal import Crystal
from model.screen import pair_distances
from model.settings import Settings

NEIGHBOURS = 8


class DistinctSettings(Settings):
    """When two crystals are the same: all of these conditions hold.

    The first two are cheap and only there to save matches. Moving every atom by at most u changes any k-th smallest
    neighbour distance, and so its mean, by at most 2u; straining the cell by s changes it by at most s times itself.
    With the defaults no pair whose atoms differ by up to 0.2 Å and 2 % of strain is ever kept apart by them. The
    matcher compares primitive cells; it finds those of distorted supercells up to about 0.1 Å of disorder.
    """

    volume_tolerance: float = 0.1  # relative difference of the volumes per atom
    distance_tolerance: float = 0.5  # Å, difference of the mean k-th neighbour distances of an element, k = 1 to 8
    ltol: float = 0.2  # StructureMatcher: relative tolerance of lengths
    stol: float = 0.3  # StructureMatcher: sites, in units of (volume per atom)^(1/3)
    angle_tol: float = 5.0  # StructureMatcher: degrees
    same_space_group: bool = False  # crystals of known, different space groups are different


class DistinctCrystals:
    """A growing set of crystals without repeats."""

    def __init__(self, settings: DistinctSettings | None = None) -> None:
        self.settings = settings or DistinctSettings()
        self._matcher = StructureMatcher(
            ltol=self.settings.ltol, stol=self.settings.stol, angle_tol=self.settings.angle_tol
        )
        self._known: dict[str, list[_Known]] = {}
        self._seen = 0

    def __len__(self) -> int:
        """Number of distinct crystals."""
        return sum(len(known) for known in self._known.values())

    def add(self, crystal: Crystal, space_group: int | None = None) -> int | None:
        """Add a crystal.

        Args:
            crystal: the crystal.
            space_group: its number, compared only if the settings ask for it and both numbers are known.

        Returns:
            The index, counted over all calls of `add` from 0, of the first crystal that this one repeats; None if
            it is new.
        """
        index, self._seen = self._seen, self._seen + 1
        new = _Known(crystal, space_group, index)
        known = self._known.setdefault(crystal.formula, [])
        for old in known:
            if self._alike(old, new) and self._matcher.fit(old.reduced, new.reduced, skip_structure_reduction=True):
                return old.index
        known.append(new)
        return None

    def _alike(self, old: _Known, new: _Known) -> bool:
        settings = self.settings
        groups = {old.space_group, new.space_group} - {None}
        if settings.same_space_group and len(groups) == 2:
            return False
        if abs(np.log(old.volume / new.volume)) > np.log1p(settings.volume_tolerance):
            return False
        return bool(np.abs(old.fingerprint - new.fingerprint).max() <= settings.distance_tolerance)


class _Known:
    def __init__(self, crystal: Crystal, space_group: int | None, index: int) -> None:
        self.space_group, self.index = space_group, index
        self.volume = crystal.volume / len(crystal)
        self.fingerprint = distance_fingerprint(crystal)
        self.crystal = crystal

    @cached_property
    def reduced(self) -> Structure:
        """The primitive cell that the matcher compares; found once, not once a comparison."""
        return self.crystal.to_pymatgen().get_reduced_structure("niggli").get_primitive_structure()


def neighbour_distances(crystal: Crystal, count: int = NEIGHBOURS) -> np.ndarray:
    """(n, count) distances in Å from each atom to its nearest atoms or images, ascending."""
    cutoff = 2.0 * np.cbrt(crystal.volume / len(crystal) * count / 4.0)
    while True:
        first, _, distance = pair_distances(crystal, cutoff=cutoff)
        have = np.bincount(first, minlength=len(crystal))
        if have.min() >= count:
            break
        cutoff *= 1.3
    order = np.lexsort((distance, first))
    start = np.cumsum(have) - have
    return distance[order][start[:, None] + np.arange(count)]


def distance_fingerprint(crystal: Crystal, count: int = NEIGHBOURS) -> np.ndarray:
    """(elements, count) mean k-th neighbour distance in Å of each element, elements by atomic number.

    Independent of origin, orientation, choice of cell and order of atoms.
    """
    distances = neighbour_distances(crystal, count)
    elements = sorted({atomic_numbers[symbol] for symbol in crystal.symbols})
    return np.stack([distances[crystal.numbers == z].mean(0) for z in elements])
