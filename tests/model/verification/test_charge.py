"""Charge balance of crystals whose oxidation states are known."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from model.crystals.crystal import Crystal
from model.verification.charge import Balance, charge_balance, homonuclear_bonds
from tests.support.crystals import olivine


def made(group, lattice, species, sites):
    return Crystal.from_pymatgen(Structure.from_spacegroup(group, lattice, species, sites))


def rock_salt(cation, anion, a):
    return made("Fm-3m", Lattice.cubic(a), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


def peroxide():
    """BaO2 in CaC2's type, O–O 1.49 Å."""
    return made("I4/mmm", Lattice.tetragonal(3.81, 6.84), ["Ba", "O"], [[0, 0, 0], [0, 0, 0.391]])


def pyrite():
    return made("Pa-3", Lattice.cubic(5.416), ["Fe", "S"], [[0, 0, 0], [0.3849, 0.3849, 0.3849]])


def magnetite():
    sites = [[0, 0, 0], [0.625, 0.625, 0.625], [0.3799, 0.3799, 0.3799]]
    return made("Fd-3m", Lattice.cubic(8.394), ["Fe", "Fe", "O"], sites)


def dumbbells():
    """CaC2: C–C 1.20 Å, a triple bond."""
    return made("I4/mmm", Lattice.tetragonal(3.89, 6.37), ["Ca", "C"], [[0, 0, 0], [0, 0, 0.4058]])


def casi():
    """CaSi: zigzag chains of Si, two bonds each."""
    lattice = Lattice.orthorhombic(4.560, 10.731, 3.890)
    return made("Cmcm", lattice, ["Ca", "Si"], [[0, 0.36, 0.25], [0, 0.07, 0.25]])


@pytest.mark.parametrize(
    ("crystal", "states"),
    [
        (rock_salt("Na", "Cl", 5.64), {"Na": 1, "Cl": -1}),
        (rock_salt("Ti", "N", 4.24), {"Ti": 3, "N": -3}),
        (olivine(), {"Li": 1, "Fe": 2, "P": 5, "O": -2}),
        (rock_salt("Na", "H", 4.88), {"Na": 1, "H": -1}),
    ],
    ids=lambda value: value.formula if isinstance(value, Crystal) else "",
)
def test_common_states_balance(crystal, states):
    found = charge_balance(crystal)
    assert found.kind is Balance.BALANCED
    assert found.states == states


def test_bonds_tell_a_peroxide_from_an_oxide_without_balance():
    assert charge_balance(peroxide()).kind is Balance.BONDED
    assert charge_balance(peroxide()).states == {"Ba": 2, "O": -1}
    assert charge_balance(peroxide()).text.startswith("peroxide")
    assert charge_balance(rock_salt("Li", "O", 4.2)).kind is Balance.NONE


def test_bonds_between_anions_save_electrons():
    assert charge_balance(pyrite()).states == {"Fe": 2, "S": -1}
    assert homonuclear_bonds(dumbbells()) == {"C": 3}
    assert charge_balance(dumbbells()).states == {"Ca": 2, "C": -1}


def test_chains_of_a_zintl_phase_balance():
    found = charge_balance(casi())
    assert found.kind is Balance.ZINTL and found.bonds == {"Si": 2}
    assert found.states == {"Ca": 2, "Si": -2}


def test_mixed_valence_is_named():
    found = charge_balance(magnetite())
    assert found.kind is Balance.MIXED
    assert found.text.startswith("mixed valence: Fe2+ and Fe3+")
    assert found.states["Fe"] == pytest.approx(8 / 3)


def test_metals_are_intermetallic_and_an_element_is_one():
    assert charge_balance(rock_salt("Ni", "Al", 5.0)).kind is Balance.INTERMETALLIC
    assert charge_balance(Crystal(3.5 * np.eye(3), [[0, 0, 0]], [3])).kind is Balance.ELEMENT


@pytest.mark.parametrize("anion", ["Cl", "F", "Br"])
@pytest.mark.parametrize("cation", ["Ca", "Al", "Zn"])
def test_one_to_one_halides_of_such_metals_do_not_balance(cation, anion):
    found = charge_balance(rock_salt(cation, anion, 5.5))
    assert found.kind is Balance.NONE and not found.fine
