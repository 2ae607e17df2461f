import numpy as np
import pytest
from pymatgen.analysis.diffusion.aimd.rdf import RadialDistributionFunction
from pymatgen.core import Lattice, Structure

from model.analysis.radial import radial_distribution
from model.crystals.crystal import Crystal


def crystal(group, lattice, species, sites, *, primitive=False):
    structure = Structure.from_spacegroup(group, lattice, species, sites)
    return Crystal.from_pymatgen(structure.get_primitive_structure() if primitive else structure)


FCC = crystal("Fm-3m", Lattice.cubic(4.05), ["Al"], [[0, 0, 0]], primitive=True)
BCC = crystal("Im-3m", Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]], primitive=True)
DIAMOND = crystal("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]], primitive=True)
SALT = crystal("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
CAESIUM = crystal("Pm-3m", Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
ZINCBLENDE = crystal("F-43m", Lattice.cubic(5.41), ["Zn", "S"], [[0, 0, 0], [0.25, 0.25, 0.25]])


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
