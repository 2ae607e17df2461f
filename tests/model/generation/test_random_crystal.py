"""Space groups in primitive cells, and random crystals that have them."""

from collections import Counter

import numpy as np
import pytest
import spglib
from ase.data import covalent_radii

from model.crystals.composition import CellFormula
from model.crystals.crystal import Crystal
from model.crystals.lattice import BRAVAIS, sample_lattice
from model.crystals.screening import ScreenSettings, pair_distances, screen
from model.generation.random_crystal import RandomSettings, distribute, random_crystal, suitable_groups
from model.symmetry.sites import bravais_of, groups_in, groups_of, primitive_operations, primitive_sites

SITES = {1: 1, 2: 9, 12: 10, 62: 4, 139: 15, 166: 9, 194: 12, 225: 12, 227: 9}  # International Tables A: letters


def template(formula, bravais, seed, volume=16.0):
    cell, rng = CellFormula.parse(formula), np.random.default_rng(seed)
    lattice = sample_lattice(bravais, volume * cell.n_atoms, rng)
    return Crystal(lattice, np.zeros((cell.n_atoms, 3)), cell.numbers)


def order(crystal):
    """Operations of a crystal's space group in its own cell."""
    cell = (crystal.lattice, crystal.fractional, crystal.numbers)
    return len(spglib.get_symmetry(cell, symprec=1e-3)["rotations"])


# --- space groups -------------------------------------------------------------------------------------------------


def test_every_space_group_belongs_to_one_lattice():
    numbers = sorted(number for bravais in BRAVAIS for number in groups_of(bravais))
    assert numbers == list(range(1, 231))
    assert [bravais_of(number) for number in (2, 5, 38, 166, 194, 225)] == ["aP", "mS", "oS", "hR", "hP", "cF"]


def test_special_cells_admit_the_groups_of_general_ones():
    assert set(groups_in("aP")) == {1, 2}
    assert set(groups_of("oF")) < set(groups_in("cF"))
    assert set(groups_of("mS")) < set(groups_in("oS"))
    for bravais in BRAVAIS:
        metric = (lattice := sample_lattice(bravais, 50.0, np.random.default_rng(1))) @ lattice.T
        for number in groups_in(bravais):
            rotations, _ = primitive_operations(number)
            assert np.allclose(rotations.transpose(0, 2, 1) @ metric @ rotations, metric), (bravais, number)


def test_a_number_without_a_group_is_an_error():
    with pytest.raises(ValueError, match="1 to 230, got 231"):
        bravais_of(231)


@pytest.mark.parametrize("number", [2, 5, 12, 41, 62, 79, 139, 161, 166, 194, 225])
def test_operations_keep_the_metric_of_their_lattice_and_close(number):
    lattice = sample_lattice(bravais_of(number), 50.0, np.random.default_rng(number))
    rotations, translations = primitive_operations(number)
    metric = lattice @ lattice.T
    assert np.allclose(rotations.transpose(0, 2, 1) @ metric @ rotations, metric)
    keys = {(*r.ravel(), *(np.rint(24 * t).astype(int) % 24)) for r, t in zip(rotations, translations, strict=True)}
    assert len(keys) == len(rotations)
    first, second = 1, len(rotations) - 1
    product = rotations[first] @ rotations[second]
    step = rotations[first] @ translations[second] + translations[first]
    assert (*product.ravel(), *(np.rint(24 * step).astype(int) % 24)) in keys


@pytest.mark.parametrize(("number", "letters"), SITES.items())
def test_there_are_as_many_sites_as_international_tables_list(number, letters):
    sites = primitive_sites(number)
    assert len(sites) == letters
    assert sites[-1].n_free == 3
    assert sites[-1].multiplicity == len(primitive_operations(number)[0])


@pytest.mark.parametrize("number", [12, 139, 166, 194, 227])
def test_operations_carry_an_orbit_onto_itself(number):
    rotations, translations = primitive_operations(number)
    at = np.random.default_rng(0).random(3)
    for site in primitive_sites(number):
        orbit = site.orbit(at)
        moved = np.einsum("gij,mj->gmi", rotations, orbit) + translations[:, None]
        step = moved[:, :, None] - orbit
        hits = (np.abs(step - np.round(step)) < 1e-9).all(-1)
        assert (hits.sum(-1) == 1).all()


# --- random crystals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bravais", BRAVAIS)
def test_crystals_have_the_atoms_the_cell_and_a_group_of_its_lattice(bravais):
    for formula, seed in (("Li5Si2", 0), ("ZnP2S6", 1)):
        cell = template(formula, bravais, seed, volume=24.0)
        made = random_crystal(cell, bravais, np.random.default_rng(seed), RandomSettings(symmetric=1.0))
        assert np.array_equal(made.numbers, cell.numbers)
        assert np.array_equal(made.lattice, cell.lattice)
        counts = tuple(np.unique(cell.numbers, return_counts=True)[1].tolist())
        smallest = min(len(primitive_operations(number)[0]) for number in suitable_groups(bravais, counts))
        assert order(made) >= smallest


def test_the_same_numbers_give_the_same_crystal_and_others_another():
    cell = template("Li4Si2", "oS", 3)
    one, again, other = (random_crystal(cell, "oS", np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert one.identity == again.identity != other.identity


def test_atoms_keep_their_distance():
    settings = RandomSettings(separation=0.9, smallest=0.9)
    for seed in range(10):
        cell = template("Li4Si2", BRAVAIS[seed], seed, volume=30.0)
        made = random_crystal(cell, BRAVAIS[seed], np.random.default_rng(seed), settings)
        first, second, distance = pair_distances(made, cutoff=4.0)
        bond = covalent_radii[made.numbers[first]] + covalent_radii[made.numbers[second]]
        assert (distance >= 0.9 * bond - 1e-9).all()


def test_without_room_the_crystal_is_whole_all_the_same():
    cell = template("Li4Si2", "aP", 0, volume=1.0)
    made = random_crystal(cell, "aP", np.random.default_rng(0))
    assert np.array_equal(made.numbers, cell.numbers) and np.array_equal(made.lattice, cell.lattice)
    assert len(np.unique(made.fractional, axis=0)) == 6  # anywhere, but not all in one place as in the template
    assert screen(made, ScreenSettings()) is not None  # what has no room is the screening's to refuse


def test_without_symmetry_atoms_lie_anywhere():
    cell = template("Li4Si4", "cP", 0)
    made = random_crystal(cell, "cP", np.random.default_rng(1), RandomSettings(symmetric=0.0))
    assert order(made) == 1


def test_fixed_sites_are_taken_once():
    sites = primitive_sites(2)  # P-1: eight inversion centres and the general position
    for seed in range(20):
        chosen = distribute({3: 4, 14: 3}, sites, np.random.default_rng(seed))
        assert chosen is not None  # the eight centres alone are more than seven atoms need
        assert sum(site.multiplicity for _, site in chosen) == 7
        assert Counter(id(site) for _, site in chosen if site.n_free == 0).most_common(1)[0][1] == 1


def test_numbers_that_no_group_suits_are_placed_without_one():
    assert suitable_groups("aP", (1,) * 9) == (1,)  # P-1 has eight centres


def test_settings_name_what_contradicts():
    with pytest.raises(ValueError, match=r"smallest \(0.9\) must not exceed separation \(0.5\)"):
        RandomSettings(separation=0.5, smallest=0.9)
