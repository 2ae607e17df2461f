import numpy as np
import pytest

from model.crystals.crystal import Crystal
from model.crystals.screening import too_close
from model.diffusion.sampler import Blank
from model.generation.initial_placements import at_random, in_voids


@pytest.mark.parametrize("start", [at_random, in_voids])
def test_guests_start_in_the_part_that_is_allowed_without_overlap(licoo2, start):
    big = Crystal.from_pymatgen(licoo2.to_pymatgen() * [2, 2, 2])
    blank = Blank(big, big.numbers == 3, 0)
    placed = start(blank, where=lambda places: places[:, 2] % 1 < 0.5)
    assert placed.start_here
    assert (placed.crystal.fractional[blank.guest][:, 2] % 1 < 0.5).all()
    assert np.array_equal(placed.crystal.fractional[~blank.guest], big.fractional[~blank.guest])
    few = Blank(big.select(np.arange(len(big)) != 0), np.arange(len(big) - 1) == 0, 0)
    assert not too_close(start(few).crystal)
