"""Which atoms surround an atom: coordination in salts, covalent crystals, alloys, layers, slabs and molecules.

Own code: pymatgen's CrystalNN takes the helium of MgO with He for neighbours, misses the Cl of PbFCl and leaves the
surface of a MgO slab one neighbour instead of five; a test lists the crystals that this module was checked on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from pymatgen.core import Element

from model.crystals.crystal import Crystal
from model.crystals.neighbors import pair_vectors

# Distances in units of the sum of two covalent radii (Cordero et al., Dalton Trans. 2832 (2008)).
TOUCHING = 1.3  # longest covalent bond
SALTY = 1.5  # longest contact with a non-metal that makes a metal atom a cation; Tl+ in fluorides has 1.43
FARTHEST = 1.6  # longest contact between metal atoms, and between a metal and a non-metal
NOBLE_REACH = 8.0  # Å, in a crystal of noble gases alone
DIRECTIONS = 10_000  # in which an atom looks for neighbours


@dataclass(frozen=True)
class Shell:
    """The neighbours of an atom.

    Attributes:
        counts: (element, how many), the most frequent first, equally frequent ones by symbol.

    Example:
        >>> shell = Shell.of(["F", *6 * ["O"]])
        >>> str(shell), shell.number
        ('6 O + 1 F', 7)
    """

    counts: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, symbols: Sequence[str]) -> Shell:
        """The shell of neighbours with these symbols."""
        return cls(tuple(sorted(Counter(symbols).items(), key=lambda item: (-item[1], item[0]))))

    @property
    def number(self) -> int:
        """Coordination number: all neighbours."""
        return sum(count for _, count in self.counts)

    def __str__(self) -> str:
        return " + ".join(f"{count} {symbol}" for symbol, count in self.counts) or "none"


def neighbour_shells(crystal: Crystal, *, distance_cutoff: float = 1.4, angle_cutoff: float = 0.3) -> list[Shell]:
    """The shell of every atom.

    Of the atoms that can be bonded to an atom (`_bonded_pairs`), those count that are at most ``distance_cutoff`` times
    as far as the nearest one, and whose face of the atom's Voronoi cell fills at least ``angle_cutoff`` times the solid
    angle of the largest face. These are the two criteria of ChemEnv's simplest strategy, with its values (Waroquiers et
    al., Chem. Mater. 29, 8346 (2017)), which the CHGGen paper uses through LocalGeometryFinder. Distances are in units
    of the sum of the two covalent radii, so that neighbours of different size compare. A cell that is open, as on a
    surface, ends at the distance of the nearest neighbour. Solid angles are counted in `DIRECTIONS`.

    Args:
        crystal: any, with vacuum or without.
        distance_cutoff: relative to the nearest neighbour.
        angle_cutoff: relative to the largest solid angle.

    Raises:
        ValueError: two atoms are on top of each other.

    Example:
        >>> salt = Crystal(2.82 * (1 - np.eye(3)), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
        >>> print(*neighbour_shells(salt), sep=", ")
        6 Cl, 6 Na
    """
    first, second, vectors = _bonded_pairs(crystal)
    starts = np.searchsorted(first, np.arange(len(crystal) + 1))  # pairs are sorted by their first atom
    shells = []
    for start, stop in pairwise(starts.tolist()):
        chosen = start + _surrounding(vectors[start:stop], distance_cutoff, angle_cutoff)
        shells.append(Shell.of([chemical_symbols[z] for z in crystal.numbers[second[chosen]]]))
    return shells


def coordination_numbers(
    crystal: Crystal,
    *,
    neighbours: Sequence[str] | None = None,
    distance_cutoff: float = 1.4,
    angle_cutoff: float = 0.3,
) -> np.ndarray:
    """Coordination number of every atom: (n,) integers, the sizes of its `neighbour_shells`.

    Args:
        crystal: the crystal.
        neighbours: elements of the shell that are counted (default: all).
        distance_cutoff, angle_cutoff: as there.

    Example:
        >>> salt = Crystal(2.82 * (1 - np.eye(3)), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
        >>> print(coordination_numbers(salt))
        [6 6]
    """
    shells = neighbour_shells(crystal, distance_cutoff=distance_cutoff, angle_cutoff=angle_cutoff)
    counted = set(neighbours or crystal.symbols)
    return np.array([sum(n for symbol, n in shell.counts if symbol in counted) for shell in shells], dtype=int)


def coordination_statistics(crystals: Sequence[Crystal], center: str) -> dict[Shell, float]:
    """Share of the atoms of an element with each shell, by coordination number; the shares sum to 1.

    Raises:
        ValueError: no crystal contains the element.
    """
    z = atomic_numbers[center]
    found = Counter(
        shell
        for crystal in crystals
        if z in crystal.numbers
        for shell, number in zip(neighbour_shells(crystal), crystal.numbers, strict=True)
        if number == z
    )
    if not found:
        raise ValueError(f"no crystal contains {center}")
    total = found.total()
    return {shell: found[shell] / total for shell in sorted(found, key=lambda one: (one.number, str(one)))}


def _bonded_pairs(crystal: Crystal) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs that can be bonded, by their elements, in both directions and sorted by the first atom.

    - Non-metals are bonded within `TOUCHING`.
    - A metal and a non-metal are bonded within `FARTHEST`, unless the non-metal is itself a cation (see `_shielded`).
    - Two metal atoms are bonded within `FARTHEST`, unless both have a non-metal within `SALTY`: in a salt, cations are
      no neighbours.
    - He, Ne and Ar bond to nothing, heavier noble gases to non-metals, as in XeF2. A crystal of noble gases alone is a
      packing of spheres.

    Returns:
        first atom, second atom, (m, 3) vector in units of the sum of the covalent radii.
    """
    elements = [Element(symbol) for symbol in crystal.symbols]
    metal = np.array([element.is_metal for element in elements], dtype=bool)
    noble = np.array([element.is_noble_gas for element in elements], dtype=bool)
    radii = covalent_radii[crystal.numbers]
    packing = bool(noble.all())
    reach = NOBLE_REACH if packing else FARTHEST * 2 * float(radii.max())
    first, second, vectors = pair_vectors(crystal, cutoff=reach)
    distance = np.linalg.norm(vectors, axis=1)
    if distance.min(initial=np.inf) < 1e-3:
        atom = int(first[distance.argmin()])
        raise ValueError(f"{crystal.formula} has two atoms on top of each other, one of them atom {atom + 1}")
    scale = radii[first] + radii[second]
    if packing:
        return first, second, vectors / scale[:, None]
    near = distance <= TOUCHING * scale
    reactive = ~noble | (crystal.numbers >= atomic_numbers["Kr"])
    covalent = near & ~metal[first] & ~metal[second] & reactive[first] & reactive[second]
    polar = (distance <= FARTHEST * scale) & (metal[first] ^ metal[second]) & ~(noble[first] | noble[second])
    polar &= ~_shielded(crystal, elements, first, second, vectors, covalent=covalent, polar=polar)
    salty = np.zeros(len(crystal), dtype=bool)
    salty[first[polar & (distance <= SALTY * scale)]] = True
    metallic = (distance <= FARTHEST * scale) & metal[first] & metal[second] & ~(salty[first] & salty[second])
    keep = covalent | polar | metallic
    return first[keep], second[keep], (vectors / scale[:, None])[keep]


def _shielded(
    crystal: Crystal,
    elements: Sequence[Element],
    first: np.ndarray,
    second: np.ndarray,
    vectors: np.ndarray,
    *,
    covalent: np.ndarray,
    polar: np.ndarray,
) -> np.ndarray:
    """Which polar pairs have a non-metal that its own anions keep from the metal, as P in phosphate or H in hydroxide.

    Its anions are the more electronegative non-metals that it is bonded to: three or more of them surround it, one is
    enough for hydrogen, and one that is nearer to the metal stands before it (but not the N of cyanide before its C).
    """
    order = np.array([0.0 if element.is_noble_gas else element.X for element in elements])
    to_anion = covalent & (order[second] > order[first])
    shielded = np.zeros(len(first), dtype=bool)
    for atom in np.unique(first[to_anion]):
        anions = vectors[to_anion & (first == atom)]
        pairs = np.flatnonzero(polar & ((first == atom) | (second == atom)))
        to_metal = vectors[pairs] * np.where(first[pairs] == atom, 1.0, -1.0)[:, None]
        nearest = np.linalg.norm(to_metal[:, None] - anions, axis=-1).min(1)  # of its anions to the metal
        surrounded = len(anions) >= 3 or crystal.numbers[atom] == 1
        shielded[pairs] = surrounded | (nearest < np.linalg.norm(to_metal, axis=1))
    return shielded


def _surrounding(vectors: np.ndarray, distance_cutoff: float, angle_cutoff: float) -> np.ndarray:
    """Indices of the neighbours among vectors (m, 3) from an atom, by distance and solid angle.

    In direction u the face of a neighbour at v is v²/2(u·v) away; the nearest face is that of the Voronoi cell.
    """
    if not len(vectors):
        return np.empty(0, dtype=int)
    distance = np.linalg.norm(vectors, axis=1)
    near = np.flatnonzero(distance <= 2.0001 * distance.min())  # beyond, no face is inside the open cell's end
    closeness = _SPHERE @ (2 * vectors[near] / distance[near, None] ** 2).T  # one over the distance to each face
    face = closeness.argmax(1)
    closed = closeness.max(1) >= 1 / distance.min()
    angle = np.bincount(face[closed], minlength=len(near))
    return near[(distance[near] <= distance_cutoff * distance.min()) & (angle >= angle_cutoff * angle.max())]


def _directions(count: int) -> np.ndarray:
    """(count, 3) unit vectors that fill the sphere evenly: a Fibonacci lattice."""
    index = np.arange(count) + 0.5
    z, turn = 1 - 2 * index / count, np.pi * (1 + np.sqrt(5)) * index
    return np.column_stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z])


_SPHERE = _directions(DIRECTIONS)
