"""Verdicts, and the known crystals that are like a crystal."""

import numpy as np
import pytest

from model.crystals.crystal import Crystal
from model.library.phases import packaged_library
from model.verification.charge import Balance, ChargeBalance
from model.verification.known_types import nearest_type
from model.verification.verdict import Energy, Grade, Lattice, verdict

BALANCED = ChargeBalance(kind=Balance.BALANCED, states={"Li": 1, "Cl": -1}, text="balanced: Li+ Cl−")
UNBALANCED = ChargeBalance(kind=Balance.NONE, states={}, text="not balanced: no states of Li, Cl add up to zero")
LOW = Energy(e_d=0.012, error=0.029, source="a potential")


def lattice(lowest=1.2, *, fall=None, elastic=True, interpolated=0.0):
    return Lattice(
        lowest=lowest, imaginary=lowest < -0.1, interpolated=interpolated, fall=fall, leads_to="R-3c", elastic=elastic
    )


@pytest.mark.parametrize(
    ("known", "balance", "energy", "moves", "grade", "words"),
    [
        (None, BALANCED, LOW, lattice(), Grade.WORTH_DFT, "a minimum (lowest mode 1.2 THz)"),
        (None, BALANCED, LOW, None, Grade.WORTH_DFT, "phonons not computed"),
        ("mp-1", BALANCED, LOW, lattice(), Grade.KNOWN, "known: mp-1 of the library"),
        (None, UNBALANCED, LOW, lattice(), Grade.DOUBTFUL, "not balanced"),
        (None, BALANCED, LOW, lattice(elastic=False), Grade.DOUBTFUL, "gives way to a strain"),
        (None, BALANCED, LOW, lattice(-1.5, fall=4.2), Grade.DISTORTS, "distorts to R-3c, 4.2 meV/atom lower"),
        (None, BALANCED, LOW, lattice(-1.5), Grade.WORTH_DFT, "but nothing lower along it"),
        (None, BALANCED, Energy(e_d=0.2, error=0.029, source="x"), lattice(), Grade.TOO_HIGH, "200 meV/atom above"),
        (None, BALANCED, Energy(e_d=None, error=None, source=""), lattice(), Grade.WORTH_DFT, "is not known"),
        (None, BALANCED, LOW, lattice(interpolated=-0.9), Grade.WORTH_DFT, "falls to -0.9 THz"),
    ],
)
def test_verdicts_follow_from_what_was_found(known, balance, energy, moves, grade, words):
    found = verdict(known=known, balance=balance, energy=energy, lattice=moves)
    assert found.grade is grade
    assert words in found.text and found.text.startswith(f"{grade}: ")


def test_the_error_is_part_of_the_verdict():
    found = verdict(known=None, balance=BALANCED, energy=LOW, lattice=None)
    assert "12 meV/atom above the hull, ± 29 (a potential)" in found.text


def rock_salt(a, cation, anion):
    return Crystal(a / 2 * (1 - np.eye(3)), [[0, 0, 0], [0.5, 0.5, 0.5]], [cation, anion])


def test_a_known_crystal_is_recognised_in_another_setting():
    library = packaged_library()
    assert library.known(rock_salt(5.7, 11, 17)) == library.find("NaCl")[0].material_id
    caesium_type = Crystal(3.4 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
    assert library.known(caesium_type) is None


def test_ion_exchange_is_recognised():
    found = nearest_type(rock_salt(5.0, 26, 16), packaged_library())  # FeS in rock salt's type
    assert found is not None and found.exchange
    assert set(found.ions.values()) == {"Fe", "S"}


def test_a_crystal_of_no_known_type_is_said_to_be_one():
    """Two kinds of layers stacked as no known crystal of this stoichiometry and group is."""
    cell = np.diag([3.0, 3.0, 30.0])
    crystal = Crystal(cell, [[0, 0, 0], [0, 0, 0.11], [0, 0, 0.3], [0.5, 0.5, 0.6], [0, 0, 0.9]], [3, 14, 3, 14, 3])
    found = nearest_type(crystal, packaged_library())
    assert found is None or not found.exchange
