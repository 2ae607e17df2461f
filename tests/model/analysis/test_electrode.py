"""Capacities against textbook values, charges against known end members, hosts that move and hosts that do not."""

from fractions import Fraction

import numpy as np
import pytest
from pymatgen.core import Composition

from model.analysis.electrode import (
    average_voltage,
    electrons_taken_up,
    gravimetric_capacity,
    guest_limit,
    host_kept,
    spread_contents,
    supercell_for,
    volumetric_capacity,
)
from model.crystals.crystal import Crystal


@pytest.mark.parametrize(
    ("host", "guest", "x", "charge", "expected"),
    [
        ("CoO2", "Li", 1, 1, 273.8),  # mAh/g of LiCoO2, as in textbooks
        ("FePO4", "Li", 1, 1, 169.9),
        ("Mn2O4", "Li", 1, 1, 148.2),
        ("TiS2", "Li", 1, 1, 225.3),
        ("C6", "Li", 1, 1, 339.2),  # of LiC6; 372 per gram of carbon
        ("V2(PO4)3", "Na", 3, 1, 176.3),
        ("Mo6S8", "Mg", 2, 2, 121.9),
    ],
)
def test_capacities_are_those_of_textbooks(host, guest, x, charge, expected):
    assert gravimetric_capacity(host, guest, x, charge) == pytest.approx(expected, abs=0.5)


def test_a_volume_that_holds_one_electron_per_cubic_angstrom():
    # 1 e/Å³ = 1.602e-19 C / 1e-24 cm³ = 160,218 C/cm³ = 44,505 mAh/cm³
    assert volumetric_capacity(1.0, 1.0, 1) == pytest.approx(44505, rel=1e-4)
    assert volumetric_capacity(2.0, 1.0, 2) == pytest.approx(44505, rel=1e-4)


@pytest.mark.parametrize(
    ("host", "electrons"),
    [
        ("CoO2", 2), ("FePO4", 1), ("Mn2O4", 4), ("V2O5", 6), ("TiS2", 2), ("TiS3", 4), ("MoS2", 2), ("Mo6S8", 4),
        ("MnPS3", 0), ("MgO", 0), ("NaCl", 0), ("Ti5O12", 14), ("VOPO4", 3), ("FeF3", 1), ("C6", None), ("LiAl", None),
    ],
)  # fmt: skip
def test_electrons_follow_from_the_lowest_states_of_the_metals(host, electrons):
    assert electrons_taken_up(host) == electrons


def test_a_guest_of_two_charges_fits_half_as_often():
    assert guest_limit(Composition("V4O10"), 1) == 12
    assert guest_limit(Composition("V4O10"), 2) == 6
    assert guest_limit(Composition("Fe3(PO4)3"), 2) == 1  # three electrons: one whole ion of charge 2
    assert guest_limit(Composition("C6"), 1) is None


def test_contents_reach_the_full_host():
    assert spread_contents(12, 4) == [3, 6, 9, 12]
    assert spread_contents(7, 3) == [3, 5, 7]


def test_supercells_hold_whole_guests_and_stay_compact():
    host = Crystal(np.diag([3.0, 4.0, 12.0]), [[0, 0, 0]], [22])
    assert supercell_for(host, Fraction(2), 10) == (1, 1, 1)
    assert supercell_for(host, Fraction(1, 2), 10) == (2, 1, 1)
    assert supercell_for(host, Fraction(1, 4), 10) == (2, 2, 1)
    assert supercell_for(host, Fraction(1, 4), 4) is None


def test_the_voltage_is_the_energy_per_charge():
    # A reaction that gains 4 eV per guest: 4 V for a charge of 1, 2 V for 2.
    assert average_voltage(-20.0, -26.0, 1.0, -2.0, 1) == pytest.approx(4.0)
    assert average_voltage(-20.0, -32.0, 2.0, -2.0, 2) == pytest.approx(2.0)


def test_a_strained_host_is_kept_and_a_scrambled_one_is_not(licoo2):
    host = licoo2.select(licoo2.numbers != 3)
    strained = host.replace(lattice=host.lattice @ np.diag([1.03, 0.98, 1.05]), fractional=host.fractional + 0.2)
    kept, moved = host_kept(host, strained)
    assert kept and moved == pytest.approx(0, abs=1e-9)
    other = host.replace(fractional=host.fractional[[1, 0, 2]])  # Co and one O have changed places
    kept, moved = host_kept(host, other)
    assert not kept and moved > 0.5
