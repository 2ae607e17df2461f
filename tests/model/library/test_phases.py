"""The library of known phases: what it lists, what its crystals are, what a blind search sees."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.crystals.crystal import Crystal
from model.library.phases import PACKAGED, PhaseLibrary, packaged_library, subsystems
from model.symmetry.space_group import REPORTED, space_group
from tests.support.crystals import rattled


@pytest.fixture(scope="module")
def library():
    return packaged_library()


def test_every_phase_is_near_the_hull_and_credited(library):
    assert len(library) == 60_095
    assert "CC BY 4.0" in library.about["source"] and library.about["within"] == 0.01
    listed = pq.read_table(PACKAGED, columns=["material_id", "e_above_hull"])
    assert len(set(listed["material_id"].to_pylist())) == len(library)
    heights = np.array(listed["e_above_hull"])
    assert heights.min() >= 0 and heights.max() <= 0.01


def test_silicon_and_rock_salt_are_as_in_textbooks(library):
    silicon, salt = library.crystal("mp-149"), library.find("NaCl")[0]
    assert silicon.formula == "Si" and (2 * np.cbrt(silicon.volume / 2) == pytest.approx(5.43, abs=0.05))
    assert salt.space_group == 225 and salt.crystal.formula == "NaCl" and len(salt.crystal) == 2


def test_a_system_has_its_subsystems_and_the_lowest_first(library):
    phases = library.phases(["P", "Li", "S"])
    assert {"Li", "P", "S", "Li2S", "Li3PS4", "Li7P3S11"} <= {phase.formula for phase in phases}
    assert {symbol for phase in phases for symbol in phase.crystal.symbols} == {"Li", "P", "S"}
    heights = [phase.e_above_hull for phase in phases]
    assert heights == sorted(heights) and heights[0] == 0.0
    assert all(phase.crystal.formula == phase.formula and len(phase.crystal) == phase.n_atoms for phase in phases)


def test_a_sample_of_crystals_has_exactly_the_groups_that_are_listed(library):
    ids = pq.read_table(PACKAGED, columns=["material_id"])["material_id"].to_pylist()[::1500]
    for phase in map(library.phase, ids):
        found = space_group(phase.crystal, REPORTED, -1.0)
        assert found is not None and found.number == phase.space_group, phase


def test_phases_are_found_by_formula_and_by_stoichiometry(library):
    assert {phase.formula for phase in library.find("Fe4O6")} == {"Fe2O3"}
    assert library.find("Fe7O") == []
    perovskites = library.of_stoichiometry("SrTiO3", 5)
    assert perovskites == library.of_stoichiometry("ABC3", 5) and len(perovskites) > 100
    assert {phase.n_atoms for phase in perovskites} == {5}


def test_an_unknown_identifier_is_an_error_with_the_remedy(library):
    assert "mp-149" in library and "mp-0" not in library
    with pytest.raises(ValueError, match=r"mp-0 is not in the library .* within 10 meV/atom .* as a file"):
        library.crystal("mp-0")


def test_what_is_left_out_is_invisible_and_the_rest_is_not(library):
    blind = library.without([["Li", "Si"]], ["Cl1Na1"])
    assert blind.phases(["Li", "Si"]) == [] and blind.find("NaCl") == [] and "mp-149" not in blind
    gone = library.phases(["Li", "Si"]) + library.find("NaCl")
    assert len(blind) == len(library) - len(gone)
    quartz = blind.find("SiO2")[0]
    assert np.array_equal(quartz.crystal.fractional, library.phase(quartz.material_id).crystal.fractional)


@pytest.mark.parametrize("name", ["mp-149", "mp-22862", "mp-1153", "mp-390", "mp-985583"])
def test_a_known_phase_is_known_in_any_cell_strained_and_shaken(library, name):
    """As a relaxation with another method leaves it: 2 % larger cell vectors, atoms moved by some 0.02 Å."""
    known = library.crystal(name)
    other = Crystal.from_pymatgen(known.to_pymatgen() * [[1, 1, 0], [0, 1, 0], [0, 0, 1]])
    shaken = rattled(other, width=0.01, seed=0)
    moved = shaken.replace(lattice=1.02 * shaken.lattice, fractional=shaken.fractional + np.array([0.1, 0.2, 0.3]))
    assert library.known(known) == library.known(moved) == name


def test_another_phase_of_the_formula_is_not_the_same(library):
    """Salt in the structure of caesium chloride is new, and so is every formula that the library has not."""
    salt = library.find("NaCl")[0].crystal
    without = library.without(formulas=["NaCl"])
    dense = Crystal(3.4 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
    assert library.known(salt) and without.known(salt) is None and library.known(dense) is None
    assert library.known(Crystal(9 * np.eye(3), [[0, 0, 0]], [95])) is None


def test_another_file_is_refused(tmp_path):
    pq.write_table(pa.table({"material_id": ["mp-1"]}), tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    for name, remedy in {"other": "makes one", "text": "not a library", "missing": "not a library"}.items():
        library = PhaseLibrary(tmp_path / f"{name}.parquet")  # reads nothing yet
        with pytest.raises(ValueError, match=remedy):
            len(library)


def test_subsystems():
    assert subsystems(["P", "Li", "S"]) == ["Li", "P", "S", "Li-P", "Li-S", "P-S", "Li-P-S"]
