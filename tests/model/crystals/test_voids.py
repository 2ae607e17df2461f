import numpy as np
import pytest
from ase.build import bulk
from pymatgen.core import Lattice, Structure

from model.crystals.crystal import Crystal
from model.crystals.voids import guest_sites, void_sites

FCC = Crystal.from_ase(bulk("Al", a=4.05))


def test_voids_of_fcc_are_the_octahedral_and_the_tetrahedral_holes():
    voids = void_sites(FCC)
    assert [void.radius for void in voids] == pytest.approx([4.05 / 2] + [4.05 * np.sqrt(3) / 4] * 2)


def test_lithium_of_layered_cobaltate_sits_in_a_void(licoo2):
    host, lithium = licoo2.select(licoo2.numbers != 3), licoo2.select(licoo2.numbers == 3)
    shift = np.array([void.fractional for void in void_sites(host)]) - lithium.fractional
    assert np.linalg.norm((shift - np.round(shift)) @ host.lattice, axis=1).min() < 1e-6


def test_voids_do_not_depend_on_the_cell():
    one = void_sites(FCC)
    eight = void_sites(Crystal.from_pymatgen(FCC.to_pymatgen() * [2, 2, 2]))
    assert len(eight) == 8 * len(one)
    assert sorted({round(void.radius, 6) for void in eight}) == sorted({round(void.radius, 6) for void in one})


# --- sites of a guest ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cation", "a", "c", "x"),
    [
        ("Ti", 4.59, 2.96, 0.305),
        ("Sn", 4.737, 3.186, 0.307),
        ("Mn", 4.404, 2.876, 0.305),
        ("V", 4.55, 2.85, 0.300),
        ("Ru", 4.49, 3.106, 0.306),
        ("Pb", 4.95, 3.38, 0.308),
        ("Si", 4.18, 2.667, 0.306),
    ],
)
def test_the_channel_of_rutile_has_a_site_every_half_cell(cation, a, c, x):
    """The corners of Voronoi cells between them belong to them, in a supercell and elsewhere in the cell too."""
    one = Structure.from_spacegroup("P4_2/mnm", Lattice.tetragonal(a, c), [cation, "O"], [[0, 0, 0], [x, x, 0]])
    sites = np.array([site.fractional for site in guest_sites(Crystal.from_pymatgen(one), min_radius=1.5)])
    expected = [[0, 0.5, 0.25], [0, 0.5, 0.75], [0.5, 0, 0.25], [0.5, 0, 0.75]]
    np.testing.assert_allclose(sites[np.lexsort(sites.T[::-1])], expected, atol=1e-6)
    assert len(guest_sites(Crystal.from_pymatgen(one * [1, 1, 2]), min_radius=1.5)) == 8
    moved = Crystal.from_pymatgen(one)
    assert (
        len(guest_sites(moved.replace(fractional=moved.fractional + np.array([0.13, 0.41, 0.77])), min_radius=1.5)) == 4
    )


def test_octahedral_and_tetrahedral_sites_stay_two_sites():
    """fcc: two tetrahedra and an octahedron. Spinel without its Li: 8a and 16c. A layered oxide: both kinds."""
    assert [site.radius for site in guest_sites(FCC)] == pytest.approx([4.05 / 2] + [4.05 * 3**0.5 / 4] * 2)
    spinel = Structure.from_spacegroup("Fd-3m", Lattice.cubic(8.245), ["Mn", "O"], [[5 / 8] * 3, [0.3875] * 3])
    host = Crystal.from_pymatgen(spinel.get_primitive_structure())
    radii = [round(site.radius, 2) for site in guest_sites(host, min_radius=1.5)]
    assert (radii.count(2.17), radii.count(1.96)) == (4, 2)
    sites = ["Co", "O"], [[0, 0, 0], [0, 0, 0.2605]]
    layers = Structure.from_spacegroup("R-3m", Lattice.hexagonal(2.816, 14.05), *sites).get_primitive_structure()
    assert [round(s.radius, 2) for s in guest_sites(Crystal.from_pymatgen(layers), min_radius=1.7)] == [
        2.09,
        1.82,
        1.82,
    ]


def test_corners_around_one_place_are_one_site_in_their_middle():
    """Delithiated olivine: four corners around 4a, where the Li were."""
    species, sites = (
        ["Fe", "P", "O", "O", "O"],
        [
            [0.2822, 0.25, 0.9747],
            [0.0948, 0.25, 0.4182],
            [0.0967, 0.25, 0.7428],
            [0.4571, 0.25, 0.2056],
            [0.1656, 0.0465, 0.2848],
        ],
    )
    host = Structure.from_spacegroup("Pnma", Lattice.orthorhombic(10.332, 6.010, 4.692), species, sites)
    found = np.array([site.fractional for site in guest_sites(Crystal.from_pymatgen(host), min_radius=1.5)])
    for lithium in ([0, 0, 0], [0, 0.5, 0], [0.5, 0, 0.5], [0.5, 0.5, 0.5]):
        steps = found - lithium
        assert np.linalg.norm((steps - np.round(steps)) @ host.lattice.matrix, axis=1).min() < 0.05


def test_a_host_without_room_has_no_sites():
    assert guest_sites(FCC, min_radius=3.0) == []
