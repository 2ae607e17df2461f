"""What inserting guests into one host gains: voltage, insertion energy, volume change, and whether the host is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model.analysis.electrode import average_voltage, host_kept
from model.analysis.voltage import ion_charge
from model.crystals.crystal import Crystal
from model.potentials.catalog import DEFAULT
from model.relaxation.relax import may_be_ranked, relax
from model.stages import Relaxer
from model.thermodynamics.reference import packaged_reference
from search.studies.inpaint import Filled


@dataclass(frozen=True, eq=False)
class EmptyHost:
    """A host relaxed without guests, with which the filled one is compared.

    Attributes:
        given: as it was filled.
        energy: eV per cell, relaxed.
        volume: Å³, relaxed.
        guest: element.
        guest_energy: eV/atom of its stable phase.
    """

    given: Crystal
    energy: float
    volume: float
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
        return cls(host, outcome.energy_final * len(host), outcome.final.volume, guest, guest_energy)

    def columns(self, filled: Filled) -> dict[str, Any]:
        """Of a filled host: average voltage (V) from empty, insertion energy (eV per guest) from the guest's element,
        volume change (%) relative to the relaxed empty host, and whether the host is kept (topotactic).
        """
        count, energy = int(filled.guest.sum()), filled.relaxation.energy_final * len(filled.crystal)
        voltage = average_voltage(self.energy, energy, count, self.guest_energy, ion_charge(self.guest))
        return {
            "voltage": voltage,
            "insertion_energy": -voltage * ion_charge(self.guest),
            "volume_change_from_empty_percent": 100 * (filled.crystal.volume / self.volume - 1),
            "host_kept": host_kept(self.given, filled.crystal.select(~filled.guest))[0],
        }


NOT_INSERTED: dict[str, Any] = {  # several kinds of guests, a region, a fixed host, or sites to order
    "voltage": None,
    "insertion_energy": None,
    "volume_change_from_empty_percent": None,
    "host_kept": None,
}
