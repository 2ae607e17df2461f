"""What one host and one ion can store: how many guests, how much charge and energy, and how the host changes."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from pymatgen.core import Composition, Element
from scipy.constants import Avogadro, elementary_charge

from model.crystals.crystal import Crystal
from model.crystals.matching import same_framework
from model.crystals.periodic_images import rounded_steps

MAH = elementary_charge * Avogadro / 3.6  # mAh in one mole of electrons, 26,801
ANGSTROM3_PER_MOLE = Avogadro * 1e-24  # cm³ in one mole of Å³
ANIONS = {"F": 1, "O": 2, "Cl": 1, "N": 3, "Br": 1, "I": 1, "S": 2, "Se": 2, "Te": 2}  # and their negative charges
STRONGEST = ("F", "O", "Cl")  # where one of them is present, N, S, Se and Te are cations
# Lowest states that d metals reach in insertion hosts; of other cations the highest common state, which they keep.
LOWEST_STATES = {
    **dict.fromkeys(("Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Mo", "W", "Nb", "Ta", "Re"), 2),
    **dict.fromkeys(("Cu", "Ag"), 1),
    **dict.fromkeys(("Ru", "Rh", "Ir", "Os", "Pd", "Pt"), 2),
}
LOWEST_P_WITH_SULPHUR = 4  # as in P2S6


def electrons_taken_up(host: str | Composition) -> int | None:
    """Electrons that a formula unit of a host takes up until no cation can be reduced further.

    Anions have their full charge; d metals the lowest states that are known from insertion (`LOWEST_STATES`); other
    cations keep the highest of their common states.

    Returns:
        a whole number, or None for a host without anions, such as carbon or an alloy, to which this does not apply.

    Example:
        >>> [electrons_taken_up(host) for host in ("CoO2", "FePO4", "V2O5", "MgO", "C6")]
        [2, 1, 6, 0, None]
    """
    counts = Composition(host).get_el_amt_dict()
    strongest = [element for element in STRONGEST if element in counts]
    anions = strongest or [element for element in ANIONS if element in counts]
    if not anions:
        return None
    negative = sum(ANIONS[element] * counts[element] for element in anions)
    positive = sum(_lowest_state(element, anions) * n for element, n in counts.items() if element not in anions)
    return max(0, math.floor(negative - positive + 1e-9))


def _lowest_state(element: str, anions: list[str]) -> int:
    if element in LOWEST_STATES:
        return LOWEST_STATES[element]
    if element == "P" and not set(anions) & set(STRONGEST):
        return LOWEST_P_WITH_SULPHUR
    return max((*Element(element).common_oxidation_states, 0))


def guest_limit(host: Composition, charge: int) -> int | None:
    """Most guests of this charge that the charges in a cell allow; None where they set no limit."""
    taken = electrons_taken_up(host)
    return None if taken is None else taken // abs(charge)


def spread_contents(most: int, steps: int) -> list[int]:
    """Up to ``steps`` numbers of guests from 1 to ``most``, as evenly spaced as whole numbers allow.

    >>> spread_contents(8, 4), spread_contents(3, 4), spread_contents(0, 4)
    ([2, 4, 6, 8], [1, 2, 3], [])
    """
    return sorted({math.ceil(most * step / steps) for step in range(1, steps + 1)} - {0})


def supercell_for(host: Crystal, content: Fraction, max_atoms: int) -> tuple[int, int, int] | None:
    """Smallest multiple of a cell along its axes in which a content per cell is a whole number of guests.

    Shorter axes are multiplied first, so that the cell stays compact. None if it would exceed ``max_atoms`` with its
    guests.
    """
    times = content.denominator
    lengths = np.linalg.norm(host.lattice, axis=1)
    ways = [(a, b, times // a // b) for a in range(1, times + 1) for b in range(1, times + 1) if times % (a * b) == 0]
    best = min(ways, key=lambda way: sorted((lengths * way).tolist(), reverse=True))
    return best if times * (len(host) + content) <= max_atoms else None


def gravimetric_capacity(host: str | Composition, guest: str, x: float, charge: int) -> float:
    """mAh per gram of the host with ``x`` guests per formula unit.

    >>> round(gravimetric_capacity("CoO2", "Li", 1.0, 1), 1)
    273.8
    """
    mass = Composition(host).weight + x * Element(guest).atomic_mass
    return float(x * abs(charge) * MAH / mass)


def volumetric_capacity(volume: float, x: float, charge: int) -> float:
    """mAh per cm³ of the full host, of volume (Å³ per formula unit) with ``x`` guests."""
    return float(x * abs(charge) * MAH / (volume * ANGSTROM3_PER_MOLE))


def average_voltage(empty: float, full: float, x: float, guest_energy: float, charge: int) -> float:
    """V against the guest's element, between energies (eV per formula unit of the host) without and with x guests.

    V = −(E_full − E_empty − x E_guest) / (x z), Aydinol et al., Phys. Rev. B 56, 1354 (1997).
    """
    return -(full - empty - x * guest_energy) / (x * charge)


def host_kept(before: Crystal, after: Crystal) -> tuple[bool, float]:
    """Whether a host is still the same framework, and how far its atoms have moved.

    Args:
        before, after: without guests, atoms in the same order, cells that may differ in shape.

    Returns:
        whether no atom is displaced by more than 0.3 times the mean spacing on average, or pymatgen's StructureMatcher
        maps one onto the other within that (`same_framework`); and the root-mean-square displacement in Å, in the mean
        of the two cells and without a common translation.
    """
    lattice = (before.lattice + after.lattice) / 2
    steps = rounded_steps(after.fractional - before.fractional)
    moves = (steps - steps.mean(0)) @ lattice
    rms = float(np.sqrt((moves**2).sum(1).mean()))
    limit = 0.3 * np.cbrt(abs(np.linalg.det(lattice)) / len(before))
    return bool(rms <= limit) or same_framework(before, after), rms
