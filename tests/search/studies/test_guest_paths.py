"""Guest sites in voids, on partially filled sites and by symmetry, and what percolates through them."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from model.analysis.migration import Barrier
from model.crystals.crystal import Crystal
from search.studies.guest_paths import (
    ONE_SITE,
    draw_barriers,
    percolation,
    with_equal_sites,
    with_partial_sites,
    with_sites,
)


def test_an_empty_host_gets_guests_in_its_voids(licoo2):
    host = licoo2.select(licoo2.numbers != 3)
    filled = with_sites(host, "Li")
    assert set(filled.symbols) == {"Li", "Co", "O"}
    assert with_sites(licoo2, "Li") is licoo2
    assert percolation(host, "Li", max_length=3.0).lengths[2] < percolation(licoo2, "Li").lengths[2]
    with pytest.raises(ValueError, match="no void with a radius above"):
        with_sites(Crystal(host.lattice * 0.5, host.fractional, host.numbers), "Li")


def test_one_guest_of_a_symmetric_host_gives_all_its_sites():
    """LaCl3, P6_3/m: one Li on the axis of the channel becomes two a cell, c/2 apart, and gets through in 1D."""
    channel = Lattice.hexagonal(7.478, 4.375)
    places = [[1 / 3, 2 / 3, 1 / 4], [0.387, 0.302, 1 / 4]]
    host = Crystal.from_pymatgen(Structure.from_spacegroup("P6_3/m", channel, ["La", "Cl"], places))
    one = host.join(Crystal(host.lattice, [[0.01, 0, 0]], [3]))
    filled = with_equal_sites(one, "Li")
    sites = filled.select(filled.numbers == 3).fractional
    assert np.sort(sites[:, 2] % 1) == pytest.approx([0, 0.5])
    assert np.abs(sites[:, :2] - np.round(sites[:, :2])).max() < 1e-9  # six images about the axis are one site on it
    found = percolation(one, "Li", equal_sites=True)
    assert found.network.dimensions() == 1
    assert found.lengths == pytest.approx({1: 4.375 / 2})
    with pytest.raises(ValueError, match="must contain Li and a host"):
        with_equal_sites(host, "Li")


def test_barriers_are_drawn_over_the_path_length(lisi, tmp_path, monkeypatch):
    """The moving atom goes 0.4 of an edge and then, through the face of the cell, 0.2."""
    images = [lisi.replace(fractional=[[0, 0, 0], [0, 0, z]]) for z in (0.5, 0.9, 0.1)]
    band = Barrier(forward=0.3, backward=0.2, energies=np.array([0, 0.3, 0.1]), images=images, converged=True)
    drawn = []
    monkeypatch.setattr("search.studies.guest_paths.save_figure", lambda figure, path: drawn.append(figure))
    draw_barriers({"LiSi 0": band}, tmp_path / "barriers.png")
    (line,) = drawn[0].axes[0].lines
    assert line.get_ydata() == pytest.approx(band.energies)
    assert line.get_xdata() == pytest.approx(3.1 * np.array([0, 0.4, 0.6]))


@pytest.mark.parametrize(
    ("group", "lattice", "species", "sites", "dimensions", "direction", "length"),
    [
        ("P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]], 1, "[001]", 1.48),
        ("P6_3/m", Lattice.hexagonal(7.478, 4.375), ["La", "Cl"], [[1 / 3, 2 / 3, 0.25], [0.387, 0.302, 0.25]], 1,
         "[001]", 4.375 / 2),
        ("R-3m", Lattice.hexagonal(2.816, 14.05), ["Co", "O"], [[0, 0, 0], [0, 0, 0.2605]], 2, "(001)", 1.70),
        ("Fd-3m", Lattice.cubic(8.245), ["Mn", "O"], [[5 / 8] * 3, [0.3875] * 3], 3, "", 8.245 * 3**0.5 / 8),
        ("Pm-3m", Lattice.cubic(3.75), ["Re", "O"], [[0, 0, 0], [0.5, 0, 0]], 3, "", 3.75),
    ],
    ids=["rutile", "LaCl3", "CoO2", "spinel", "ReO3"],
)  # fmt: skip
def test_ways_through_empty_hosts_are_those_that_are_known(
    group, lattice, species, sites, dimensions, direction, length
):
    """Channels of rutile and LaCl3; octahedra and tetrahedra between layers of CoO2; 8a and 16c of spinel; ReO3."""
    host = Structure.from_spacegroup(group, lattice, species, sites)
    found = percolation(Crystal.from_pymatgen(host), "Li", max_length=length + 0.1)
    assert found.network.dimensions() == dimensions
    assert found.lengths[dimensions] == pytest.approx(length, abs=0.01)
    assert found.directions[dimensions].split(" ")[-1] == direction


def test_ways_do_not_go_through_atoms():
    """Li 4 Å apart with O between them: the straight way is blocked, and the one round it is longer."""
    lattice = Lattice.tetragonal(8.0, 4.0)
    through = Structure(lattice, ["Li", "O"], [[0, 0, 0], [0, 0.05, 0.5]])
    found = percolation(Crystal.from_pymatgen(through), "Li", max_length=4.1)
    assert [hop.blocked for hop in found.network.hops] == [True]
    assert (found.lengths, found.directions) == ({}, {})
    beside = Structure(lattice, ["Li", "O"], [[0, 0, 0], [0, 0.25, 0.5]])
    assert percolation(Crystal.from_pymatgen(beside), "Li", max_length=4.1).directions == {1: "along [001]"}


# --- partially filled sites ---------------------------------------------------------------------------------------

ARGYRODITE = [
    [0.5, 0.5, 0.5],  # P
    [0.618, 0.618, 0.618],  # S
    [0.25, 0.25, 0.25],  # S
    [0, 0, 0],  # Cl
]


def argyrodite(lithium, site=(0.183, 0.183, 0.024), *, anions=("S", "Cl")):
    species = ["P", "S", *anions, lithium]
    return Structure.from_spacegroup("F-43m", Lattice.cubic(9.85), species, [*ARGYRODITE, list(site)])


@pytest.mark.parametrize("occupancy", [0.5, 0.441, 0.1, 0.999])
def test_partially_filled_sites_are_the_sites(occupancy):
    """Li6PS5Cl: 48 sites in cages, doublets 1.87 Å apart, between cages 2.88 Å, which makes them percolate."""
    filled, notes = with_partial_sites(argyrodite({"Li": occupancy}), "Li")
    assert filled.symbols.count("Li") == 48 and filled.symbols.count("S") == 20
    assert notes == [f"{48 * occupancy:g} Li on 48 sites; tables and figures count sites, not atoms"]
    found = percolation(filled, "Li")
    assert found.network.hops[0].length == pytest.approx(1.867, abs=1e-3)
    assert found.lengths == pytest.approx(dict.fromkeys((1, 2, 3), 2.8835), abs=1e-3)


def test_what_shares_sites_of_the_host_is_taken_as_the_most_frequent():
    mixed = argyrodite({"Li": 0.5}, anions=({"S": 0.6, "Cl": 0.4}, {"Cl": 0.6, "S": 0.4}))
    filled, notes = with_partial_sites(mixed, "Li")
    assert filled.symbols.count("Cl") == 4
    assert set(notes[1:]) == {"a site with 0.6 S + 0.4 Cl is taken as S", "a site with 0.6 Cl + 0.4 S is taken as Cl"}


def test_a_guest_that_shares_its_sites_with_another_keeps_them():
    filled, _ = with_partial_sites(argyrodite({"Li": 0.3, "Na": 0.2}), "Na")
    assert filled.symbols.count("Na") == 48 and "Li" not in filled.symbols


def test_halves_of_a_split_site_are_one_site():
    """Two halves 0.5 Å apart; at 1 Å they are two sites."""
    lattice = Lattice.cubic(5)
    for apart, sites in ((0.5, 1), (1.0, 2)):
        places = [[0.5, 0.5, 0.5], [0, 0, apart / 10], [0, 0, -apart / 10]]
        filled, _ = with_partial_sites(Structure(lattice, ["O", {"Li": 0.5}, {"Li": 0.5}], places), "Li")
        assert filled.symbols.count("Li") == sites
        assert (apart < ONE_SITE) == (sites == 1)
        if sites == 1:
            np.testing.assert_allclose(filled.fractional[1] % 1, 0, atol=1e-9)


def test_nearly_empty_sites_of_the_host_are_left_out():
    structure = Structure(Lattice.cubic(5), [{"O": 0.3}, "Ti", {"Li": 0.5}], [[0.5, 0, 0], [0, 0, 0], [0.5, 0.5, 0.5]])
    filled, notes = with_partial_sites(structure, "Li")
    assert sorted(filled.symbols) == ["Li", "Ti"]
    assert notes[1] == "a site with 0.3 O is taken as empty"


def test_disorder_that_is_not_the_guests_must_be_ordered_first():
    with pytest.raises(ValueError, match=r"Li6PS5Cl has partially occupied sites, but none of Na: .*inpaint"):
        with_partial_sites(argyrodite({"Li": 0.5}), "Na")
    halves = Structure(
        Lattice.cubic(5), [{"O": 0.5}, {"O": 0.5}, {"Li": 0.5}], [[0, 0, 0], [0, 0, 0.15], [0.5, 0.5, 0.5]]
    )
    with pytest.raises(ValueError, match="atoms of O2 on partially occupied sites overlap"):
        with_partial_sites(halves, "Li")
