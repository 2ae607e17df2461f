"""Powder patterns against Bragg's law, backgrounds against ones that are known, and crystals found in patterns."""

from functools import cache

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from model.crystals.crystal import Crystal
from model.verification.diffraction import Pattern, grid_of, profile, reflections, without_background
from model.verification.pattern_match import invariant_strains, rank_patterns
from tests.support.patterns import measured

CU_KA = 1.54184  # Å


def made(group, lattice, species, sites):
    return Crystal.from_pymatgen(Structure.from_spacegroup(group, lattice, species, sites))


@cache
def candidates():
    """Six crystals, two of which have the same lattice."""
    salt = made("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    return [
        salt,
        made("Pm-3m", Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        made("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]]),
        made("P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]),
        made("P6_3mc", Lattice.hexagonal(3.25, 5.2), ["Zn", "O"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.38]]),
        salt.replace(numbers=np.where(salt.numbers == 11, 19, 9)),
    ]


def test_angles_obey_braggs_law():
    peaks = reflections(candidates()[0], highest=60)
    spacings = CU_KA / 2 / np.sin(np.radians(peaks.angles / 2))
    np.testing.assert_allclose(spacings, 5.64 / np.sqrt([3, 4, 8, 11, 12]), rtol=1e-3)


def test_angles_follow_the_cell():
    crystal = candidates()[3]
    peaks = reflections(crystal, highest=80)
    stretched = crystal.replace(lattice=crystal.lattice @ np.diag([1.0, 1.0, 1.02]))
    np.testing.assert_allclose(
        np.sort(peaks.angles_in(stretched.lattice)), np.sort(reflections(stretched, highest=80).angles), atol=0.05
    )


def test_a_profile_keeps_the_area_of_its_peaks():
    grid = np.arange(10, 50, 0.02)
    curve = profile(np.array([20.003, 30.0]), np.array([2.0, 1.0]), grid, width=0.3)
    assert curve.sum() == pytest.approx(3.0)
    assert grid[curve.argmax()] == pytest.approx(20.0, abs=0.02)


def test_the_background_goes_and_the_peaks_stay():
    pattern = measured([(candidates()[0], 1.0)])
    grid = grid_of(pattern)
    left = without_background(pattern, grid)
    strong = np.interp(27.5, grid, left), left.max()
    assert np.median(left) == 0 and strong[1] > 1000
    far = (grid > 14) & (grid < 24)  # nothing but background, though it is highest here
    assert left[far].max() < 0.02 * left.max()


@pytest.mark.parametrize(("place", "free"), [(0, 1), (3, 2), (4, 2)])
def test_strains_keep_the_symmetry(place, free):
    assert len(invariant_strains(candidates()[place])) == free
    triclinic = Crystal(np.array([[3.0, 0, 0], [0.5, 4, 0], [0.3, 0.7, 5]]), [[0, 0, 0], [0.3, 0.4, 0.1]], [3, 14])
    assert len(invariant_strains(triclinic)) == 6


@pytest.mark.parametrize("place", [0, 3, 5])
def test_a_crystal_is_found_in_its_pattern(place):
    crystals = candidates()
    ranking = rank_patterns(crystals, measured([(crystals[place], 1.0)], seed=place), mixtures=False)
    assert ranking.single[0].crystals == (place,)
    assert ranking.single[0].similarity > 0.85
    scale = np.cbrt(abs(np.linalg.det(ranking.single[0].lattices[0])) / crystals[place].volume)
    assert abs(scale - 1) == pytest.approx(0.015, abs=0.002)


def test_two_phases_are_found_in_a_mixture():
    crystals = candidates()
    ranking = rank_patterns(crystals, measured([(crystals[2], 0.6), (crystals[3], 0.4)]))
    assert set(ranking.pairs[0].crystals) == {2, 3}
    assert sum(ranking.pairs[0].shares) == pytest.approx(1)
    assert ranking.pairs[0].similarity > ranking.single[0].similarity + 0.05


def test_a_flat_pattern_and_a_wrong_angle_are_refused():
    grid = np.arange(10, 60, 0.02)
    with pytest.raises(ValueError, match="no peak stands out"):
        rank_patterns(candidates(), Pattern(angles=grid, intensities=np.full_like(grid, 7.0)))
    with pytest.raises(ValueError, match="between 0 and 180"):
        reflections(candidates()[0], highest=200)
    with pytest.raises(ValueError, match="unknown radiation"):
        reflections(candidates()[0], highest=60, radiation="Cu")
