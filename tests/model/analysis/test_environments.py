import numpy as np
import pytest
from pymatgen.analysis.diffusion.aimd.rdf import RadialDistributionFunction
from pymatgen.core import Lattice, Structure

from model.analysis.environments import coordination_numbers, coordination_statistics, radial_distribution
from model.analysis.voltage import ion_charge, ion_name, voltage_curve
from model.crystals.crystal import Crystal
from model.crystals.voids import void_sites
from tests.support.crystals import rattled


def crystal(group, lattice, species, sites, *, primitive=False):
    structure = Structure.from_spacegroup(group, lattice, species, sites)
    return Crystal.from_pymatgen(structure.get_primitive_structure() if primitive else structure)


FCC = crystal("Fm-3m", Lattice.cubic(4.05), ["Al"], [[0, 0, 0]], primitive=True)
BCC = crystal("Im-3m", Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]], primitive=True)
DIAMOND = crystal("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]], primitive=True)
SALT = crystal("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
CAESIUM = crystal("Pm-3m", Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
ZINCBLENDE = crystal("F-43m", Lattice.cubic(5.41), ["Zn", "S"], [[0, 0, 0], [0.25, 0.25, 0.25]])
FLUORITE = crystal("Fm-3m", Lattice.cubic(5.46), ["Ca", "F"], [[0, 0, 0], [0.25, 0.25, 0.25]])


# --- radial distribution functions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solid", "element", "shells"),
    [
        (FCC, "Al", [(4.05 * np.sqrt(1 / 2), 12), (4.05, 6), (4.05 * np.sqrt(3 / 2), 24), (4.05 * np.sqrt(2), 12)]),
        (BCC, "Fe", [(2.87 * np.sqrt(3) / 2, 8), (2.87, 6), (2.87 * np.sqrt(2), 12), (2.87 * np.sqrt(11) / 2, 24)]),
        (DIAMOND, "Si", [(5.43 * np.sqrt(3) / 4, 4), (5.43 / np.sqrt(2), 12), (5.43 * np.sqrt(11) / 4, 12)]),
    ],
)
def test_shells_are_where_geometry_puts_them(solid, element, shells):
    found = radial_distribution([solid], element, element, cutoff=shells[-1][0] + 0.02, width=0.01)
    peaks = found.centers[found.density > 0]
    assert peaks == pytest.approx([radius for radius, _ in shells], abs=0.006)
    for radius, total in zip(peaks, np.cumsum([number for _, number in shells]), strict=True):
        assert found.neighbours[np.isclose(found.centers, radius)] == pytest.approx(total)


def test_an_ideal_gas_has_no_structure():
    gas = Crystal(np.eye(3) * 20, np.random.default_rng(0).random((3000, 3)), np.full(3000, 18))
    found = radial_distribution([gas], "Ar", "Ar", cutoff=8.0, width=0.5)
    assert found.density[4:] == pytest.approx(1, abs=0.03)


def test_pairs_of_two_elements_and_several_crystals():
    found = radial_distribution([SALT, CAESIUM, ZINCBLENDE], "Na", "Cl", cutoff=3.0)
    assert found.neighbours[-1] == 6  # the others hold no sodium
    both = radial_distribution([SALT, CAESIUM], "Cl", "Cl", cutoff=4.2)
    assert both.neighbours[-1] == pytest.approx((4 * 12 + 1 * 6) / 5)  # the mean over five chlorines


def test_the_function_is_that_of_pymatgen():
    structure = SALT.to_pymatgen()
    sodium, chlorine = ([i for i, site in enumerate(structure) if site.specie.symbol == e] for e in ("Na", "Cl"))
    theirs = RadialDistributionFunction(
        [structure], chlorine, ngrid=71, rmax=7.0, cell_range=2, reference_indices=sodium
    )
    ours = radial_distribution([SALT], "Na", "Cl", cutoff=7.0, width=0.1)
    assert ours.density == pytest.approx(theirs.raw_rdf[:-1])


def test_impossible_questions_are_refused():
    with pytest.raises(ValueError, match="no crystal contains both Na and S"):
        radial_distribution([SALT, ZINCBLENDE], "Na", "S")
    with pytest.raises(ValueError, match=r"got 1\.0 and 2\.0"):
        radial_distribution([SALT], "Na", "Cl", cutoff=1.0, width=2.0)
    with pytest.raises(ValueError, match="no crystal contains Li"):
        coordination_statistics([SALT], "Li")


# --- coordination -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solid", "center", "neighbours", "number"),
    [
        (FCC, "Al", None, 12),
        (DIAMOND, "Si", None, 4),
        (BCC, "Fe", None, 14),  # both first shells: the six at a are seen under half the angle of the eight
        (SALT, "Na", None, 6),
        (CAESIUM, "Cs", ["Cl"], 8),
        (ZINCBLENDE, "Zn", None, 4),
        (FLUORITE, "Ca", ["F"], 8),
        (FLUORITE, "F", ["Ca"], 4),
    ],
)
def test_coordination_numbers_of_textbook_crystals(solid, center, neighbours, number):
    found = coordination_numbers(solid, neighbours=neighbours)
    assert {int(n) for n, symbol in zip(found, solid.symbols, strict=True) if symbol == center} == {number}


def test_a_narrower_distance_leaves_one_shell_of_bcc():
    assert coordination_numbers(BCC, distance_cutoff=1.1).tolist() == [8]


def test_coordination_survives_noise_supercells_and_order_of_atoms(licoo2):
    assert coordination_numbers(licoo2, neighbours=["O"])[licoo2.numbers != 8].tolist() == [6, 6]
    big = Crystal.from_pymatgen(licoo2.to_pymatgen() * [2, 2, 2])
    noisy = rattled(big, width=0.05, seed=1)
    order = np.random.default_rng(0).permutation(len(noisy))
    found = coordination_numbers(
        noisy.replace(fractional=noisy.fractional[order], numbers=noisy.numbers[order]), neighbours=["O"]
    )
    assert set(found[noisy.numbers[order] != 8].tolist()) == {6}


def test_statistics_are_shares():
    assert coordination_statistics([SALT, CAESIUM], "Cl", ["Na", "Cs"]) == {6: 0.8, 8: 0.2}


# --- voids --------------------------------------------------------------------------------------------------------


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


# --- voltages -----------------------------------------------------------------------------------------------------


def test_voltages_are_slopes_of_the_hull():
    """Li in CoO2: -(E(1) - E(0) - E(Li)) = 4 V by hand; a stable phase in the middle makes two steps of it."""
    phases = [("CoO2", -10.0), ("LiCoO2", (-30.0 - 2.0 - 4.0) / 4)]
    (step,) = voltage_curve(phases, "Li", "CoO2", guest_energy=-2.0)
    assert (step.start, step.end, step.phases) == (0, 1, ("CoO2", "LiCoO2"))
    assert step.voltage == pytest.approx(4)
    middle = ("LiCo2O4", (2 * -30.0 - 2.0 - 6.0) / 7)
    steps = voltage_curve([*phases, middle], "Li", "CoO2", guest_energy=-2.0)
    assert [one.voltage for one in steps] == pytest.approx([6, 2])
    assert [one.end for one in steps] == [0.5, 1]
    assert sum((one.end - one.start) * one.voltage for one in steps) == pytest.approx(4)  # work is path-free


def test_unstable_and_foreign_phases_take_no_part():
    phases = [("CoO2", -10.0), ("LiCoO2", -9.0), ("LiCo2O4", -9.0), ("LiCoO2", -8.0), ("Li2O", -20.0), ("Co3O4", -20.0)]
    (step,) = voltage_curve(phases, "Li", "CoO2", guest_energy=-2.0)
    assert step.phases == ("CoO2", "LiCoO2")
    filled = voltage_curve([*phases, ("Li2CoO2", -7.5)], "Li", "CoO2", guest_energy=-2.0)
    assert filled == [step]  # taking up the second Li would cost energy


def test_a_doubly_charged_guest_halves_the_voltage():
    phases = [("MnO2", -8.0), ("MgMn2O4", -8.0)]
    (step,) = voltage_curve(phases, "Mg", "MnO2", guest_energy=-1.5)
    (single,) = voltage_curve(phases, "Mg", "MnO2", guest_energy=-1.5, charge=1)
    assert single.voltage == pytest.approx(2 * step.voltage)
    assert step.voltage == pytest.approx((8.0 * 7 - 8.0 * 6 - 1.5) / 2)


def test_a_host_with_the_guest_in_it_is_refused():
    with pytest.raises(ValueError, match="LiCoO2 contains the guest Li"):
        voltage_curve([], "Li", "LiCoO2", guest_energy=0)
    assert voltage_curve([("MnO2", -8.0)], "Li", "CoO2", guest_energy=0) == []


@pytest.mark.parametrize(
    ("guest", "name"),
    [("Li", "Li+"), ("Na", "Na+"), ("Ag", "Ag+"), ("Cu", "Cu+"), ("Mg", "Mg2+"), ("Zn", "Zn2+"), ("Fe", "Fe2+"),
     ("Mn", "Mn2+"), ("V", "V3+"), ("Cr", "Cr3+"), ("Al", "Al3+"), ("H", "H+"), ("F", "F-"), ("S", "S2-")],
)  # fmt: skip
def test_the_usual_charge_of_a_guest_is_that_of_its_ion_in_a_host(guest, name):
    assert ion_name(guest, ion_charge(guest)) == name


def test_copper_in_a_sulphide_takes_one_electron():
    phases = [("TiS2", -6.0), ("CuTiS2", -5.5)]
    (step,) = voltage_curve(phases, "Cu", "TiS2", guest_energy=-3.5)
    assert step.voltage == pytest.approx(-(4 * -5.5 - 3 * -6.0 + 3.5))


def test_a_charge_that_is_no_charge_is_refused():
    with pytest.raises(ValueError, match="must not be 0"):
        voltage_curve([], "Li", "CoO2", guest_energy=0, charge=0)
    with pytest.raises(ValueError, match="Ar has no usual ionic charge: give it with --charge"):
        ion_charge("Ar")
