"""The corrections of MP2020: what they are, that they are added once, and that they change nothing else."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.lj import LennardJones
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
from pymatgen.entries.computed_entries import ComputedStructureEntry

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.library.phases import packaged_library
from model.potentials.ase import ASEPotential
from model.potentials.calculators import CalculatorSettings
from model.potentials.catalog import CATALOG, load_potential
from model.potentials.corrections import CorrectedPotential, hubbard_u, mp2020_correction, usual_correction
from model.potentials.energies import Energies
from model.relaxation.relax import RelaxSettings, relax

LJ = {"calculator": "ase.calculators.lj.LennardJones", "arguments": {"sigma": 2.0, "epsilon": 0.2, "rc": 6.0}}
MAGNESIA = Crystal.from_ase(bulk("MgO", "rocksalt", a=4.21))


def one_of(formula: str) -> Crystal:
    return packaged_library().find(formula)[0].crystal


@pytest.mark.parametrize(
    ("formula", "per_formula"),  # eV, the published values (Wang et al. 2021, Table 2) per anion and metal
    [
        ("MgO", -0.687),
        ("Na2O2", 2 * -0.465),  # peroxide
        ("KO2", 2 * -0.161),  # superoxide
        ("Li2S", -0.503),
        ("Na2SO4", 4 * -0.687),  # the sulphur of a sulphate is no anion
        ("NaCl", -0.614),
        ("LiF", -0.462),
        ("MgH2", 2 * -0.179),
        ("AlN", -0.361),
        ("MnO", -1.668 - 0.687),  # +U
        ("FeS2", 2 * -0.503),  # GGA, since sulphides have no U
        ("NiAl", 0.0),
        ("Si", 0.0),
    ],
)
def test_the_corrections_are_the_published_ones(formula, per_formula) -> None:
    crystal = one_of(formula)
    atoms = Composition(crystal.formula).num_atoms
    assert mp2020_correction(crystal) == pytest.approx(per_formula / atoms, abs=1e-6)


def test_hydroxides_count_as_oxides() -> None:
    structure = Structure.from_spacegroup(
        "P-3m1",
        Lattice.hexagonal(3.15, 4.77),
        ["Mg", "O", "H"],
        [[0, 0, 0], [1 / 3, 2 / 3, 0.22], [1 / 3, 2 / 3, 0.42]],
    )
    assert mp2020_correction(Crystal.from_pymatgen(structure)) == pytest.approx(2 * -0.687 / 5)


@pytest.mark.parametrize("anion", ["Sb", "Te", "S", "I"])
def test_between_an_element_and_minus_one_they_are_linear_in_the_composition(anion) -> None:
    """Nothing between the element and the compound of −1 is favoured against these two."""
    whole = usual_correction(f"Na{anion}")
    assert whole == pytest.approx(0.5 * {"Sb": -0.192, "Te": -0.422, "S": -0.503, "I": -0.379}[anion])
    for atoms in (2, 3, 8, 31):  # 31: too many atoms for oxidation states to be guessed
        assert usual_correction(f"Na{anion}{atoms}") == pytest.approx(whole * 2 / (atoms + 1)), atoms


def test_an_anion_that_is_short_of_charge_is_reduced_as_far_as_it_can_be() -> None:
    assert usual_correction("Na3Sb") == pytest.approx(-0.192 / 4)
    assert usual_correction("Na10Sb") == pytest.approx(-0.192 / 11)  # no oxidation states balance


def test_they_are_those_of_pymatgen_for_entries_of_the_materials_project() -> None:
    scheme = MaterialsProject2020Compatibility(check_potcar=False, strict_anions="no_check")
    for formula in ("Fe2O3", "LiFePO4", "Li3PS4", "BaO2", "CaCO3", "VF3", "Cs2Te", "TiSi2", "NaAlH4"):
        for phase in packaged_library().find(formula)[:1]:
            crystal = phase.crystal
            hubbards = hubbard_u(crystal.composition)
            entry = ComputedStructureEntry(
                crystal.to_pymatgen(),
                -1.0,
                parameters={"run_type": "GGA+U" if hubbards else "GGA", "hubbards": hubbards, "software": "other"},
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scheme.process_entry(entry)
            assert mp2020_correction(crystal) == pytest.approx(entry.correction_per_atom, abs=1e-9), formula


def test_raw_energies_are_corrected_and_others_are_not() -> None:
    raw, corrected, own = (load_potential(CalculatorSettings(**LJ, energies=kind)) for kind in ("MP2020", "GGA", "own"))
    energies = [one.evaluate([MAGNESIA])[0].energy for one in (raw, corrected, own)]
    assert energies[1] - energies[0] == pytest.approx(-0.687 / 2)
    assert energies[2] == energies[0]
    assert {entry.energies for entry in CATALOG.values() if entry.package == "chgnet"} == {
        Energies.MP2020,
        Energies.R2SCAN,
    }
    assert not isinstance(load_potential("chgnet-0.3.0"), CorrectedPotential)


def test_forces_and_stresses_stay_and_failures_stay_failures() -> None:
    raw = ASEPotential(LennardJones(sigma=2.0, epsilon=0.2, rc=6.0))
    moved = MAGNESIA.replace(fractional=MAGNESIA.fractional + np.array([[0, 0, 0], [0.05, 0.01, 0]]))
    broken = MAGNESIA.replace(lattice=np.full((3, 3), np.nan))
    batch = Batch.from_crystals([moved, broken, one_of("Si")], dtype=torch.float64)
    before, after = raw.compute(batch), CorrectedPotential(raw).compute(batch)
    np.testing.assert_array_equal(after.forces, before.forces)
    np.testing.assert_array_equal(after.stress, before.stress)
    assert after.problems == before.problems and after.problems[1]
    np.testing.assert_allclose(after.energy - before.energy, [-0.687 / 2, np.nan, 0.0])


def test_a_relaxation_ends_where_it_ends_without_corrections() -> None:
    raw = ASEPotential(LennardJones(sigma=1.9, epsilon=0.3, rc=6.0, smooth=True))
    settings = RelaxSettings(fmax=0.01)
    (plain,), (corrected,) = (relax([MAGNESIA], one, settings) for one in (raw, CorrectedPotential(raw)))
    assert plain.converged and corrected.converged and plain.steps == corrected.steps
    np.testing.assert_allclose(corrected.final.lattice, plain.final.lattice, atol=1e-10)
    assert corrected.energy_final - plain.energy_final == pytest.approx(-0.687 / 2)
