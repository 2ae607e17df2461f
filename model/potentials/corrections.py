"""The corrections of the Materials Project for potentials that were trained on raw GGA and GGA+U energies.

GGA errs by about the same energy for every oxide ion, sulphide ion and so on, and GGA+U lies on another scale than GGA.
The scheme MP2020 (A. Wang et al., Sci. Rep. 11, 15496 (2021)) brings all of them onto one scale: so much per anion, and
so much per metal where the Materials Project uses a Hubbard U. It depends on the composition, and in two cases on the
structure: whether oxygen forms an oxide, peroxide, superoxide or ozonide, and whether sulphur is an anion or sits in a
sulphate. pymatgen decides both.

The scheme was fitted to compounds whose anions have an oxidation state of −1 or less, and elements get nothing. What
holds in between, as in LiSb8, is not known, and either choice is a jump. With the whole correction LiSb8 lies 0.17
eV/atom too low, and a search finds nothing else; with none, which is pymatgen's default, all such compounds lie too
high. Here the correction grows in proportion to the charge of the anion, up to −1. That is linear in the composition,
so that it neither favours nor disfavours such a compound against its neighbours.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import torch
from pymatgen.analysis.structure_analyzer import oxide_type, sulfide_type
from pymatgen.core import Composition, Element
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
from pymatgen.entries.computed_entries import ComputedEntry

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.potentials.interface import BatchEvaluation, Evaluation, Potential
from model.symmetry.projector import Projector

O_O_TOLERANCE = 1.05  # factor on the length of O–O bonds, as in MP2020
ANIONS = ("S", "Br", "I", "Se", "Si", "Sb", "Te", "H", "N", "F", "Cl")  # of the scheme, but for oxygen
SULPHUR = Element("S").X  # a sulphur atom is an anion unless its neighbours are more electronegative


class CorrectedPotential:
    """A potential of raw GGA and GGA+U energies with the corrections of MP2020 added; forces and stresses are its own.

    The correction is added at every evaluation. It is constant during a relaxation, unless O–O bonds or S–O bonds form
    or break: then the energy changes by the difference, as it does in MP2020.

    Args:
        potential: gives the raw energies.
    """

    def __init__(self, potential: Potential) -> None:
        self.raw = potential
        self.name, self.device = potential.name, potential.device
        self.version = f"{potential.version}, MP2020 in proportion to the charge"

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation]:
        """Evaluate crystals of any size; one that cannot be evaluated has a ``problem`` instead of raising."""
        raw = self.raw.evaluate(crystals)
        return [
            one if one.problem else replace(one, energy=one.energy + mp2020_correction(crystal))
            for one, crystal in zip(raw, crystals, strict=True)
        ]

    def compute(self, batch: Batch, symmetry: Sequence[Projector | None] | None = None) -> BatchEvaluation:
        """Evaluate a float64 batch on ``device``."""
        raw = self.raw.compute(batch, symmetry)
        added = [
            0.0 if problem else mp2020_correction(crystal)
            for crystal, problem in zip(batch.to_crystals(), raw.problems, strict=True)
        ]
        return replace(raw, energy=raw.energy + torch.tensor(added, dtype=raw.energy.dtype, device=raw.energy.device))


def mp2020_correction(crystal: Crystal) -> float:
    """What MP2020 adds to the GGA or GGA+U energy of a crystal, eV/atom.

    The run type and the Hubbard U are those with which the Materials Project computes such a crystal.

    Example:
        >>> from ase.build import bulk
        >>> magnesia = Crystal.from_ase(bulk("MgO", "rocksalt", a=4.21))
        >>> round(mp2020_correction(magnesia), 4)  # −0.687 eV per oxide ion
        -0.3435
    """
    elements = set(crystal.symbols)
    if len(elements) < 2:
        return 0.0
    oxygen = _oxide_type(crystal) if "O" in elements else ""
    sulphur = _sulphur_type(crystal, elements) if "S" in elements else ""
    return _of_composition(crystal.formula, oxygen, sulphur)


def usual_correction(formula: str) -> float:
    """The correction in eV/atom of a compound whose oxygen and sulphur are oxide and sulphide."""
    return _of_composition(formula, "oxide", "sulfide")


def _oxide_type(crystal: Crystal) -> str:
    return str(oxide_type(crystal.wrapped().to_pymatgen(), O_O_TOLERANCE))


def _sulphur_type(crystal: Crystal, elements: set[str]) -> str:
    if all(Element(symbol).X <= SULPHUR for symbol in elements):
        return "sulfide"
    return sulfide_type(crystal.wrapped().to_pymatgen()) or "sulfate"


@cache
def _scheme() -> MaterialsProject2020Compatibility:
    """Every anion is corrected, as published; `_of_composition` reduces what those between 0 and −1 get."""
    return MaterialsProject2020Compatibility(check_potcar=False, strict_anions="no_check")


@cache
def _of_composition(formula: str, oxygen: str, sulphur: str) -> float:
    """The correction in eV/atom of a reduced formula with these kinds of oxygen and sulphur."""
    composition = Composition(formula)
    hubbards = hubbard_u(composition)
    entry = ComputedEntry(
        composition,
        0.0,
        parameters={"run_type": "GGA+U" if hubbards else "GGA", "hubbards": hubbards, "software": "other"},
        data={"oxide_type": oxygen, "sulfide_type": sulphur},
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Failed to guess oxidation states")
        adjustments = _scheme().get_adjustments(entry)
    states = entry.data.get("oxidation_states", {})  # as pymatgen has just guessed them: of compounds only
    anions = [anion for anion in ANIONS if anion in composition]
    share = {f"MP2020 anion correction ({anion})": _charge(anion, composition, states) for anion in anions}
    return float(sum(one.value * min(1.0, share.get(one.name, 1.0)) for one in adjustments)) / composition.num_atoms


def _charge(anion: str, composition: Composition, states: Mapping[str, float]) -> float:
    """Electrons that an atom of ``anion`` has taken up; without oxidation states, the most that others could give."""
    if states.get(anion, 0.0) < 0:
        return -states[anion]
    given = 0.0
    for symbol, amount in composition.get_el_amt_dict().items():
        element = Element(symbol)
        if element.X < Element(anion).X:
            given += amount * max(element.common_oxidation_states or (0,))
    return given / composition[anion]


def hubbard_u(composition: Composition) -> dict[str, float]:
    """The Hubbard U (eV) of each element to which the Materials Project gives one in this compound; empty for GGA."""
    most_electronegative = max(composition.elements, key=lambda element: element.X)
    settings = _scheme().u_settings.get(most_electronegative.symbol, {})
    return {element.symbol: settings[element.symbol] for element in composition.elements if element.symbol in settings}
