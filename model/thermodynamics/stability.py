"""Decomposition energy E_d against a fixed convex hull."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import copy
from dataclasses import dataclass

import pandas as pd
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

from model.crystals.composition import parse_system
from model.thermodynamics.reference import Reference


@dataclass(frozen=True)
class Decomposition:
    """Distance of a candidate from the hull, and the phases into which it would decompose.

    Attributes:
        e_d: eV/atom, E_d = E_s - Σ x_i E_i (paper, Methods); negative below the hull.
        products: reduced formula -> x_i, the fraction of the atoms in that phase; they sum to 1.
        single_points: those of them whose energy is that of a geometry which the potential did not relax, mostly a few
            meV/atom too high; E_d is then too low by as much.
    """

    e_d: float
    products: dict[str, float]
    single_points: tuple[str, ...] = ()


class Stability:
    """The convex hull of one chemical system; candidates never join it, but see `extended`.

    Example:
        >>> from model.thermodynamics.reference import packaged_reference
        >>> stability = Stability(packaged_reference(), "Li-Si")
        >>> found = stability.decomposition("Li5Si2", energy_per_atom=-3.1)
        >>> round(found.e_d, 3), {formula: round(share, 2) for formula, share in found.products.items()}
        (0.044, {'Li7Si3': 0.84, 'Li15Si4': 0.16})
    """

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
        phases = _lowest(reference, self.elements)
        self.diagram = PhaseDiagram(_entries(phases))
        self._single_points = set(phases.loc[~phases["relaxed"], "formula"])
        self._known: dict[Composition, tuple[float, dict[str, float]]] = {}

    def decomposition(self, composition: Composition | str, energy_per_atom: float) -> Decomposition:
        """E_d and products of a composition with this energy (eV/atom, same potential as the reference)."""
        hull_energy, products = self._hull(Composition(composition).reduced_composition)
        single_points = tuple(sorted(self._single_points.intersection(products)))
        return Decomposition(e_d=energy_per_atom - hull_energy, products=dict(products), single_points=single_points)

    def extended(self, found: Mapping[str, float]) -> Stability:
        """A copy with further phases (reduced formula -> eV/atom, same potential); the original is unchanged."""
        if not found:
            return self
        other = copy(self)
        entries = [_entry(formula, energy, formula) for formula, energy in found.items()]
        other.diagram, other._known = PhaseDiagram([*self.diagram.entries, *entries]), {}
        return other

    def hull_energy(self, composition: Composition | str) -> float:
        """Energy of the hull in eV/atom."""
        return self._hull(Composition(composition).reduced_composition)[0]

    def _hull(self, composition: Composition) -> tuple[float, dict[str, float]]:
        if composition not in self._known:
            self._known[composition] = self._decompose(composition)
        return self._known[composition]

    def _decompose(self, composition: Composition) -> tuple[float, dict[str, float]]:
        foreign = sorted({str(element) for element in composition.elements} - set(self.elements))
        if foreign:
            system = "-".join(self.elements)
            raise ValueError(
                f"{composition.reduced_formula} contains {', '.join(foreign)}, outside the system {system}"
            )
        products, energy = self.diagram.get_decomp_and_hull_energy_per_atom(composition)
        ordered = sorted(products.items(), key=lambda item: -item[1])
        return float(energy), {phase.composition.reduced_formula: float(x) for phase, x in ordered}


def _lowest(reference: Reference, elements: Collection[str]) -> pd.DataFrame:
    """The lowest phase of each formula; the others cannot be on the hull."""
    phases = reference.of_system(elements).sort_values("energy_per_atom").drop_duplicates("formula")
    return phases.assign(relaxed=phases["relaxed"].astype(bool))


def _entries(phases: pd.DataFrame) -> list[PDEntry]:
    return [_entry(str(row.formula), float(row.energy_per_atom), row.material_id) for row in phases.itertuples()]


def _entry(formula: str, energy_per_atom: float, material_id: object) -> PDEntry:
    composition = Composition(formula)
    return PDEntry(composition, energy_per_atom * composition.num_atoms, attribute=material_id)
