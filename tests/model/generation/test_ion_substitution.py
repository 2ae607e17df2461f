"""Structure types, and crystals made by ion exchange."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.crystals.neighbors import pair_distances
from model.generation.ion_substitution import PACKAGED_TYPES, SYMPREC, collect, read, substitutions
from model.symmetry.space_group import space_group


def rock_salt(cation, anion, a):
    structure = Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return Crystal.from_pymatgen(structure.get_primitive_structure())


def caesium_chloride(a):
    return Crystal(np.eye(3) * a, [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17])


def test_compounds_of_one_type_are_counted_and_the_first_stands_for_all():
    crystals = {"a": rock_salt("Na", "Cl", 5.64), "b": caesium_chloride(4.12), "c": rock_salt("Mg", "O", 4.21)}
    some = {one.name: one for one in read(collect(crystals.items()))}
    assert {name: one.compounds for name, one in some.items()} == {"a": 2, "b": 1}
    assert some["a"].electronegativity == {
        11: pytest.approx((0.93 + 1.31) / 2),
        17: pytest.approx((3.16 + 3.44) / 2, abs=0.01),
    }


def test_a_blind_search_does_not_see_the_types_of_its_own_system():
    cell = CellFormula.parse("MgO")
    every = substitutions(cell)
    hidden = frozenset({*every[0].prototype.crystal.symbols, "Ar"})
    blind = substitutions(cell, hidden)
    own = [one for one in every if set(one.prototype.crystal.symbols) <= hidden]
    names = [one.prototype.name for one in blind]
    assert own and names == [one.prototype.name for one in every if one not in own]


def test_the_table_gives_the_crystal_back(licoo2):
    (back,) = read(collect([("x", licoo2)]))
    assert np.array_equal(np.sort(back.crystal.numbers), np.sort(licoo2.numbers))
    assert StructureMatcher(scale=False).fit(back.crystal.to_pymatgen(), licoo2.to_pymatgen())
    assert space_group(back.crystal, SYMPREC).symbol == "R-3m"


@pytest.mark.parametrize("formula", ["LiSi", "Li2Si", "Li8Si4", "ZnP2S6", "LiCoO2"])
def test_exchanged_crystals_have_the_atoms_and_the_volume_asked_for(formula):
    cell = CellFormula.parse(formula)
    found = substitutions(cell)
    assert len(found) > 5
    for one in found:
        crystal = one.crystal(17.0 * cell.n_atoms)
        assert np.array_equal(crystal.numbers, cell.numbers)
        assert crystal.volume == pytest.approx(17.0 * cell.n_atoms)
    distances = [one.substitution_distance for one in found]
    assert distances == sorted(distances)


def test_rock_salt_is_known_for_oxides_of_one_to_one():
    salt = rock_salt("Mg", "O", 4.21)
    matcher = StructureMatcher(scale=False)
    crystals = [one.crystal(salt.volume).to_pymatgen() for one in substitutions(CellFormula.parse("MgO"))[:3]]
    assert any(matcher.fit(salt.to_pymatgen(), crystal) for crystal in crystals)


def test_atoms_are_moved_only_when_asked_and_always_in_the_same_way():
    one = substitutions(CellFormula.parse("Li8Si4"))[0]
    plain, moved, again = one.crystal(200.0), *(one.crystal(200.0, np.random.default_rng(7)) for _ in range(2))
    assert moved.identity == again.identity != plain.identity
    step = moved.fractional - plain.fractional
    step = (step - np.round(step)) @ plain.lattice
    assert 0.05 < np.sqrt(np.square(step).sum(1).mean()) < 0.2


def test_both_ways_round_when_as_many_atoms_of_each_and_their_places_differ():
    ways = Counter(one.prototype.name for one in substitutions(CellFormula.parse("Mg2O2")))
    assert set(ways.values()) == {1, 2}
    assert set(Counter(one.prototype.name for one in substitutions(CellFormula.parse("MgO"))).values()) == {1}


def test_the_packaged_types_are_crystals():
    for formula in ("LiSi", "Li2Si", "Li6P2S8"):
        for one in substitutions(CellFormula.parse(formula)):
            assert pair_distances(one.prototype.crystal, cutoff=6.0)[2].min() > 0.7


def test_no_packaged_type_loses_its_space_group_to_rounding():
    table = pd.read_parquet(PACKAGED_TYPES)
    groups = dict(zip(table["name"], table["space_group"], strict=True))
    assert groups["mp-1207770"] == 140  # I4/mcm, which 1/1200 of a cell is too coarse for
    found = {one.name: space_group(one.crystal, SYMPREC) for one in read(table)}
    assert {name: group and group.number for name, group in found.items()} == groups


def test_a_composition_without_a_known_type_has_none():
    assert substitutions(CellFormula.parse("Li29Si1")) == ()
