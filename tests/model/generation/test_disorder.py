import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from model.generation.disorder import Disordered, order


def disordered(structure):
    return Disordered.from_pymatgen(structure)


def cubic(size, occupancy):
    """A simple cubic crystal of size³ sites."""
    return disordered(Structure(Lattice.cubic(4.0), [occupancy], [[0, 0, 0]]) * [size, size, size])


@pytest.mark.parametrize(("atoms", "distinct"), [(1, 1), (2, 3), (3, 3), (4, 6)])
def test_arrangements_on_a_cube_are_those_of_polya(atoms, distinct):
    """Colourings of the eight corners of a cube up to rotation and reflection: 1, 3, 3 and 6 (Pólya)."""
    cube = cubic(2, {"Po": atoms / 8})
    assert len(order(cube, 1000, seed=0)) == distinct


def test_every_arrangement_has_the_atoms_it_should():
    cube = cubic(2, {"Na": 0.25, "K": 0.5})
    assert cube.counts() == {11: 2, 19: 4}
    assert cube.arrangements() == 28 * 15
    for numbers in order(cube, 1000, seed=0):
        crystal, free = cube.crystal(numbers)
        assert sorted(crystal.numbers.tolist()) == [11] * 2 + [19] * 4
        assert free.all()


def test_copper_gold_orders_in_one_way_each():
    """Conventional fcc cell: CuAu is L1_0, Cu3Au is L1_2, whichever sites are taken."""
    for gold in (0.25, 0.5):
        alloy = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.9), [{"Cu": 1 - gold, "Au": gold}], [[0, 0, 0]])
        assert len(order(disordered(alloy), 100, seed=0)) == 1


def test_full_sites_stay_and_overlapping_sites_are_not_taken_together():
    """Two half-filled sites 0.6 Å apart, in two cells: one of each pair."""
    structure = Structure(
        Lattice.orthorhombic(6, 6, 12),
        ["O", "O", {"Li": 0.5}, {"Li": 0.5}, {"Li": 0.5}, {"Li": 0.5}],
        [[0, 0, 0], [0, 0, 0.5], [0.5, 0.5, 0.225], [0.5, 0.5, 0.275], [0.5, 0.5, 0.725], [0.5, 0.5, 0.775]],
    )
    split = disordered(structure)
    found = order(split, 100, seed=0)
    assert split.arrangements() == 6
    assert 1 <= len(found) <= 4
    for numbers in found:
        assert numbers[:2].tolist() == [8, 8]
        assert sorted(numbers[2:4].tolist()) == sorted(numbers[4:].tolist()) == [0, 3]


@pytest.mark.parametrize("shear", [0, 1, 3, 7])
def test_an_atom_and_its_image_overlap_in_a_sheared_cell_too(shear):
    """The cell is 0.9 Å high, which its edges do not show: no Li fits in. With 3 Å, it does."""
    low, high = (
        Structure([[9, 0, 0], [0, 9, 0], [9 * shear, 0, height]], [{"Li": 0.5}] * 2, [[0, 0, 0], [0.5, 0.5, 0]])
        for height in (0.9, 3.0)
    )
    with pytest.raises(ValueError, match=r"0\.90 Å apart"):
        order(disordered(low), 10, seed=0)
    assert order(disordered(high), 10, seed=0)


def test_counts_are_rounded_together():
    structure = Structure(Lattice.cubic(8), [{"Li": 0.564}] * 3 + ["O"], [*np.eye(3).tolist(), [0.5, 0.5, 0.5]])
    structure.translate_sites([0, 1, 2], [0.25, 0, 0])
    one = disordered(structure)
    assert one.counts() == {3: 2, 8: 1}
    assert one.occupancy["Li"] == pytest.approx(1.692)


def test_the_crystals_count_of_an_element_is_rounded_before_that_of_its_sites():
    """Cubic Li7La3Zr2O12: 22.56 Li on 24d and 33.50 on 96h are 56, not 23 + 34."""
    sites = [[3 / 8, 0, 1 / 4], [0.0968, 0.6853, 0.5781]]
    lithium = Structure.from_spacegroup("Ia-3d", Lattice.cubic(12.983), [{"Li": 0.94}, {"Li": 0.349}], sites)
    assert disordered(lithium).counts() == {3: 56}


def test_sites_stay_full_where_no_element_can_be_rounded_to_its_nearest():
    """Three sites, 1.5 Na and 1.5 K: two of one and one of the other."""
    full = Structure(Lattice.cubic(8), [{"Na": 0.5, "K": 0.5}] * 3, np.eye(3) / 2)
    assert sorted(disordered(full).counts().values()) == [1, 2]


def test_of_too_many_arrangements_some_are_drawn_by_the_seed():
    crystal = cubic(4, {"Po": 0.5})
    assert crystal.arrangements() > 10**18
    one, same, other = (order(crystal, 5, seed=seed) for seed in (0, 0, 1))
    assert len(one) == 5
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert not all((a == b).all() for a, b in zip(one, other, strict=True))


def split_sites(occupancy, length=4.0):
    """Two sites 0.6 Å apart in a cell of 4 by 4 Å."""
    places = [[0.5, 0.5, 0.5 - 0.3 / length], [0.5, 0.5, 0.5 + 0.3 / length]]
    return disordered(Structure(Lattice.tetragonal(4.0, length), [{"Li": occupancy}] * 2, places))


def test_that_no_arrangement_is_possible_is_said_with_the_sites():
    assert len(order(split_sites(0.5), 10, seed=0)) == 1
    both = split_sites(0.95)  # one atom on each
    with pytest.raises(ValueError, match=r"atoms overlap: the closest sites, 0.500 0.500 0.425 and .* 0.60 Å apart"):
        order(both, 10, seed=0)
    with pytest.raises(ValueError, match=r"the images of the site 0.000 0.000 0.000 are 1.20 Å apart"):
        order(disordered(Structure(Lattice.cubic(1.2), [{"Li": 0.9}], [[0, 0, 0]])), 10, seed=0)


def test_that_no_random_arrangement_is_found_is_said():
    many = Structure(Lattice.cubic(4.0), [{"Li": 0.9}] * 2, [[0.5, 0.5, 0.4], [0.5, 0.5, 0.55]]) * [3, 3, 3]
    crystal = disordered(many)
    assert crystal.arrangements() > 10**4
    with pytest.raises(ValueError, match=r"random arrangements were tried.* are 0.60 Å apart"):
        order(crystal, 2, seed=0)


def test_nothing_to_order_is_refused():
    with pytest.raises(ValueError, match="every site is full"):
        disordered(Structure(Lattice.cubic(4), ["Po"], [[0, 0, 0]]))
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        order(cubic(2, {"Po": 0.5}), 0, seed=0)
