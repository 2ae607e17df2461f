import numpy as np
import pytest
from pydantic import ValidationError

from model.crystals.crystal import Crystal
from model.crystals.lattice import BRAVAIS, LatticeRanges, cell_vectors, sample_lattice
from model.symmetry.space_group import space_group

# One atom at every point of a Bravais lattice has the lattice's holohedry: the symmorphic group of highest order.
HOLOHEDRY = {
    "cP": 221,
    "cI": 229,
    "cF": 225,
    "tP": 123,
    "tI": 139,
    "oP": 47,
    "oS": 65,
    "oI": 71,
    "oF": 69,
    "mP": 10,
    "mS": 12,
    "aP": 2,
    "hP": 191,
    "hR": 166,
}


@pytest.mark.parametrize("bravais", BRAVAIS)
@pytest.mark.parametrize("seed", range(8))
def test_a_lattice_has_the_holohedry_and_volume_asked_for(bravais, seed):
    rng = np.random.default_rng(seed)
    volume = rng.uniform(10, 900)
    lattice = sample_lattice(bravais, volume, rng)
    assert np.linalg.det(lattice) == pytest.approx(volume, rel=1e-12)
    group = space_group(Crystal(lattice, [[0, 0, 0]], [14]), 1e-5, -1)
    assert group.number == HOLOHEDRY[bravais]


def test_there_are_fourteen():
    assert len(set(BRAVAIS)) == 14
    assert set(BRAVAIS) == set(HOLOHEDRY)


def test_the_ratios_cover_the_papers_range():
    rng = np.random.default_rng(0)
    lengths = np.array([np.linalg.norm(sample_lattice("oP", 100, rng), axis=1) for _ in range(400)])
    ratios = lengths[:, 1:] / lengths[:, :1]
    assert ratios.min() > 0.75
    assert ratios.max() < 1.25
    assert ratios.mean(0) == pytest.approx([1, 1], abs=0.03)
    assert np.quantile(ratios, 0.05) < 0.79 < 1.21 < np.quantile(ratios, 0.95)


def test_primitive_cells_of_known_lattices():
    rng = np.random.default_rng(1)
    fcc, bcc = sample_lattice("cF", 10, rng), sample_lattice("cI", 10, rng)
    cosine = [(cell[0] @ cell[1]) / np.linalg.norm(cell[0]) ** 2 for cell in (fcc, bcc)]
    assert cosine == pytest.approx([1 / 2, -1 / 3])


def test_the_same_seed_gives_the_same_lattice():
    one, two = (sample_lattice("aP", 50, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(one, two)


def test_cell_vectors_keep_lengths_and_angles():
    cell = cell_vectors([3, 4, 5], [70, 80, 100])
    unit = cell / np.linalg.norm(cell, axis=1, keepdims=True)
    angles = np.degrees(np.arccos([unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]]))
    assert angles == pytest.approx([70, 80, 100])
    assert np.linalg.norm(cell, axis=1) == pytest.approx([3, 4, 5])


def test_flat_triclinic_cells_are_drawn_again():
    rng = np.random.default_rng(3)
    for _ in range(100):
        cell = sample_lattice("aP", 1, rng, LatticeRanges(triclinic=(40, 130), min_volume_ratio=0.5))
        assert 1 / np.prod(np.linalg.norm(cell, axis=1)) > 0.5


def test_bad_input_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="unknown Bravais lattice 'cS'"):
        sample_lattice("cS", 10, rng)
    with pytest.raises(ValueError, match="must be positive, got -3"):
        sample_lattice("cP", -3, rng)
    with pytest.raises(ValidationError, match="ratio must be"):
        LatticeRanges(ratio=(1.5, 0.5))
    with pytest.raises(ValueError, match="no triclinic cell"):
        sample_lattice("aP", 10, rng, LatticeRanges(triclinic=(119.9, 119.99)))
