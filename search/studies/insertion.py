"""What inserting guests into one host gains: voltage, insertion energy, volume change, and whether the host is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pymatgen.core import Composition

from model.analysis.electrode import average_voltage, host_kept
from model.analysis.voltage import ion_charge, voltage_curve
from model.crystals.crystal import Crystal
from model.potentials.catalog import DEFAULT
from model.relaxation.relax import Relaxation, may_be_ranked, relax
from model.stages import Relaxer
from model.symmetry.space_group import space_group
from model.thermodynamics.reference import packaged_reference
from search.studies.inpaint import Filled


@dataclass(frozen=True, eq=False)
class EmptyHost:
    """A host relaxed without guests, with which the filled one is compared.

    Attributes:
        given: as it was filled.
        relaxation: of the empty host.
        guest: element.
        guest_energy: eV/atom of its stable phase.
    """

    given: Crystal
    relaxation: Relaxation
    guest: str
    guest_energy: float

    @classmethod
    def of(cls, host: Crystal, guest: str, relaxer: Relaxer) -> EmptyHost | None:
        """Relax a host; None if that fails, or if no energy of the guest's element is known."""
        reference = packaged_reference(DEFAULT)
        (outcome,) = relax([host], relaxer.potential, relaxer.relaxation)
        if not may_be_ranked(outcome) or guest not in reference.elements:
            return None
        guest_energy = float(reference.of_system([guest])["energy_per_atom"].min())
        return cls(host, outcome, guest, guest_energy)

    @property
    def filled(self) -> Filled:
        """The empty host, as one without guests."""
        group = space_group(self.relaxation.final)
        nothing = np.zeros(len(self.given), dtype=bool)
        return Filled(self.relaxation.final, nothing, self.relaxation, group.symbol if group else "P1")

    def columns(self, filled: Filled) -> dict[str, Any]:
        """Of a filled host: average voltage (V) from empty, insertion energy (eV per guest) from the guest's element,
        volume change (%) relative to the relaxed empty host, and whether the host is kept (topotactic).
        """
        kept = host_kept(self.given, filled.crystal.select(~filled.guest))[0]
        if not filled.guest.any():
            return {**NOT_INSERTED, "volume_change_from_empty_percent": 0.0, "host_kept": kept}
        count, energy = int(filled.guest.sum()), filled.relaxation.energy_final * len(filled.crystal)
        empty = self.relaxation.energy_final * len(self.given)
        voltage = average_voltage(empty, energy, count, self.guest_energy, ion_charge(self.guest))
        return {
            "voltage": voltage,
            "insertion_energy": -voltage * ion_charge(self.guest),
            "volume_change_from_empty_percent": 100 * (filled.crystal.volume / self.relaxation.final.volume - 1),
            "host_kept": kept,
        }

    def step_voltages(self, filled: Mapping[int, Filled]) -> dict[int, float]:
        """Voltages of the plateaus between the contents on the hull of this host, the empty one included.

        Args:
            filled: number of guests in the cell -> the lowest arrangement.

        Returns:
            number of guests at the end of each plateau -> V.

        Raises:
            ValueError: the host as given contains the guest.
        """
        phases = [(self.given.formula, self.relaxation.energy_final)]
        phases += [(one.crystal.formula, one.relaxation.energy_final) for one in filled.values()]
        curve = voltage_curve(phases, self.guest, self.given.formula, guest_energy=self.guest_energy)
        units = len(self.given) / Composition(self.given.formula).num_atoms
        return {round(step.end * units): step.voltage for step in curve}


NOT_INSERTED: dict[str, Any] = {  # several kinds of guests, a region, a fixed host, or sites to order
    "voltage": None,
    "insertion_energy": None,
    "volume_change_from_empty_percent": None,
    "host_kept": None,
}
