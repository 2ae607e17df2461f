"""Known structure types, and crystals made from them by ion substitution."""

from collections import Counter

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.crystals.neighbors import pair_distances
from model.generation.ion_substitution import substitutions
from model.generation.known_hosts import known_hosts
from model.generation.shared_sites import Split, divided, supercells
from model.generation.structure_types import StructureTypes, TypeCollector, orders, packaged_elements
from model.library.phases import packaged_library
from model.symmetry.space_group import space_group

LIBRARY = packaged_library()
TYPES = StructureTypes(LIBRARY)


def of_spacegroup(group, a, species, points):
    return Crystal.from_pymatgen(
        Structure.from_spacegroup(group, Lattice.cubic(a), species, points).get_primitive_structure()
    )


def rock_salt(cation, anion, a):
    return of_spacegroup("Fm-3m", a, [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


def substituted(formula, types=TYPES):
    return substitutions(CellFormula.parse(formula), types)


def blind(formula, hidden=()):
    return StructureTypes(LIBRARY.without([CellFormula.parse(formula).elements], hidden))


def test_compounds_of_one_type_are_found_whatever_the_elements_and_their_volume():
    collector = TypeCollector()
    salts = [rock_salt("Na", "Cl", 5.64), rock_salt("Mg", "O", 4.21)]
    caesium = Crystal(np.eye(3) * 4.12, [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17])
    rows = [collector.add(one, group) for one, group in zip([*salts, caesium], [225, 225, 221], strict=True)]
    assert [row["type"] for row in rows] == [0, 0, 1]
    assert rows[0]["twins"] == [0, 1]  # cations and anions may change places


def test_orders_keep_the_number_of_atoms():
    assert orders((1, 1, 3)).tolist() == [[0, 1, 2], [1, 0, 2]]
    assert len(orders((2, 2, 2, 8))) == 6


@pytest.mark.parametrize("formula", ["LiSi", "Li2Si", "Li8Si4", "ZnP2S6", "LiCoO2", "Na12S12As4"])
def test_substituted_crystals_have_the_atoms_asked_for(formula):
    cell = CellFormula.parse(formula)
    found = substituted(formula)
    assert len(found) > 5
    for one in found[:10]:
        assert np.array_equal(one.crystal().numbers, cell.numbers)
    assert [one.unlikeliness for one in found] == sorted(one.unlikeliness for one in found)


def test_rock_salt_is_the_likeliest_type_of_an_oxide_of_one_to_one_and_has_its_volume():
    salt = rock_salt("Mg", "O", 4.21)
    crystals = [one.crystal() for one in substituted("MgO", blind("MgO"))[:3]]
    matcher = StructureMatcher(scale=False)
    assert any(matcher.fit(salt.to_pymatgen(), crystal.to_pymatgen()) for crystal in crystals)
    assert crystals[0].volume == pytest.approx(salt.volume, rel=0.1)


@pytest.mark.parametrize(("name", "formula"), [("mp-5830", "Na12S12As4"), ("mp-40963", "Na8Zn4P8O28")])
def test_a_large_crystal_is_found_from_others_of_its_type(name, formula):
    known = LIBRARY.crystal(name)
    best = substituted(formula, blind(formula))[0]
    assert set(CellFormula.parse(formula).elements) != set(LIBRARY.crystal(best.name).symbols)
    assert StructureMatcher().fit(known.to_pymatgen(), best.crystal().to_pymatgen())


def test_what_is_hidden_does_not_serve():
    everything = {one.name for one in substituted("Na2O")}
    own = {phase.material_id for phase in LIBRARY.find("Na2O")}
    assert everything & own
    assert not {one.name for one in substituted("Na2O", blind("Na2O"))} & own
    others = StructureTypes(LIBRARY.without(formulas=["K2O"]))
    assert not {one.name for one in substituted("Na2O", others)} & {p.material_id for p in LIBRARY.find("K2O")}


def test_atoms_are_moved_only_when_asked_and_always_in_the_same_way():
    one = substituted("Li8Si4")[0]
    plain, moved, again = one.crystal(), *(one.crystal(np.random.default_rng(7)) for _ in range(2))
    assert moved.identity == again.identity != plain.identity
    step = moved.fractional - plain.fractional
    step = (step - np.round(step)) @ plain.lattice
    assert 0.05 < np.sqrt(np.square(step).sum(1).mean()) < 0.2


def test_both_ways_round_when_as_many_atoms_of_each_and_their_places_differ():
    ways = Counter(one.name for one in substituted("Mg2O2") if one.split is None)
    assert max(ways.values()) <= 2
    assert set(Counter(one.name for one in substituted("MgO")).values()) == {1}


def test_substituted_crystals_are_crystals():
    for formula in ("LiSi", "Li2Si", "Li6P2S8"):
        for one in substituted(formula)[:20]:
            assert pair_distances(one.crystal(), cutoff=6.0)[2].min() > 0.7


def test_a_composition_without_a_known_type_has_none():
    assert substituted("Li97Si1") == []


def test_elements_that_replace_each_other_are_alike():
    unlike = packaged_elements().unlike
    assert unlike(11, 19) < unlike(11, 17) and unlike(39, 66) < unlike(39, 8)
    for volumes in packaged_elements().volumes:
        assert volumes[3] < volumes[11] < volumes[19] < volumes[55]


# --- shared sites -------------------------------------------------------------------------------------------------


def perovskite():
    return of_spacegroup("Pm-3m", 4.0, ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]])


def test_the_most_symmetric_way_to_share_the_sites_of_a_perovskite_is_elpasolite():
    cell, shared = divided(perovskite(), Split(22, ((12, 1), (74, 1)), 2, 0))
    double = cell.replace(numbers=np.where(shared > 0, shared, cell.numbers))
    assert double.composition.reduced_formula == "Sr2MgWO6"
    assert space_group(double).symbol == "Fm-3m"


def test_arrangements_differ_and_begin_again_after_the_last():
    ways = [divided(perovskite(), Split(22, ((12, 1), (74, 1)), 2, rank)) for rank in range(4)]
    groups = {space_group(c.replace(numbers=np.where(s > 0, s, c.numbers))).number for c, s in ways}
    assert len(groups) > 1
    first, again = ways[0], divided(perovskite(), Split(22, ((12, 1), (74, 1)), 2, 400))
    assert len(again[0]) == len(first[0])


def test_sites_and_atoms_must_agree():
    with pytest.raises(ValueError, match="2 sites cannot be shared"):
        divided(perovskite(), Split(22, ((12, 2), (74, 1)), 2, 0))


@pytest.mark.parametrize("cells", [1, 2, 3, 4])
def test_supercells_hold_whole_cells(cells):
    for one in supercells(perovskite(), cells):
        assert one.volume == pytest.approx(cells * perovskite().volume)
        assert space_group(one).number == 221


def test_a_double_perovskite_is_made_from_simple_ones():
    cell = CellFormula.parse("Ba2MgWO6")
    hidden = [p.formula for p in LIBRARY.of_stoichiometry("A2BCD6")]
    found = substitutions(cell, StructureTypes(LIBRARY.without([cell.elements], hidden)))
    shared = [one for one in found if one.split is not None and one.split.cells == 2]
    assert any(space_group(one.crystal()).symbol == "Fm-3m" for one in shared[:8])


# --- hosts --------------------------------------------------------------------------------------------------------


def test_hosts_are_phases_without_their_guests():
    cell = CellFormula.parse("LiMn2O4").as_dict
    cell = CellFormula.from_counts({element: 2 * count for element, count in cell.items()})
    hosts = known_hosts(cell, "Li", blind("LiMn2O4"))
    assert hosts
    for host in hosts:
        assert host.crystal.composition.as_dict() == {"Mn": 4.0, "O": 8.0}
        assert 3 not in host.crystal.numbers
    assert [host.unlikeliness for host in hosts] == sorted(host.unlikeliness for host in hosts)
