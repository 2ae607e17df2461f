import warnings
from collections import Counter
from operator import itemgetter

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.optimize import BFGS
from pymatgen.analysis.diffusion.neb.full_path_mapper import MigrationGraph
from pymatgen.core import Lattice, Structure

from model.analysis.migration import BarrierSettings, barrier, hop_ends, migration_network
from model.crystals.crystal import Crystal
from model.potentials.ase import ASEPotential
from model.potentials.chgnet.potential import CHGNetPotential

LFP = Structure.from_spacegroup(
    "Pnma",
    Lattice.orthorhombic(10.332, 6.010, 4.692),
    ["Li", "Fe", "P", "O", "O", "O"],
    [
        [0, 0, 0],
        [0.2822, 0.25, 0.9747],
        [0.0948, 0.25, 0.4182],
        [0.0967, 0.25, 0.7428],
        [0.4571, 0.25, 0.2056],
        [0.1656, 0.0465, 0.2848],
    ],
)


def test_lithium_in_olivine_goes_along_b_only():
    """LiFePO4: the 3 Å hop along b makes one-dimensional channels; the next are longer than 4.5 Å."""
    network = migration_network(Crystal.from_pymatgen(LFP), "Li", max_length=4.5)
    assert [hop.length for hop in network.hops] == pytest.approx([6.010 / 2])
    assert network.hops[0].multiplicity == 4
    along = (network.hops[0].end - network.hops[0].start) @ LFP.lattice.matrix
    assert np.abs(along) == pytest.approx([0, 3.005, 0], abs=1e-6)
    assert network.dimensions() == 1
    wider = migration_network(Crystal.from_pymatgen(LFP), "Li", max_length=6.0)
    thresholds = wider.percolation_thresholds([hop.length for hop in wider.hops])
    assert thresholds[1] == pytest.approx(3.005)
    assert thresholds[2] > 4.5


def test_lithium_in_cobaltate_goes_within_layers(licoo2):
    network = migration_network(licoo2, "Li", max_length=3.5)
    assert [hop.length for hop in network.hops] == pytest.approx([2.816], abs=1e-3)
    assert network.hops[0].multiplicity == 3
    assert network.dimensions() == 2


@pytest.mark.parametrize(
    ("group", "cell", "site", "length", "dimensions"),
    [
        ("Pm-3m", Lattice.cubic(3.0), [0, 0, 0], 3.1, 3),
        ("P4/mmm", Lattice.tetragonal(5.0, 3.0), [0, 0, 0], 3.1, 1),
        ("P4/mmm", Lattice.tetragonal(3.0, 5.0), [0, 0, 0], 3.1, 2),
        ("Pm-3m", Lattice.cubic(5.0), [0, 0, 0], 4.0, 0),
    ],
)
def test_simple_lattices_percolate_as_they_must(group, cell, site, length, dimensions):
    host = [0.5, 0.5, 0.5]
    structure = Structure.from_spacegroup(group, cell, ["Li", "O"], [site, host])
    for cells in ([1, 1, 1], [2, 2, 2]):
        network = migration_network(Crystal.from_pymatgen(structure * cells), "Li", max_length=length)
        assert network.dimensions() == dimensions


def test_pairs_of_sites_do_not_percolate():
    """Dimers 2 Å long and 6 Å apart: hops, but no way through."""
    structure = Structure(Lattice.cubic(8), ["Li", "Li", "O"], [[0, 0, 0], [0, 0, 0.25], [0.5, 0.5, 0.5]])
    network = migration_network(Crystal.from_pymatgen(structure), "Li", max_length=3)
    assert len(network.hops) == 1
    assert network.dimensions() == 0
    assert network.percolation_thresholds([1.0]) == {}


def test_the_gate_is_the_tightest_point(licoo2):
    """A straight hop within the layer passes between two oxygens; geometry gives their distance to its middle."""
    (hop,) = migration_network(licoo2, "Li", max_length=3.5).hops
    middle = (hop.start + hop.end) / 2
    oxygen = licoo2.select(licoo2.numbers == 8).to_pymatgen()
    expected = min(site.nn_distance for site in oxygen.get_sites_in_sphere(middle @ licoo2.lattice, 4.0))
    assert hop.bottleneck_radius == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("length", [3.1, 4.5, 6.1])
def test_hops_are_those_of_pymatgen(licoo2, length):
    """Olivine, a layered oxide and a channel: lengths and multiplicities of the MigrationGraph."""
    sites = [[0, 0, 0], [1 / 3, 2 / 3, 1 / 4], [0.387, 0.302, 1 / 4]]
    channel = Structure.from_spacegroup("P6_3/m", Lattice.hexagonal(7.478, 4.375), ["Li", "La", "Cl"], sites)
    for crystal in (Crystal.from_pymatgen(LFP), licoo2, Crystal.from_pymatgen(channel)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pymatgen on spglib
            graph = MigrationGraph.with_distance(crystal.wrapped().to_pymatgen(), "Li", length, symprec=0.1)
        edges = [data for *_, data in graph.m_graph.graph.edges(data=True)]
        counts = Counter(data["hop_label"] for data in edges)
        theirs = sorted({data["hop_label"]: round(data["hop"].length, 4) for data in edges}.items(), key=itemgetter(1))
        ours = migration_network(crystal, "Li", max_length=length)
        assert [hop.length for hop in ours.hops] == pytest.approx([length for _, length in theirs], abs=1e-3)
        assert sorted(hop.multiplicity for hop in ours.hops) == sorted(counts.values())
        assert len(ours.edges) == len(edges)


@pytest.mark.parametrize(
    ("group", "cell", "length", "direction"),
    [
        ("P4/mmm", Lattice.tetragonal(5.0, 3.0), 3.1, "along [001]"),
        ("P4/mmm", Lattice.tetragonal(3.0, 5.0), 3.1, "in (001)"),
        ("Pmmm", Lattice.orthorhombic(3.0, 5.0, 3.1), 3.2, "in (010)"),
        ("Pmmm", Lattice.orthorhombic(3.0, 5.0, 6.0), 3.2, "along [100]"),
        ("Pm-3m", Lattice.cubic(3.0), 3.1, ""),
        ("Pm-3m", Lattice.cubic(5.0), 3.1, ""),
    ],
)
def test_the_direction_is_that_of_the_short_edges(group, cell, length, direction):
    structure = Structure.from_spacegroup(group, cell, ["Li", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    for cells in ([1, 1, 1], [2, 2, 2]):
        network = migration_network(Crystal.from_pymatgen(structure * cells), "Li", max_length=length)
        assert network.direction() == direction


def test_channels_in_two_directions_have_no_direction():
    """Rods along a at one height, along b at another, without a way between them."""
    rods = Structure(Lattice.orthorhombic(3, 3, 12), ["Li", "O"], [[0, 0, 0], [0.5, 0.5, 0.25]])
    one = migration_network(Crystal.from_pymatgen(rods * [1, 2, 1]), "Li", max_length=3.1)
    assert one.dimensions() == 2
    lithium = [[x / 2, 0, 0] for x in range(2)] + [[0, y / 2, 0.5] for y in range(2)]
    crossed = Structure(Lattice.orthorhombic(6, 6, 12), ["Li"] * 4 + ["O"], [*lithium, [0.5, 0.5, 0.25]])
    network = migration_network(Crystal.from_pymatgen(crossed), "Li", max_length=3.1)
    assert (network.dimensions(), network.direction()) == (1, "")


def test_a_crystal_without_the_guest_is_refused(licoo2):
    with pytest.raises(ValueError, match="LiCoO2 contains no Na"):
        migration_network(licoo2, "Na")


# --- barriers -----------------------------------------------------------------------------------------------------


def test_ends_of_a_vacancy_hop_and_of_a_single_guest(licoo2):
    network = migration_network(licoo2, "Li", max_length=3.5)
    for vacancy in (True, False):
        settings = BarrierSettings(min_length=5.0, vacancy=vacancy)
        before, after = hop_ends(network, 0, settings)
        cells = round(before.volume / licoo2.volume)
        assert (before.numbers == 3).sum() == (cells - 1 if vacancy else 1)
        assert (before.numbers != 3).sum() == 3 * cells
        assert np.array_equal(before.numbers, after.numbers)
        assert np.array_equal(before.fractional[:-1], after.fractional[:-1])
        moved = (after.fractional - before.fractional)[-1] @ before.lattice
        assert np.linalg.norm(moved) == pytest.approx(network.hops[0].length)


def test_the_barrier_of_a_symmetric_hop_is_that_of_its_middle():
    """A vacancy in fcc copper (EMT): by symmetry the saddle is half way, so relaxing the others around it gives it."""
    copper = Crystal.from_ase(bulk("Cu", cubic=True))
    network = migration_network(copper, "Cu", max_length=2.7)
    assert network.dimensions() == 3
    settings = BarrierSettings(min_length=7.0, images=3, fmax=0.02)
    found = barrier(network, 0, ASEPotential(EMT()), settings)
    before, after = hop_ends(network, 0, settings)
    middle = before.replace(fractional=(before.fractional + after.fractional) / 2).to_ase()
    energies = []
    for atoms, fixed in ((before.to_ase(), []), (middle, [len(middle) - 1])):
        atoms.calc = EMT()
        atoms.set_constraint(FixAtoms(fixed))
        BFGS(atoms, logfile=None).run(fmax=0.005)
        energies.append(atoms.get_potential_energy())
    assert found.converged
    assert found.forward == pytest.approx(energies[1] - energies[0], abs=0.01)
    assert found.backward == pytest.approx(found.forward, abs=0.01)
    assert found.energies[0] == 0


def test_a_band_is_the_same_each_time(licoo2):
    network = migration_network(licoo2, "Li", max_length=3.5)
    settings = BarrierSettings(min_length=2.5, images=1, max_steps=3)
    one, other = (barrier(network, 0, CHGNetPotential(), settings) for _ in range(2))
    assert np.array_equal(one.energies, other.energies)
    assert not one.converged
