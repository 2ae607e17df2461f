import numpy as np
import pytest

from model.crystals.crystal import Crystal
from model.crystals.screening import too_close
from model.diffusion.sampler import Template
from model.generation.initial_placements import uniform, voronoi_voids


@pytest.mark.parametrize("start", [uniform, voronoi_voids])
def test_guests_start_in_the_part_that_is_allowed_without_overlap(licoo2, start):
    big = Crystal.from_pymatgen(licoo2.to_pymatgen() * [2, 2, 2])
    template = Template(crystal=big, guest=big.numbers == 3, seed=0)
    placed = start(template, where=lambda places: places[:, 2] % 1 < 0.5)
    assert placed.start_here
    assert (placed.crystal.fractional[template.guest][:, 2] % 1 < 0.5).all()
    assert np.array_equal(placed.crystal.fractional[~template.guest], big.fractional[~template.guest])
    few = Template(crystal=big.select(np.arange(len(big)) != 0), guest=np.arange(len(big) - 1) == 0, seed=0)
    assert not too_close(start(few).crystal)


@pytest.mark.parametrize("seed", range(5))
def test_guests_do_not_overlap_in_a_skewed_cell(seed):
    """The cell of a 5 Å cube, sheared by several edges: the nearest images lie cells away."""
    sheared = np.array([[1, 0, 0], [4, 1, 0], [-3, 5, 1]]) @ (5.0 * np.eye(3))
    crystal = Crystal(sheared, np.random.default_rng(seed).random((6, 3)), [8, 3, 3, 3, 3, 3])
    template = Template(crystal=crystal, guest=crystal.numbers == 3, seed=seed)
    assert not too_close(uniform(template).crystal)
