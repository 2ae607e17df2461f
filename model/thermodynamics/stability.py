"""Decomposition energy E_d against a fixed convex hull."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import copy
from dataclasses import dataclass

from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition
from pymatgen.entries import Entry

from model.crystals.composition import parse_system
from model.thermodynamics.reference import Reference


@dataclass(frozen=True)
class Decomposition:
    """How far a candidate lies from the hull, and into what it would decompose.

    Attributes:
        e_d: eV/atom, E_d = E_s - Σ x_i E_i (paper, Methods); negative below the hull.
        products: reduced formula -> x_i, the fraction of the atoms in that phase; they sum to 1.
        material_ids: reduced formula -> identifier of the phase in the reference.
    """

    e_d: float
    products: dict[str, float]
    material_ids: dict[str, str]


class Stability:
    """The hull of one chemical system, made once; candidates join a copy at most, see `extended`."""

    def __init__(self, reference: Reference, chemical_system: str | Collection[str]) -> None:
        """Build the hull.

        Args:
            reference: competing phases.
            chemical_system: ``Li-Si`` or a collection of elements.

        Raises:
            ValueError: an element is unknown or has no elemental phase in the reference.
        """
        elements = parse_system(chemical_system if isinstance(chemical_system, str) else "-".join(chemical_system))
        reference.require(elements)
        self.reference = reference
        self.elements = tuple(sorted(elements))
        self._names = _entries(reference, self.elements)
        self.diagram = PhaseDiagram(list(self._names))
        self._known: dict[Composition, tuple[float, tuple[tuple[str, float, str], ...]]] = {}

    def decomposition(self, composition: Composition | str, energy_per_atom: float) -> Decomposition:
        """E_d and products of a composition with this energy (eV/atom, same potential as the reference)."""
        hull_energy, products = self._hull(Composition(composition).reduced_composition)
        return Decomposition(
            e_d=energy_per_atom - hull_energy,
            products={formula: fraction for formula, fraction, _ in products},
            material_ids={formula: material_id for formula, _, material_id in products},
        )

    def extended(self, found: Mapping[str, float]) -> Stability:
        """A hull with further phases (reduced formula -> eV/atom, same potential); this one stays as it is."""
        if not found:
            return self
        other = copy(self)
        other._names = {**self._names, **{_entry(formula, e, formula): formula for formula, e in found.items()}}
        other.diagram, other._known = PhaseDiagram(list(other._names)), {}
        return other

    def hull_energy(self, composition: Composition | str) -> float:
        """Energy of the hull in eV/atom."""
        return self._hull(Composition(composition).reduced_composition)[0]

    def _hull(self, composition: Composition) -> tuple[float, tuple[tuple[str, float, str], ...]]:
        if composition not in self._known:
            self._known[composition] = self._decompose(composition)
        return self._known[composition]

    def _decompose(self, composition: Composition) -> tuple[float, tuple[tuple[str, float, str], ...]]:
        foreign = sorted({str(element) for element in composition.elements} - set(self.elements))
        if foreign:
            system = "-".join(self.elements)
            raise ValueError(f"{composition.reduced_formula} holds {', '.join(foreign)}, outside the system {system}")
        products, energy = self.diagram.get_decomp_and_hull_energy_per_atom(composition)
        ordered = sorted(products.items(), key=lambda item: -item[1])
        rows = ((phase.composition.reduced_formula, float(x), self._names[phase]) for phase, x in ordered)
        return float(energy), tuple(rows)


def _entries(reference: Reference, elements: Collection[str]) -> dict[Entry, str]:
    """Entries of the lowest phase of each formula (the others cannot be on the hull), and their identifiers."""
    phases = reference.of_system(elements).sort_values("energy_per_atom").drop_duplicates("formula")
    entries: dict[Entry, str] = {}
    for row in phases.itertuples():
        entries[_entry(str(row.formula), float(row.energy_per_atom), row.material_id)] = str(row.material_id)
    return entries


def _entry(formula: str, energy_per_atom: float, identity: object) -> PDEntry:
    composition = Composition(formula)
    return PDEntry(composition, energy_per_atom * composition.num_atoms, attribute=identity)
