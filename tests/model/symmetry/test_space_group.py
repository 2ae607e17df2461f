import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from model.crystals.crystal import Crystal
from model.symmetry.space_group import refine, space_group

KNOWN = {
    "rutile": (
        136,
        1,
        Structure.from_spacegroup(
            "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.3053, 0.3053, 0]]
        ),
    ),
    "salt": (
        225,
        4,
        Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    ),
    "LiCoO2": (
        166,
        3,
        Structure.from_spacegroup(
            "R-3m", Lattice.hexagonal(2.816, 14.05), ["Li", "Co", "O"], [[0, 0, 0.5], [0, 0, 0], [0, 0, 0.2605]]
        ),
    ),
    "Li15Si4": (
        220,
        2,
        Structure.from_spacegroup(
            "I-43d", Lattice.cubic(10.6), ["Li", "Li", "Si"], [[0.375, 0, 0.25], [0.126, 0.152, 0.961], [0.208] * 3]
        ),
    ),
    "quartz": (
        154,
        1,
        Structure.from_spacegroup(
            "P3_221", Lattice.hexagonal(4.913, 5.405), ["Si", "O"], [[0.4697, 0, 0], [0.4135, 0.2669, 0.1191]]
        ),
    ),
}
NAMES = list(KNOWN)


def crystal_of(name):
    return Crystal.from_pymatgen(KNOWN[name][2])


def displaced(crystal, rng, *, move, strain=0.0):
    direction = rng.normal(size=(len(crystal), 3))
    step = move * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    lattice = crystal.lattice @ (np.eye(3) + strain * rng.uniform(-1, 1, (3, 3)))
    return crystal.replace(lattice=lattice, fractional=crystal.fractional + step @ np.linalg.inv(crystal.lattice))


@pytest.mark.parametrize("name", NAMES)
def test_known_crystals(name):
    number, ratio, _ = KNOWN[name]
    crystal = crystal_of(name)
    assert space_group(crystal, 0.01, 5).number == number
    refined = refine(crystal, 0.01, 5)
    assert refined.space_group.number == number
    assert refined.cell_ratio == ratio
    assert refined.displacement < 1e-6
    assert refined.strain < 1e-6
    assert refined.crystal.volume * ratio == pytest.approx(crystal.volume)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_a_rattled_crystal_is_moved_back_exactly(name, seed):
    number, ratio, _ = KNOWN[name]
    rng = np.random.default_rng(seed)
    crystal = displaced(crystal_of(name), rng, move=0.04, strain=0.004)
    assert space_group(crystal, 1e-3, -1).number == 1
    refined = refine(crystal, 0.25, 5)
    assert refined.space_group.number == number
    assert refined.space_group.symprec == 0.25
    assert space_group(refined.crystal, 1e-4, -1).number == number
    assert space_group(refined.parent, 1e-4, -1).number == number
    assert np.array_equal(refined.parent.numbers, crystal.numbers)
    assert refined.crystal.formula == crystal.formula
    assert refined.cell_ratio == ratio
    # Averaging over a group is a projection: no atom need go further than it was moved, plus the mean shift.
    assert 0.01 < refined.displacement <= 0.08 + 1e-9
    assert 0 < refined.strain < 0.01


def test_the_displacement_is_the_way_of_the_one_atom_that_was_moved():
    crystal = crystal_of("salt")
    fractional = crystal.fractional.copy()
    fractional[0] += np.array([0.2, 0, 0]) / 5.64
    refined = refine(crystal.replace(fractional=fractional), 0.5, 5)
    # Averaging puts it back where it was; relative to the mean of eight atoms it goes 7/8 of the way.
    assert refined.displacement == pytest.approx(0.2 * 7 / 8, abs=1e-6)
    assert refined.space_group.number == 225


def test_the_strain_is_that_of_the_cell():
    crystal = crystal_of("salt")
    stretched = crystal.replace(lattice=crystal.lattice @ np.diag([1, 1, 1.01]))
    refined = refine(stretched, 0.2, 5)
    metric = np.sqrt((2 + 1.01**2) / 3)  # the mean metric is what is kept
    assert refined.space_group.number == 225
    assert refined.strain == pytest.approx(max(metric - 1, 1 - metric / 1.01), rel=1e-6)
    assert refined.displacement < 1e-9


def test_refining_twice_changes_nothing():
    once = refine(displaced(crystal_of("rutile"), np.random.default_rng(0), move=0.05), 0.25, 5)
    twice = refine(once.crystal, 0.01, 5)
    assert twice.space_group.number == once.space_group.number
    assert twice.displacement < 1e-6
    assert twice.crystal.volume == pytest.approx(once.crystal.volume)


def test_the_result_does_not_depend_on_orientation_origin_or_order():
    rng = np.random.default_rng(5)
    crystal = displaced(crystal_of("LiCoO2"), rng, move=0.05, strain=0.003)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = rng.permutation(len(crystal))
    turned = Crystal(crystal.lattice @ rotation, (crystal.fractional + 0.37)[order], crystal.numbers[order])
    one, two = refine(crystal, 0.3, 5), refine(turned, 0.3, 5)
    assert one.space_group == two.space_group
    assert one.displacement == pytest.approx(two.displacement, abs=1e-6)
    assert one.strain == pytest.approx(two.strain, abs=1e-9)


def test_no_symmetry_is_an_outcome_and_not_an_error():
    two_in_one_place = Crystal(np.eye(3) * 3, [[0, 0, 0], [0, 0, 0]], [14, 14])
    assert space_group(two_in_one_place) is None
    assert refine(two_in_one_place) is None


def test_a_random_crystal_is_p1():
    rng = np.random.default_rng(2)
    crystal = Crystal(np.eye(3) * 6 + rng.uniform(-1, 1, (3, 3)), rng.random((7, 3)), [3, 3, 8, 8, 8, 14, 15])
    assert space_group(crystal, 0.01, 5).number == 1
    refined = refine(crystal, 0.01, 5)
    assert refined.displacement < 1e-9
    assert refined.cell_ratio == 1


def test_an_empty_crystal_is_refused():
    with pytest.raises(ValueError, match="without atoms"):
        space_group(Crystal(np.eye(3), np.zeros((0, 3)), np.zeros(0)))
