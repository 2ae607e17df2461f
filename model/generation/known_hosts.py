"""Hosts in which guests may find new sites: known phases without their guests, with other elements on their sites.

A cell's guests are placed anew in the host of a phase that has none, or another number, or another guest. Where the
phase has as many guests as the cell, its own sites serve: that is ion substitution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.generation.ion_substitution import models
from model.generation.structure_types import StructureTypes, packaged_elements
from model.library.phases import PhaseLibrary

GUESTS = ("H", "Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Zn", "Al", "Cu", "Ag")  # where none are named
MOST = 8  # hosts of a cell and a guest


@dataclass(frozen=True, eq=False)
class KnownHost:
    """A known phase whose guests are taken out and whose other elements are substituted.

    Attributes:
        name: identifier of the phase in the library.
        library: that holds it.
        elements: atomic number in it -> atomic number in its place; guests are not among them.
        cell: atoms of the filled cell.
        unlikeliness: −ln of the likelihood of its type; only differences between hosts of one cell are of use.
    """

    name: str
    library: PhaseLibrary
    elements: Mapping[int, int]
    cell: CellFormula
    unlikeliness: float

    @property
    def crystal(self) -> Crystal:
        """The empty host, with room for the guests: at the volume of the phase times the ratio of the elements'."""
        known, volume = self.library.crystal(self.name), packaged_elements().volume
        host = known.select(np.isin(known.numbers, list(self.elements)))
        growth = np.cbrt(volume(self.cell.numbers) / volume(known.numbers))
        return Crystal(
            growth * known.lattice, host.fractional, np.array([self.elements[z] for z in host.numbers.tolist()])
        )


def known_hosts(cell: CellFormula, guest: str, types: StructureTypes) -> list[KnownHost]:
    """Hosts for the guests of a cell, the likeliest first, at most `MOST`; none where nothing but guests is in it."""
    z, inserted = atomic_numbers[guest], cell.as_dict[guest]
    rest = sorted(((atomic_numbers[e], n) for e, n in cell.counts if e != guest), key=lambda one: one[1])
    counts = [count for _, count in rest]
    found: list[KnownHost] = []
    for whole in (tuple(counts), *types.with_another(counts)):
        family = types.family(whole)
        taken = _taken(whole, counts)
        if family is None or taken == inserted:
            continue
        wanted = [element for element, _ in rest]
        if taken is not None:
            wanted.insert(whole.index(taken), z)
        unlike = np.array([packaged_elements().unlike(np.array(one), family.elements) for one in wanted])
        for unlikeliness, member, order in sorted(models(family, unlike), key=lambda one: one[0])[:MOST]:
            places = {old: wanted[i] for old, i in zip(family.elements[member].tolist(), order, strict=True)}
            elements = {old: new for old, new in places.items() if new != z}
            found.append(KnownHost(str(family.names[member]), types.library, elements, cell, unlikeliness))
    return sorted(found, key=lambda one: (one.unlikeliness, one.name))[:MOST]


def _taken(whole: tuple[int, ...], counts: list[int]) -> int | None:
    """The number of atoms that ``whole`` has beyond ``counts``; None if it has none."""
    left = list(whole)
    for count in counts:
        left.remove(count)
    return left[0] if left else None
