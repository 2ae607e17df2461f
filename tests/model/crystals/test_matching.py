import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from model.crystals.crystal import Crystal
from model.crystals.matching import DistinctCrystals, DistinctSettings, distance_fingerprints, neighbour_distances

RUTILE = Crystal.from_pymatgen(
    Structure.from_spacegroup("P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]])
)
ANATASE = Crystal.from_pymatgen(
    Structure.from_spacegroup("I4_1/amd", Lattice.tetragonal(3.785, 9.514), ["Ti", "O"], [[0, 0, 0], [0, 0, 0.2081]])
)
SALT = Crystal.from_pymatgen(
    Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
)


def disguised(crystal, rng, rattle=0.0):
    """The same crystal: rotated, shifted, in another cell, another order, slightly rattled."""
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    cell = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]) @ np.diag(rng.permutation([1, 1, 2]))
    structure = crystal.to_pymatgen()
    structure.make_supercell(cell)
    bigger = Crystal.from_pymatgen(structure)
    order = rng.permutation(len(bigger))
    noise = rng.uniform(-1, 1, (len(bigger), 3)) * rattle / np.sqrt(3)
    fractional = bigger.fractional + noise @ np.linalg.inv(bigger.lattice) + rng.random(3)
    return Crystal(bigger.lattice @ rotation, fractional[order], bigger.numbers[order])


def test_known_distances():
    assert neighbour_distances(SALT, 6) == pytest.approx(np.full((8, 6), 2.82))
    (fingerprint,) = distance_fingerprints([SALT])
    mean, spread = fingerprint
    assert spread == pytest.approx(0, abs=1e-6)
    for own, other in ((0, 1), (1, 0)):
        assert mean[own, own] == pytest.approx(np.full(12, 2.82 * np.sqrt(2)))
        assert mean[own, other] == pytest.approx(2.82 * np.sqrt([1.0] * 6 + [3.0] * 6))


def test_a_batch_gives_what_each_crystal_gives_alone_to_the_bit():
    spread = SALT.replace(lattice=SALT.lattice * 1.4)  # needs another cutoff than the rest
    crystals = [RUTILE, spread, ANATASE, SALT]
    for crystal, found in zip(crystals, distance_fingerprints(crystals), strict=True):
        assert np.array_equal(found, distance_fingerprints([crystal])[0])


@pytest.mark.parametrize("seed", range(6))
def test_a_disguised_crystal_is_a_repeat(seed):
    rng = np.random.default_rng(seed)
    distinct = DistinctCrystals()
    assert [distinct.add(crystal) for crystal in (RUTILE, ANATASE, SALT)] == [None, None, None]
    for index, crystal in enumerate((RUTILE, ANATASE, SALT)):
        assert distinct.add(disguised(crystal, rng)) == index
        assert distinct.add(disguised(crystal, rng, rattle=0.05)) == index
    assert len(distinct) == 3


def test_distorted_supercells_are_always_repeats_only_when_supercells_are_compared():
    """Doubled cells with 0.1 Å of disorder (root mean square), of which not all are found to be doubled."""
    rng, missed = np.random.default_rng(0), {False: 0, True: 0}
    for crystal in (RUTILE, ANATASE, SALT) * 10:
        distorted = disguised(crystal, rng, rattle=0.1 * np.sqrt(3))
        for supercells in missed:
            distinct = DistinctCrystals(DistinctSettings(supercells=supercells))
            distinct.add(crystal)
            missed[supercells] += distinct.add(distorted) is None
    assert missed[False] > 3 and missed[True] == 0


@pytest.mark.parametrize("seed", range(20))
def test_the_cheap_filter_keeps_its_promise(seed):
    """Atoms moved by up to 0.2 Å and 2 % strain never change the fingerprint or the volume beyond tolerance."""
    rng = np.random.default_rng(seed)
    crystal = (RUTILE, ANATASE, SALT)[seed % 3]
    direction = rng.normal(size=(len(crystal), 3))
    step = 0.2 * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    strained = crystal.lattice @ np.diag(rng.choice([0.98, 1.02], 3))
    moved = crystal.replace(lattice=strained, fractional=crystal.fractional + step @ np.linalg.inv(strained))
    settings, (one, other) = DistinctSettings(), distance_fingerprints([crystal, moved])
    difference = np.abs(other - one)
    assert difference[0].max() < settings.distance_tolerance
    assert difference.max() < settings.rms_tolerance
    assert abs(np.log(moved.volume / crystal.volume)) < np.log1p(settings.volume_tolerance)


def test_a_repeat_right_at_the_border_of_a_volume_is_found():
    distinct = DistinctCrystals()
    volumes = [1.0, 1.04, 1.09]
    assert [distinct.add(SALT.replace(lattice=SALT.lattice * v ** (1 / 3))) for v in volumes] == [None, 0, 0]
    assert distinct.add(SALT.replace(lattice=SALT.lattice * 1.2 ** (1 / 3))) is None


def test_another_formula_is_another_crystal():
    distinct = DistinctCrystals()
    numbers = np.where(SALT.numbers == 11, 19, SALT.numbers)
    assert distinct.add(SALT) is None
    assert distinct.add(SALT.replace(numbers=numbers)) is None


def test_space_groups_count_only_when_asked():
    lax, strict = DistinctCrystals(), DistinctCrystals(DistinctSettings(same_space_group=True))
    assert [lax.add(RUTILE, 136), lax.add(RUTILE, 58)] == [None, 0]
    assert [strict.add(RUTILE, 136), strict.add(RUTILE, 58), strict.add(RUTILE)] == [None, None, 0]


def test_energies_count_only_when_asked():
    by_energy = DistinctCrystals(DistinctSettings(energy_tolerance=0.02))
    assert [by_energy.add(SALT, energy=energy) for energy in (-3.0, -2.99, -2.9, -2.91)] == [None, 0, None, 2]
    lax = DistinctCrystals()
    assert [lax.add(SALT, energy=energy) for energy in (-3.0, -2.9)] == [None, 0]


def test_one_atom_that_has_moved_far_shows_in_the_distances():
    places = np.random.default_rng(0).random((12, 3))  # nothing is symmetric, so the matcher takes the cell as it is
    rattled = Crystal(np.eye(3) * 6, places, [8] * 8 + [22] * 4)
    moved = rattled.replace(fractional=places + np.where(np.arange(12) == 0, 0.05, 0.0)[:, None])  # one atom, 0.5 Å
    difference = np.subtract(*distance_fingerprints([rattled, moved]))
    rms = np.sqrt((difference**2).mean())
    for tolerance, found in ((1.1 * rms, 0), (0.9 * rms, None)):
        distinct = DistinctCrystals(DistinctSettings(rms_tolerance=tolerance))
        assert [distinct.add(rattled), distinct.add(moved)] == [None, found]


@pytest.mark.parametrize(("matches", "found"), [(None, 1), (1, 1), (0, None)])
def test_the_most_similar_come_to_the_matcher_first_and_not_more_than_asked_for(matches, found):
    wide = SALT.replace(lattice=SALT.lattice * 1.01)
    distinct = DistinctCrystals(DistinctSettings(energy_tolerance=0.02, matches=matches))
    assert distinct.add(wide, energy=-3.0) is None
    assert distinct.add(SALT, energy=-3.03) is None
    assert distinct.add(SALT, energy=-3.015) == found


def test_without_the_matcher_the_distances_decide():
    settings = DistinctSettings(rms_tolerance=0.06, matcher=False)
    other_cell = disguised(RUTILE, np.random.default_rng(0))
    distinct = DistinctCrystals(settings)
    assert [distinct.add(one) for one in (RUTILE, ANATASE, other_cell)] == [None, None, 0]
