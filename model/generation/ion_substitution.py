"""Known structure types with other elements on their sites, the likeliest first.

A compound is a good model of another where its elements are known to replace those of the other on such sites. The
likelihood of a type is the sum of those of all its known compounds, so that one close relative counts as much as many
distant ones; that with the closest elements is the model.

Own code because pymatgen's SubstitutionPredictor proposes ions, with oxidation states, for a given structure; here
structures are wanted for given elements.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
from ase.data import atomic_numbers

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.generation.shared_sites import KEPT, Split, divided
from model.generation.structure_types import Family, StructureTypes, packaged_elements
from model.library.phases import PhaseLibrary

MOST = 100  # substitutions of a cell
CELLS = 4  # most cells of a phase with shared sites in the one that is made
SHARED = 6  # types with shared sites that are tried, of each pair of elements and number of cells
SHARED_COST = 2.0  # −ln of how much less likely a type with shared sites is than one of its own
RANK_COST = 0.7  # −ln of how much less likely an arrangement is than the one with more symmetry
RATTLE = 0.1  # Å


@dataclass(frozen=True, eq=False, slots=True)
class Substitution:
    """A known phase whose elements are substituted.

    Attributes:
        name: identifier of the phase in the library.
        library: that holds it.
        elements: atomic number in it -> atomic number in its place, for sites that are not shared.
        unlikeliness: −ln of the likelihood of its type; only differences between types of one cell are of use.
        split: how the sites of one element of the phase are shared by two others; None if there are none.
    """

    name: str
    library: PhaseLibrary
    elements: Mapping[int, int]
    unlikeliness: float
    split: Split | None = None

    def crystal(self, rng: np.random.Generator | None = None) -> Crystal:
        """The crystal, atoms by atomic number; with ``rng`` each atom is displaced by about 0.1 Å.

        Its volume is that of the known phase times the ratio of the volumes of the elements.
        """
        known = self.library.crystal(self.name)
        shared = np.zeros(len(known), dtype=int)
        if self.split is not None:
            known, shared = divided(known, self.split)
        one_to_one = [self.elements.get(z, z) for z in known.numbers.tolist()]
        numbers = np.where(shared > 0, shared, one_to_one)
        volume = packaged_elements().volume
        order = np.argsort(numbers, kind="stable")
        lattice = known.lattice * np.cbrt(volume(numbers) / volume(known.numbers))
        noise = np.zeros((len(known), 3)) if rng is None else RATTLE / np.sqrt(3) * rng.normal(size=(len(known), 3))
        return Crystal(lattice, (known.fractional + noise @ np.linalg.inv(lattice))[order], numbers[order]).wrapped()


def substitutions(cell: CellFormula, types: StructureTypes) -> list[Substitution]:
    """The ways to make a cell of these atoms from a known structure type, the likeliest first, at most `MOST`.

    Types with as many elements come with those in which two elements of the cell share the sites of one.

    >>> from model.library.phases import packaged_library
    >>> best = substitutions(CellFormula.parse("Na2O"), StructureTypes(packaged_library()))[0]
    >>> best.library.phase(best.name).formula
    'Na2O'
    """
    elements = [(atomic_numbers[element], count) for element, count in cell.counts]
    found = _whole(elements, types)
    for pair in combinations(elements, 2):
        found += _shared(pair, [one for one in elements if one not in pair], types)
    return sorted(found, key=lambda one: (one.unlikeliness, one.name))[:MOST]


def _whole(elements: Sequence[tuple[int, int]], types: StructureTypes) -> list[Substitution]:
    """From types with the same numbers of atoms."""
    family = types.family([count for _, count in elements])
    if family is None:
        return []
    wanted = [z for z, _ in sorted(elements, key=lambda one: one[1])]
    unlike = [packaged_elements().unlike(np.array(z), family.elements) for z in wanted]
    return [
        Substitution(
            name=str(family.names[member]),
            library=types.library,
            elements={z: wanted[i] for z, i in zip(family.elements[member].tolist(), order, strict=True)},
            unlikeliness=unlikeliness,
        )
        for unlikeliness, member, order in models(family, np.array(unlike))
    ]


def _shared(
    pair: tuple[tuple[int, int], tuple[int, int]], others: Sequence[tuple[int, int]], types: StructureTypes
) -> list[Substitution]:
    """From the likeliest types in which two elements share the sites of one, in one to `CELLS` cells."""
    together = sum(count for _, count in pair)
    found: list[Substitution] = []
    for cells in range(1, CELLS + 1):
        if any(count % cells for count in (together, *(count for _, count in others))):
            continue
        sites = sorted(
            [(None, together // cells), *((z, count // cells) for z, count in others)], key=lambda one: one[1]
        )
        family = types.family([count for _, count in sites])
        if family is None or len(sites) == 1:
            continue
        mixed = sum(n / together * packaged_elements().unlike(np.array(z), family.elements) for z, n in pair)
        unlike = [mixed if z is None else packaged_elements().unlike(np.array(z), family.elements) for z, _ in sites]
        likeliest = sorted(models(family, np.array(unlike)), key=lambda one: one[0])[:SHARED]
        for unlikeliness, member, order in likeliest:
            places = {z: sites[i][0] for z, i in zip(family.elements[member].tolist(), order, strict=True)}
            element = next(z for z, new in places.items() if new is None)
            found += [
                Substitution(
                    name=str(family.names[member]),
                    library=types.library,
                    elements={z: new for z, new in places.items() if new is not None},
                    unlikeliness=unlikeliness + SHARED_COST + RANK_COST * rank,
                    split=Split(element, pair, cells, rank),
                )
                for rank in range(KEPT)
            ]
    return found


def models(family: Family, unlike: np.ndarray) -> Iterator[tuple[float, int, list[int]]]:
    """Of every type and different order of the elements: −ln of the likelihood, the closest phase and the order.

    Args:
        family: of the types.
        unlike: (k, M, k) squared distance of each wanted element from those on the sites of each phase.
    """
    orders, sites = family.orders, np.arange(len(family.counts))
    cost = np.stack([unlike[order, :, sites].sum(0) for order in orders])  # (P, M)
    number = {tuple(order): n for n, order in enumerate(orders.tolist())}
    by_type = np.argsort(family.types, kind="stable")
    for members in np.split(by_type, np.flatnonzero(np.diff(family.types[by_type])) + 1):
        twins = family.twins[int(family.types[members[0]])]
        left = set(range(len(orders)))
        while left:
            first = min(left)
            same = [number[tuple(order)] for order in orders[first][twins].tolist()]
            left -= set(same)
            some = cost[same][:, members]
            row, place = np.unravel_index(some.argmin(), some.shape)
            lowest = some[row, place]
            likelihood = lowest - np.log(np.exp(lowest - some.min(0)).sum())
            yield float(likelihood), int(members[place]), orders[same[row]].tolist()


def assignments(places: Mapping[int, int], elements: Mapping[int, int]) -> list[dict[int, int]]:
    """All ways to put elements (atomic number -> count) in the place of others with as many atoms each.

    >>> assignments({11: 4, 17: 4}, {12: 4, 8: 4})
    [{11: 12, 17: 8}, {11: 8, 17: 12}]
    """
    return [
        dict(zip(places, chosen, strict=True))
        for chosen in permutations(elements)
        if all(count == elements[new] for count, new in zip(places.values(), chosen, strict=True))
    ]
