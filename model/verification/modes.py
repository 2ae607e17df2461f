"""Following imaginary modes downhill, to the crystals that a dynamically unstable one distorts into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.crystals.crystal import Crystal
from model.crystals.matching import RELAXED, UNRELAXED, DistinctCrystals
from model.potentials.interface import Potential
from model.relaxation.polish import PolishSettings, polish
from model.relaxation.relax import Relaxation, RelaxSettings, relax
from model.symmetry.space_group import EXACT, REPORTED, SpaceGroup, refine
from model.verification.phonons import Mode, NoPhonons, Phonons, cells_of_wave, mode_displacements, phonons
from model.verification.settings import PhononSettings

AMPLITUDE = 0.3  # Å, largest displacement of an atom along an imaginary mode
FAR = 1.0  # Å, the same along a mode that is not, so that the crystal leaves its minimum
QUICK = PhononSettings(height=6, max_atoms=200)  # where the relaxation that follows decides
RELAX = RelaxSettings(fmax=0.02, keep_symmetry=True, symprec=EXACT)
POLISH = PolishSettings(tolerance=5e-5)  # energies of distortions are small
MOST_ATOMS = 120  # of the cell of a displaced crystal; modes of longer waves are not followed
LOWER = 1e-4  # eV/atom, by which a distorted crystal must lie lower to be another one


@dataclass(frozen=True, eq=False, kw_only=True)
class Followed:
    """A crystal at the end of an imaginary mode.

    Attributes:
        crystal: relaxed, the primitive cell.
        energy: eV/atom.
        fall: eV/atom below the crystal whose mode was followed.
        space_group: None if spglib finds none.
    """

    crystal: Crystal
    energy: float
    fall: float
    space_group: SpaceGroup | None


def displaced_both_ways(found: Phonons, mode: Mode, amplitude: float = AMPLITUDE) -> list[Crystal]:
    """The crystal displaced along a mode and against it, in the primitive cells of the displaced crystals.

    Args:
        found: phonons.
        mode: one of them.
        amplitude: Å, largest displacement of an atom.
    """
    supercell, moves = mode_displacements(found, mode)
    results = []
    for way in (amplitude, -amplitude):
        fractional = supercell.fractional + way * moves @ np.linalg.inv(supercell.lattice)
        displaced = supercell.replace(fractional=fractional)
        refined = refine(displaced, EXACT, -1.0)
        results.append(refined.crystal if refined else displaced)
    return results


def follow_modes(found: Phonons, potential: Potential, *, most: int) -> list[Followed]:
    """Relax the crystal from both ways along its imaginary modes.

    Args:
        found: phonons.
        potential: that gave them.
        most: number of modes that are followed, the lowest first.

    Returns:
        each crystal that ends lower once, the lowest first, which is polished.
    """
    small = [mode for mode in found.imaginary if _atoms(found, mode) <= MOST_ATOMS]
    ways = [one for mode in small[:most] for one in displaced_both_ways(found, mode)]
    lower = _lower(relax(_distinct(ways), potential, RELAX), found.energy)
    polished = _lower(polish([one.crystal for one in lower[:1]], potential, RELAX, POLISH), found.energy)
    return [*polished, *lower[len(polished) :]]


def ways_along_modes(crystal: Crystal, potential: Potential, *, most: int = 2) -> list[Crystal]:
    """A crystal displaced along its lowest modes, imaginary or not; not relaxed.

    Args:
        crystal: near a minimum or a saddle point.
        potential: gives its phonons.
        most: number of modes.

    Returns:
        distinct crystals with as many atoms as this one; none if its phonons cannot be computed.
    """
    try:
        found = phonons(crystal, potential, QUICK)
    except NoPhonons:
        return []
    fitting = [mode for mode in found.modes if _atoms(found, mode) == len(crystal)]
    amplitudes = [AMPLITUDE if mode in found.imaginary else FAR for mode in fitting[:most]]
    ways = [
        one for mode, far in zip(fitting, amplitudes, strict=False) for one in displaced_both_ways(found, mode, far)
    ]
    return [one for one in _distinct(ways) if len(one) == len(crystal)]


def _atoms(found: Phonons, mode: Mode) -> int:
    """In the smallest supercell that holds a mode."""
    return len(found.crystal) * round(abs(np.linalg.det(cells_of_wave(mode.wave_vector, found.crystal.lattice))))


def _distinct(crystals: Sequence[Crystal]) -> list[Crystal]:
    """Each crystal once; the two ways along a mode are often the same one."""
    distinct = DistinctCrystals(UNRELAXED)
    return [one for one in crystals if distinct.add(one) is None]


def _lower(relaxed: Sequence[Relaxation], energy: float) -> list[Followed]:
    """The distinct ones below an energy (eV/atom), lowest first."""
    distinct, results = DistinctCrystals(RELAXED), []
    for one in sorted((one for one in relaxed if one.converged), key=lambda one: one.energy_final):
        fall = energy - one.energy_final
        refined = refine(one.final, REPORTED, -1.0)
        crystal, group = (refined.crystal, refined.space_group) if refined else (one.final, None)
        if fall > LOWER and distinct.add(crystal, energy=one.energy_final) is None:
            results.append(Followed(crystal=crystal, energy=one.energy_final, fall=fall, space_group=group))
    return results
