import numpy as np
import pytest

from model.crystals.crystal import Crystal
from model.crystals.neighbors import pair_distances
from model.crystals.screening import ScreenSettings, screen, too_close
from tests.support.reasons import SCREENED

SALT = Crystal(np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * 5.64, [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])


def test_a_real_crystal_passes():
    assert screen(SALT) is None
    assert pair_distances(SALT, cutoff=6.0)[2].min() == pytest.approx(2.82)


def test_each_reason_is_found():
    broken = {
        "empty": SALT.select(np.zeros(2, bool)),
        "nan": SALT.replace(fractional=np.array([[0, 0, 0], [np.nan, 0, 0]])),
        "flat_cell": SALT.replace(lattice=np.diag([5.0, 5.0, 0.0])),
        "volume": SALT.replace(lattice=SALT.lattice * 3),
        "needle": Crystal(np.diag([2.5, 2.5, 60.0]), [[0, 0, z / 20] for z in range(20)], [14] * 20),
        "too_close": SALT.replace(fractional=np.array([[0, 0, 0], [0.1, 0.1, 0.1]])),
    }
    cluster = [[0, 0, 0], [0.3, 0, 0], [0, 0.3, 0], [0, 0, 0.2], [0.3, 0.3, 0], [0.5, 0.5, 0.6]]
    broken["isolated"] = Crystal(np.diag([8.0, 8.0, 14.0]), cluster, [14] * 6)
    assert {reason: screen(crystal) for reason, crystal in broken.items()} == {reason: reason for reason in broken}
    assert set(broken) == SCREENED


def test_an_infinite_cell_is_not_a_crash():
    assert screen(SALT.replace(lattice=np.full((3, 3), np.inf))) == "nan"


@pytest.mark.parametrize(("distance", "reason"), [(0.99, "too_close"), (1.01, None)])
def test_one_angstrom_is_the_papers_limit(distance, reason):
    settings = ScreenSettings(covalent_fraction=0.0)
    assert screen(Crystal(np.diag([4.0] * 3), [[0, 0, 0], [0, 0, distance / 4]], [8, 8]), settings) == reason


def test_bonds_of_hydrogen_may_be_shorter():
    water = Crystal(np.diag([3.2] * 3), [[0, 0, 0], [0.3, 0, 0], [0, 0.3, 0]], [8, 1, 1])
    assert screen(water) is None
    assert screen(water, ScreenSettings(min_distance_hydrogen=1.0)) == "too_close"


def test_an_atom_too_close_to_its_own_image_counts():
    thin = Crystal(np.diag([0.9, 6.0, 6.0]), [[0, 0, 0]], [14])
    assert too_close(thin)
    assert screen(thin) == "too_close"


@pytest.mark.parametrize("seed", range(10))
def test_the_verdict_does_not_depend_on_origin_order_or_image(seed):
    rng = np.random.default_rng(seed)
    crystal = Crystal(np.diag(rng.uniform(3, 6, 3)) + rng.uniform(-1, 1, (3, 3)), rng.random((4, 3)), [3, 8, 8, 14])
    order = rng.permutation(4)
    moved = crystal.fractional + rng.random(3) + rng.integers(-2, 3, (4, 3))
    assert screen(crystal) == screen(crystal.replace(fractional=moved[order], numbers=crystal.numbers[order]))
