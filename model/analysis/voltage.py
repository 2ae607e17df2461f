"""Voltages between the stable phases of a guest in a host."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pymatgen.core import Composition, Element

# Of guests between the layers of sulphides and in Chevrel phases; of others the lowest positive common state.
GUEST_CHARGES = {"Cu": 1, "Au": 1, "Hg": 2, "V": 3}


@dataclass(frozen=True)
class VoltageStep:
    """A plateau of a voltage curve.

    Attributes:
        start, end: guests per formula unit of the host, before and after.
        phases: formulas of the two ends.
        voltage: V against the guest's element.
    """

    start: float
    end: float
    phases: tuple[str, str]
    voltage: float


def voltage_curve(
    phases: Sequence[tuple[str, float]], guest: str, host: str, *, guest_energy: float, charge: int | None = None
) -> list[VoltageStep]:
    """Average voltages between the stable phases of a guest in a host (Aydinol et al., Phys. Rev. B 56, 1354 (1997)).

    V = -(E(x₂) - E(x₁) - (x₂ - x₁) E_guest) / (x₂ - x₁) / z, energies per formula unit of the host; entropy and volume
    work are neglected. Phases above the hull on the line from host to guest are omitted, as are phases that could only
    be reached at a negative voltage. Only formulas and energies are needed, whereas pymatgen's InsertionElectrode needs
    a structure for each phase.

    Args:
        phases: (formula, eV/atom) of all known phases; those that do not consist of host and guest are omitted.
        guest: element.
        host: formula unit, for example ``MnO2``.
        guest_energy: eV/atom of the guest's element.
        charge: z of the guest's ion (default: `ion_charge`).

    Returns:
        steps by increasing guest content, with decreasing voltages; none if fewer than two stable phases are known.

    Example:
        >>> phases = [("CoO2", -6.0), ("LiCoO2", -6.0)]
        >>> for step in voltage_curve(phases, "Li", "CoO2", guest_energy=-1.9):
        ...     print(step.start, step.end, step.phases, round(step.voltage, 2))
        0.0 1.0 ('CoO2', 'LiCoO2') 4.1
    """
    guest_content(host, guest, host)  # raises if the host contains the guest
    if charge == 0:
        raise ValueError("the charge of the guest's ion must not be 0")
    lowest: dict[float, tuple[float, str]] = {}
    for formula, energy in phases:
        x = guest_content(formula, guest, host)
        if x is None:
            continue
        total = energy * (Composition(host).num_atoms + x) - x * guest_energy
        lowest[x] = min(lowest.get(x, (np.inf, "")), (total, formula))
    fullest = min(lowest, key=lambda x: lowest[x][0], default=0.0)
    hull = _lower_hull([(x, *lowest[x]) for x in sorted(lowest) if x <= fullest])
    z = ion_charge(guest) if charge is None else charge
    return [
        VoltageStep(x1, x2, (one, other), -(e2 - e1) / (x2 - x1) / z)
        for (x1, e1, one), (x2, e2, other) in itertools.pairwise(hull)
    ]


def ion_charge(guest: str) -> int:
    """Usual charge of a guest's ion in a host: negative for halogens and chalcogens.

    For others it is that of `GUEST_CHARGES` (Whittingham, Prog. Solid State Chem. 12, 41 (1978)), or the lowest
    positive one of pymatgen's common oxidation states.

    Raises:
        ValueError: the element forms no ions.

    Example:
        >>> [ion_charge(guest) for guest in ("Li", "Cu", "Fe", "Mg", "Al", "F")]
        [1, 1, 2, 2, 3, -1]
    """
    element = Element(guest)
    states = element.common_oxidation_states
    if not states:
        raise ValueError(f"{guest} has no usual ionic charge: give it with --charge")
    if element.is_halogen or element.is_chalcogen:
        return int(min(states))
    return GUEST_CHARGES.get(guest) or int(min(state for state in states if state > 0))


def ion_name(guest: str, charge: int) -> str:
    """A guest's ion, for example ``Li+`` or ``Mg2+``."""
    return f"{guest}{abs(charge) if abs(charge) > 1 else ''}{'+' if charge > 0 else '-'}"


def guest_content(formula: str, guest: str, host: str) -> float | None:
    """Guests per formula unit of the host in a crystal; None if it does not consist of these two.

    Raises:
        ValueError: the host contains the guest.
    """
    unit, composition = Composition(host), Composition(formula)
    if guest in unit:
        raise ValueError(f"the host {host} contains the guest {guest}")
    rest = Composition({element: n for element, n in composition.items() if element.symbol != guest})
    if not rest or rest.reduced_formula != unit.reduced_formula:
        return None
    return round(composition[guest] * unit.num_atoms / rest.num_atoms, 9)


def _lower_hull(points: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Lower convex hull of points sorted by x (Andrew's monotone chain)."""
    hull: list[tuple[float, float, str]] = []
    for point in points:
        while len(hull) > 1 and _slope(hull[-2], point) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(point)
    return hull


def _slope(one: tuple[float, float, str], other: tuple[float, float, str]) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])
