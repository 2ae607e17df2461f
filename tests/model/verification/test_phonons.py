"""Phonons against a lattice of springs and against phonopy by itself; modes that are followed; elastic constants."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.units import GPa
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from model.crystals.crystal import Crystal
from model.potentials.ase import ASEPotential
from model.potentials.catalog import DEFAULT, load_potential
from model.symmetry.space_group import space_group
from model.verification.elastic import elastic_constants
from model.verification.modes import displaced_both_ways, follow_modes, ways_along_modes
from model.verification.phonons import NoPhonons, mode_displacements, phonons
from model.verification.settings import PhononSettings

THZ = 15.633302  # of the square root of eV/Å²/u, as an ordinary frequency
EDGE, MASS = 3.0, 63.546  # Å, u


class Springs(Calculator):
    """Cu atoms on a simple cubic lattice of 3 Å, each joined to its six neighbours by springs in all directions."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, stiffness):
        super().__init__()
        self.stiffness = stiffness

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        cells = np.rint(np.diag(atoms.cell.array) / EDGE).astype(int)
        sites = np.rint(atoms.positions / EDGE).astype(int)
        moved = atoms.positions - EDGE * sites
        field = np.zeros((*cells, 3))
        field[tuple((sites % cells).T)] = moved - moved.mean(0)
        apart = [np.roll(field, way, axis) - field for axis in range(3) for way in (1, -1)]
        forces = (self.stiffness * sum(apart))[tuple((sites % cells).T)]
        energy = self.stiffness / 4 * sum(np.square(one).sum() for one in apart)
        self.results = {"energy": energy, "forces": forces, "stress": np.zeros(6)}


def springs(stiffness):
    crystal = Crystal(EDGE * np.eye(3), [[0, 0, 0]], [29])
    return phonons(crystal, ASEPotential(Springs(stiffness)), PhononSettings(height=10, displacement=0.02))


def test_a_lattice_of_springs_has_its_frequencies():
    """ω² = (2k/m) Σ (1 − cos qᵢa), three times."""
    found = springs(1.3)
    points = np.array([[0.5, 0, 0], [0.5, 0.5, 0], [0.25, 0.5, 0.25], [0.1, 0.2, 0.3]])
    expected = THZ * np.sqrt(2 * 1.3 / MASS * (1 - np.cos(2 * np.pi * points)).sum(1))
    np.testing.assert_allclose(found.frequencies(points), np.tile(expected[:, None], 3), rtol=1e-4)
    assert found.displacements == 1 and not found.imaginary
    assert found.supercell.tolist() == (4 * np.eye(3)).tolist()
    assert found.frequencies([[0, 0, 0]]) == pytest.approx(0, abs=1e-3)
    assert np.trapezoid(found.dos, found.dos_frequencies) == pytest.approx(3, rel=0.03)


def test_springs_that_push_make_imaginary_modes():
    found = springs(-1.3)
    assert found.lowest == pytest.approx(-THZ * np.sqrt(2 * 1.3 / MASS * 6), rel=1e-4)  # at the corner of the zone
    np.testing.assert_allclose(found.imaginary[0].wave_vector % 1, 0.5)
    supercell, moves = mode_displacements(found, found.imaginary[0])
    assert len(supercell) == 2  # the smallest cell that holds the corner of the zone
    assert np.linalg.norm(moves, axis=1) == pytest.approx(1)
    assert np.abs(moves.sum(0)).max() < 1e-6  # neighbours move against each other


@pytest.mark.parametrize("name", ["Cu", "Al"])
def test_frequencies_are_those_of_phonopy_by_itself(name):
    found = phonons(Crystal.from_ase(bulk(name)), ASEPotential(EMT()))
    crystal = found.crystal
    cell = PhonopyAtoms(numbers=crystal.numbers, cell=crystal.lattice, scaled_positions=crystal.fractional)
    other = Phonopy(cell, supercell_matrix=found.supercell.T, primitive_matrix="P")
    other.generate_displacements(distance=0.05)
    forces = []
    for one in other.supercells_with_displacements:
        atoms = Crystal(one.cell, one.scaled_positions, one.numbers).to_ase()
        atoms.calc = EMT()
        forces.append(atoms.get_forces())
    other.forces = forces
    other.produce_force_constants(show_drift=False)
    other.symmetrize_force_constants(show_drift=False)
    points = [[0.5, 0.5, 0.5], [0.5, 0, 0.5], [0.25, 0.5, 0.75]]
    other.run_qpoints(points)
    np.testing.assert_allclose(found.frequencies(points), other.qpoints.frequencies, rtol=1e-4)


def test_any_cell_of_a_crystal_gives_its_primitive_one():
    found = phonons(Crystal.from_ase(bulk("Cu", cubic=True)), ASEPotential(EMT()))
    assert len(found.crystal) == 1 and found.displacements == 1


def test_what_cannot_be_computed_is_said():
    copper, potential = Crystal.from_ase(bulk("Cu", a=3.8)), ASEPotential(EMT())
    with pytest.raises(NoPhonons, match="has 32 atoms, more than 8"):
        phonons(copper, potential, PhononSettings(max_atoms=8, height=7))
    with pytest.raises(NoPhonons, match="does not relax"):
        phonons(copper, potential, PhononSettings(max_steps=0))


def perovskite(a, *numbers):
    return Crystal(a * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]], numbers)


def test_a_cubic_perovskite_tilts():
    """Cubic CsPbI3 is a saddle point; at the corner of the zone its octahedra turn against their neighbours."""
    potential = load_potential(DEFAULT)
    found = phonons(perovskite(6.3, 55, 82, 53, 53, 53), potential)
    corner = next(mode for mode in found.imaginary if np.allclose(mode.wave_vector % 1, 0.5))
    assert corner.frequency < -0.5
    one, *_ = displaced_both_ways(found, corner)
    assert len(one) == 10
    lowest, *_ = follow_modes(found, potential, most=1)
    assert lowest.fall > 0.01 and space_group(lowest.crystal).number < 221
    angles = lead_iodine_lead(lowest.crystal)
    assert min(angles) < 165


def test_the_ways_along_modes_have_the_atoms_that_were_asked_for():
    """A simple cubic lattice whose springs push: none in one cell, neighbours move apart in a doubled one."""
    potential = ASEPotential(Springs(-1.3))
    one = Crystal(EDGE * np.eye(3), [[0, 0, 0]], [29])
    two = Crystal(EDGE * np.diag([2, 1, 1]), [[0, 0, 0], [0.5, 0, 0]], [29, 29])
    assert ways_along_modes(one, potential) == []
    ways = ways_along_modes(two, potential)
    assert ways and all(len(way) == 2 for way in ways)
    apart = [way.to_ase().get_distance(0, 1, mic=True) for way in ways]
    assert min(apart) < EDGE - 0.1


def lead_iodine_lead(crystal):
    """Degrees, angle at each I between its two Pb neighbours."""
    structure = crystal.to_pymatgen()
    found = []
    for place in np.flatnonzero(crystal.numbers == 53):
        near = [one for one in structure.get_neighbors(structure[place], 4.5) if one.specie.Z == 82]
        first, second = (one.coords - structure[place].coords for one in sorted(near, key=lambda n: n.nn_distance)[:2])
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        found.append(np.degrees(np.arccos(cosine)))
    return found


def test_the_bulk_modulus_is_the_curvature_of_the_energy():
    potential = ASEPotential(EMT())
    copper = phonons(Crystal.from_ase(bulk("Cu")), potential).crystal
    scales = np.array([0.995, 1.0, 1.005])
    energies = [one.energy for one in potential.evaluate([copper.replace(lattice=copper.lattice * s) for s in scales])]
    curvature = np.polyfit(copper.volume * scales**3, energies, 2)[0] * 2  # a cell of one atom
    found = elastic_constants(copper, potential)
    assert found.bulk_modulus == pytest.approx(copper.volume * curvature / GPa, rel=0.02)
    assert found.stable
    c = found.constants
    np.testing.assert_allclose([c[1, 1], c[2, 2], c[4, 4], c[0, 2]], [c[0, 0], c[0, 0], c[3, 3], c[0, 1]], rtol=1e-3)


def test_a_crystal_that_gives_way_is_not_stable():
    """Cubic CsPbI3 gives way to shear, as its imaginary modes at long waves say."""
    crystal = phonons(perovskite(6.3, 55, 82, 53, 53, 53), load_potential(DEFAULT)).crystal
    assert not elastic_constants(crystal, load_potential(DEFAULT)).stable
