"""The known crystals of the same type: whether exchanging the ions of one of them gives a crystal.

What plain substitution reaches needs no search. Two crystals are of one type here if they have the same stoichiometry
and space group, their atoms have neighbours at the same distances once both have the same volume, and pymatgen's
StructureMatcher maps one onto the other with the elements exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition, Element

from model.crystals.crystal import Crystal
from model.crystals.matching import neighbour_distances
from model.generation.ion_substitution import assignments
from model.library.phases import Phase, PhaseLibrary
from model.symmetry.space_group import REPORTED, SYMPREC, refine, space_group

TYPE_NEIGHBOURS = 16  # their distances distinguish types
ALIKE = 0.15  # of (volume per atom)^(1/3), largest difference of neighbour distances that the matcher is asked about

_Exchange = tuple[float, Phase, dict[int, int]]  # difference of neighbour distances, phase, element -> element


@dataclass(frozen=True, kw_only=True)
class KnownType:
    """The known crystal of the most similar type.

    Attributes:
        material_id, formula: of the known crystal.
        distance: largest difference of mean neighbour distances, in units of (volume per atom)^(1/3).
        exchange: whether exchanging its ions gives the crystal, within the matcher's usual tolerances.
        ions: element of the known crystal -> element in its place.
    """

    material_id: str
    formula: str
    distance: float
    exchange: bool
    ions: dict[str, str]

    @property
    def text(self) -> str:
        """In words."""
        swaps = ", ".join(f"{old} → {new}" for old, new in self.ions.items() if old != new)
        if self.exchange:
            return f"ion exchange of {self.formula} ({self.material_id}: {swaps}) gives it"
        return f"no ion exchange gives it; nearest type {self.formula} ({self.material_id})"


def nearest_type(crystal: Crystal, library: PhaseLibrary) -> KnownType | None:
    """The known crystal of another formula that gives a crystal by ion exchange, or else the one of the nearest type.

    None if no known crystal has its stoichiometry and space group. Those of similar elements are tried first.

    Args:
        crystal: relaxed.
        library: known crystals.
    """
    refined = refine(crystal, REPORTED, -1.0)
    primitive = refined.crystal if refined else crystal
    groups = _groups(crystal)
    own, counts = _distances(primitive), _counts(primitive)
    nearest: _Exchange | None = None
    for phase in sorted(library.of_stoichiometry(crystal.formula), key=lambda one: _unlikeness(one, crystal)):
        if phase.formula == crystal.formula or phase.space_group not in groups or phase.n_atoms % len(primitive):
            continue
        theirs, ratio = _distances(phase.crystal), phase.n_atoms // len(primitive)
        for ions in assignments(_counts(phase.crystal), {z: n * ratio for z, n in counts.items()}):
            difference = max(float(np.abs(theirs[old] - own[new]).max()) for old, new in ions.items())
            one = difference, phase, ions
            if difference < ALIKE and _matches(primitive, phase.crystal, ions):
                return _known(one, exchange=True)
            if nearest is None or difference < nearest[0]:
                nearest = one
    return None if nearest is None else _known(nearest, exchange=False)


def _unlikeness(phase: Phase, crystal: Crystal) -> tuple[float, str]:
    """How far the elements of a phase lie from a crystal's in electronegativity; the identifier breaks ties."""
    rows = [
        sorted((amount / whole.num_atoms, _electronegativity(element.Z)) for element, amount in whole.items())
        for whole in (Composition(phase.formula), Composition(crystal.formula))
    ]
    return sum(abs(one[1] - other[1]) for one, other in zip(*rows, strict=True)), phase.material_id


def _electronegativity(z: int) -> float:
    """Pauling's; 2 for elements without one."""
    return float(Element.from_Z(z).data.get("X") or 2.0)


def _matches(crystal: Crystal, known: Crystal, ions: dict[int, int]) -> bool:
    exchanged = known.replace(numbers=np.array([ions[z] for z in known.numbers.tolist()]))
    return bool(StructureMatcher().fit(crystal.to_pymatgen(), exchanged.to_pymatgen()))


def _known(one: _Exchange, *, exchange: bool) -> KnownType:
    difference, phase, ions = one
    named = {chemical_symbols[old]: chemical_symbols[new] for old, new in ions.items()}
    return KnownType(
        material_id=phase.material_id, formula=phase.formula, distance=difference, exchange=exchange, ions=named
    )


def _counts(crystal: Crystal) -> dict[int, int]:
    numbers, counts = np.unique(crystal.numbers, return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def _distances(crystal: Crystal) -> dict[int, np.ndarray]:
    """Atomic number -> (16,) mean distances to the k-th neighbours at a volume of 1 per atom."""
    distances = neighbour_distances(crystal, TYPE_NEIGHBOURS) / np.cbrt(crystal.volume / len(crystal))
    return {z: distances[crystal.numbers == z].mean(0) for z in np.unique(crystal.numbers).tolist()}


def _groups(crystal: Crystal) -> set[int]:
    """The numbers of its space groups at fine and coarse tolerance."""
    return {found.number for found in (space_group(crystal, REPORTED, -1.0), space_group(crystal, SYMPREC)) if found}
