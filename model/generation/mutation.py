"""New crystals from known ones by one small change, as evolutionary searches make them.

A. R. Oganov, C. W. Glass, J. Chem. Phys. 124, 244704 (2006), and D. C. Lonie, E. Zurek, Comput. Phys. Commun. 182, 372
(2011), call such changes permutation and transmutation; atoms are put in and taken out too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.crystals.periodic_images import lengths
from model.crystals.voids import void_sites
from model.settings import Settings
from model.symmetry.space_group import symmetry_dataset

IDENTITY = np.eye(3)[None], np.zeros((1, 3))
SAME = 0.3  # Å, voids nearer to each other's images are one


class MutationSettings(Settings):
    """Mutation: the smallest change that leads from a crystal to the atoms of a cell."""

    kind: Literal["mutation"] = "mutation"


def steps_apart(one: CellFormula, other: CellFormula) -> int:
    """Atoms to be renamed, put in or taken out on the way from one cell to the other."""
    a, b = Counter(one.as_dict), Counter(other.as_dict)
    return max((a - b).total(), (b - a).total())


def changes(crystal: Crystal, wanted: CellFormula) -> list[Crystal]:
    """All crystals, different by symmetry, that one change in the given cell leads to; one at least.

    One atom is renamed, taken out or put into a void; where the atoms are the wanted ones already, two unlike ones are
    exchanged.

    Args:
        crystal: of two elements at least.
        wanted: the new atoms.

    Raises:
        ValueError: it takes more than one change.
    """
    have, want = Counter(crystal.numbers.tolist()), Counter(wanted.numbers.tolist())
    many, few = list((have - want).elements()), list((want - have).elements())
    if max(len(many), len(few)) > 1:
        raise ValueError(f"from {crystal.formula} to {wanted} it takes more than one change")
    group = symmetry_dataset(crystal)
    rotations, translations = IDENTITY if group is None else (group.rotations, group.translations)
    if few and not many:
        voids = _different_voids(crystal, rotations, translations)
        return [crystal.join(Crystal(crystal.lattice, void[None], np.array(few))) for void in voids]
    images = np.array([_carried(crystal, *operation) for operation in zip(rotations, translations, strict=True)])
    if not many:
        return [_renamed(crystal, pair, crystal.numbers[pair[::-1]]) for pair in _different_pairs(crystal, images)]
    old = [atom for atom in np.unique(images.min(0)) if crystal.numbers[atom] == many[0]]
    if few:
        return [_renamed(crystal, [atom], few) for atom in old]
    return [crystal.select(np.arange(len(crystal)) != atom) for atom in old]


def _carried(crystal: Crystal, rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """(n,) atom next to which the operation carries each atom."""
    step = (crystal.fractional @ rotation.T + translation)[:, None] - crystal.fractional
    distance = np.linalg.norm((step - np.round(step)) @ crystal.lattice, axis=-1)
    alike = crystal.numbers[:, None] == crystal.numbers
    nearest: np.ndarray = np.where(alike, distance, np.inf).argmin(1)
    return nearest


def _different_pairs(crystal: Crystal, images: np.ndarray) -> np.ndarray:
    """(m, 2) unlike atoms, one pair of all that ``images`` (operations, n) make alike."""
    first, second = np.triu_indices(len(crystal), 1)
    unlike = crystal.numbers[first] != crystal.numbers[second]
    ends = np.sort(images[:, [first[unlike], second[unlike]]], axis=1)
    least = (ends[:, 0] * len(crystal) + ends[:, 1]).min(0)
    return np.stack(np.divmod(np.unique(least), len(crystal)), -1)


def _different_voids(crystal: Crystal, rotations: np.ndarray, translations: np.ndarray) -> np.ndarray:
    """(v, 3) voids in fractional coordinates, the widest first, one of all that are alike."""
    places = np.empty((0, 3))
    for void in void_sites(crystal) or void_sites(crystal, min_radius=0.0)[:1]:
        orbit = rotations @ void.fractional + translations
        if lengths(crystal, orbit[:, None] - places).min(initial=np.inf) > SAME:
            places = np.vstack([places, void.fractional])
    return places


def _renamed(crystal: Crystal, atoms: Sequence[int], numbers: Sequence[int]) -> Crystal:
    changed = crystal.numbers.copy()
    changed[atoms] = numbers
    return crystal.replace(numbers=changed)
