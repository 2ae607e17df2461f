"""New crystals from known ones by one small change, as evolutionary searches make them.

A. R. Oganov, C. W. Glass, J. Chem. Phys. 124, 244704 (2006), and D. C. Lonie, E. Zurek, Comput. Phys. Commun. 182, 372
(2011), call such changes permutation and transmutation; atoms are put in and taken out too.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np

from model.composition import CellFormula
from model.crystal import Crystal
from model.sampler import Blank
from model.settings import Settings


class MutationSettings(Settings):
    """Mutation: the smallest change that leads from a crystal to the atoms of a cell."""

    kind: Literal["mutation"] = "mutation"


def steps_apart(one: CellFormula, other: CellFormula) -> int:
    """Atoms to be renamed, put in or taken out on the way from one cell to the other."""
    a, b = Counter(one.as_dict), Counter(other.as_dict)
    return max((a - b).total(), (b - a).total())


def mutate(crystal: Crystal, wanted: CellFormula, volume: float, seed: int) -> Blank:
    """The smallest change of a crystal into a cell of other atoms; which atoms it concerns is drawn.

    Atoms are renamed while there are those of one element too many and of another too few. What is still too many is
    taken out, what is too few put in. Where nothing is too many or too few, two unlike atoms are exchanged.

    Args:
        crystal: of two elements at least.
        wanted: the new atoms.
        volume: of the new cell in Å³; it keeps its shape.
        seed: the only source of randomness.

    Returns:
        the new crystal; its guests, at the end, are the atoms put in, which have no place yet.
    """
    rng = np.random.default_rng(seed)
    numbers = crystal.numbers.copy()
    have, want = Counter(numbers.tolist()), Counter(wanted.numbers.tolist())
    many, few = list((have - want).elements()), list((want - have).elements())
    if not many and not few:
        first = rng.integers(len(numbers))
        second = rng.choice(np.flatnonzero(numbers != numbers[first]))
        numbers[[first, second]] = numbers[[second, first]]
    for old, new in zip(many, few, strict=False):
        numbers[_one_of(numbers, old, rng)] = new
    kept = np.ones(len(numbers), dtype=bool)
    for old in many[len(few) :]:
        kept[_one_of(np.where(kept, numbers, 0), old, rng)] = False
    added = few[len(many) :]
    lattice = crystal.lattice * np.cbrt(volume / crystal.volume)
    fractional = np.concatenate([crystal.fractional[kept], np.zeros((len(added), 3))])
    changed = Crystal(lattice, fractional, np.append(numbers[kept], np.array(added, dtype=int)))
    return Blank(changed, np.arange(len(changed)) >= kept.sum(), seed)


def _one_of(numbers: np.ndarray, z: int, rng: np.random.Generator) -> int:
    return int(rng.choice(np.flatnonzero(numbers == z)))
