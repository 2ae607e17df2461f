"""Mutations: new crystals from known ones by one small change, as in evolutionary searches.

A. R. Oganov, C. W. Glass, J. Chem. Phys. 124, 244704 (2006), and D. C. Lonie, E. Zurek, Comput. Phys. Commun. 182, 372
(2011), call such changes permutation and transmutation; here atoms are added and removed, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.crystals.periodic_images import shortest_lengths
from model.crystals.voids import void_sites
from model.symmetry.space_group import nearest_alike, symmetry_dataset

IDENTITY = np.eye(3)[None], np.zeros((1, 3))
SAME_VOID = 0.3  # Å, voids closer to each other's images are equal


def steps_apart(one: CellFormula, other: CellFormula) -> int:
    """Number of atoms to substitute, add or remove to come from one cell to the other."""
    a, b = Counter(one.as_dict), Counter(other.as_dict)
    return max((a - b).total(), (b - a).total())


def mutations(crystal: Crystal, wanted: CellFormula) -> list[Crystal]:
    """All symmetrically distinct crystals that differ by one change, in the same cell; at least one.

    One atom is substituted, removed or put into a void; where the atoms are those wanted already, two atoms of
    different elements are swapped.

    Args:
        crystal: of at least two elements.
        wanted: the new atoms.

    Raises:
        ValueError: more than one change is needed.

    Example:
        >>> salt = Crystal(2.82 * (1 - np.eye(3)), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
        >>> [mutant.formula for mutant in mutations(salt, CellFormula.parse("KCl"))]
        ['KCl']
    """
    have, want = Counter(crystal.numbers.tolist()), Counter(wanted.numbers.tolist())
    many, few = list((have - want).elements()), list((want - have).elements())
    if max(len(many), len(few)) > 1:
        raise ValueError(f"{crystal.formula} to {wanted} needs more than one change")
    group = symmetry_dataset(crystal)
    rotations, translations = IDENTITY if group is None else (group.rotations, group.translations)
    if few and not many:
        voids = _different_voids(crystal, rotations, translations)
        return [crystal.join(Crystal(crystal.lattice, void[None], np.array(few))) for void in voids]
    sites = crystal.lattice, crystal.fractional, crystal.numbers
    images = np.array([nearest_alike(*sites, *operation) for operation in zip(rotations, translations, strict=True)])
    if not many:
        return [_renamed(crystal, pair, crystal.numbers[pair[::-1]]) for pair in _different_pairs(crystal, images)]
    old = [atom for atom in np.unique(images.min(0)) if crystal.numbers[atom] == many[0]]
    if few:
        return [_renamed(crystal, [atom], few) for atom in old]
    return [crystal.select(np.arange(len(crystal)) != atom) for atom in old]


def _different_pairs(crystal: Crystal, images: np.ndarray) -> np.ndarray:
    """(m, 2) pairs of unlike atoms, one of each set that ``images`` (operations, n) make equal."""
    first, second = np.triu_indices(len(crystal), 1)
    unlike = crystal.numbers[first] != crystal.numbers[second]
    ends = np.sort(images[:, [first[unlike], second[unlike]]], axis=1)
    least = (ends[:, 0] * len(crystal) + ends[:, 1]).min(0)
    return np.stack(np.divmod(np.unique(least), len(crystal)), -1)


def _different_voids(crystal: Crystal, rotations: np.ndarray, translations: np.ndarray) -> np.ndarray:
    """(v, 3) fractional coordinates of voids, the widest first, one of each set of equal ones."""
    places = np.empty((0, 3))
    for void in void_sites(crystal) or void_sites(crystal, min_radius=0.0)[:1]:
        orbit = rotations @ void.fractional + translations
        if shortest_lengths(orbit[:, None] - places, crystal.lattice).min(initial=np.inf) > SAME_VOID:
            places = np.vstack([places, void.fractional])
    return places


def _renamed(crystal: Crystal, atoms: Sequence[int], numbers: Sequence[int]) -> Crystal:
    changed = crystal.numbers.copy()
    changed[atoms] = numbers
    return crystal.replace(numbers=changed)
