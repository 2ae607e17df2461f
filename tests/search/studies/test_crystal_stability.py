"""E_d of crystals from files: against the hull of whichever chemical system each of them has."""

import math

import pandas as pd
import pytest
from ase import Atoms

from model.crystals.crystal import Crystal
from model.thermodynamics.reference import build_reference_table, packaged_reference
from model.thermodynamics.stability import Stability
from search.studies.crystal_stability import NONE, CrystalStability
from tests.support.data import ENERGIES


def crystal(formula):
    """Atoms anywhere; only their numbers count here."""
    return Crystal.from_ase(Atoms(formula, cell=[20, 20, 20], pbc=True))


@pytest.mark.parametrize("formula", ["Si2", "Li5Si2", "MgO", "Li7P3S11", "Na3V2P3O12"])
def test_it_is_that_of_the_chemical_system_of_the_crystal(formula):
    one = crystal(formula)
    columns = CrystalStability("chgnet-0.3.0").columns(one, -3.0)
    expected = Stability(packaged_reference(), set(one.symbols)).decomposition(one.composition, -3.0)
    assert columns["e_d"] == expected.e_d
    assert columns["products"] == " + ".join(f"{share:.2f} {name}" for name, share in expected.products.items())
    assert columns["e_d_missing"] == ""


@pytest.mark.parametrize(
    ("settings", "formula", "why"),
    [
        ({}, "AmO2", "no phase of Am"),
        ({}, "RaPoO2", "no phase of Po, Ra"),
        ({"potential": "chgnet-r2scan"}, "CaO", "no phase of Ca"),
        ({"pressure": 5.0}, "MgO", "phases are not known under pressure"),
    ],
)
def test_where_there_is_none_it_says_why(settings, formula, why):
    stability = CrystalStability(settings.pop("potential", "chgnet-0.3.0"), **settings)
    assert stability.columns(crystal(formula), -3.0) == pytest.approx(
        {**NONE, "e_d_missing": why, "known": "new"}, nan_ok=True
    )


def test_without_an_energy_it_says_nothing():
    assert CrystalStability("chgnet-0.3.0").columns(crystal("MgO"), math.nan) == pytest.approx(NONE, nan_ok=True)


@pytest.fixture
def table(tmp_path):
    """A reference of CHGNet energies of the phases that come with the tests."""
    return build_reference_table(
        ENERGIES, tmp_path / "mine.parquet", name="mine", potential="chgnet-0.3.0", version="1", source="tests"
    )


def test_a_table_of_the_users_own_counts_instead(table):
    own = CrystalStability("chgnet-0.3.0", table)
    phases = pd.read_parquet(table).set_index("formula")["energy_per_atom"]
    found = own.columns(crystal("Li2Si"), phases["Li2Si"] + 0.01)
    assert found["e_d"] == pytest.approx(0.01)
    assert found["products"] == "1.00 Li2Si*"  # the table holds a single point
    assert own.columns(crystal("NaCl"), -3.0)["e_d_missing"] == "no phase of Cl"


@pytest.mark.parametrize(
    ("name", "potential", "words"),
    [
        ("nowhere.parquet", "chgnet-0.3.0", "--reference .*nowhere.parquet does not exist"),
        ("phases.json", "chgnet-0.3.0", "give a .parquet table"),
        ("mine.parquet", "chgnet-r2scan", "energies of 'chgnet-0.3.0' cannot be compared with chgnet-r2scan"),
    ],
)
def test_a_reference_that_cannot_be_used_is_refused(table, tmp_path, name, potential, words):
    (tmp_path / "phases.json").write_text("[]")
    with pytest.raises(ValueError, match=words):
        CrystalStability(potential, tmp_path / name)
