"""What every potential must fulfil: those of the catalogue as they are loaded, and any ASE calculator.

A new potential gets a case in `CASES`: how it is loaded, and how exact its numbers are.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.lj import LennardJones
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.potentials.ase import ASEPotential
from model.potentials.catalog import CATALOG, load_potential
from model.potentials.chgnet.potential import CHGNetPotential
from model.potentials.corrections import CorrectedPotential
from model.potentials.interface import Evaluation, Potential
from model.potentials.sevennet.potential import SevenNetPotential
from model.symmetry.projector import symmetric_start

torch.set_num_threads(1)
# The stock package turns its volumes into scalars in a way that torch warns about.
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True:UserWarning")


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far numbers that should be equal may lie apart.

    Attributes:
        energy: eV/atom.
        forces: eV/Å.
        stress: eV/Å³.
        step: Å, of finite differences: small, but not so small that energies differ by their rounding only.
    """

    energy: float
    forces: float
    stress: float
    step: float


@dataclass(frozen=True)
class Case:
    """A potential under test: how it is loaded, and how exact it is."""

    load: Callable[[], Potential]
    tolerance: Tolerance


SINGLE = Tolerance(energy=2e-6, forces=5e-5, stress=5e-6, step=1e-3)
STOCK = Tolerance(energy=5e-6, forces=1e-3, stress=2e-5, step=2e-3)  # differs from processor to processor
ROUNDED = Tolerance(energy=1e-9, forces=1e-7, stress=1e-8, step=1e-4)  # its coupling coefficients are stored in float32
DOUBLE = Tolerance(energy=1e-11, forces=1e-7, stress=1e-8, step=1e-5)


def lennard_jones() -> Potential:
    calculator = LennardJones(sigma=2.2, epsilon=0.1, rc=6.0, ro=4.5, smooth=True)
    return ASEPotential(calculator, name="lennard-jones")


def stock_chgnet() -> Potential:
    from chgnet.model import CHGNetCalculator

    return ASEPotential(CHGNetCalculator(use_device="cpu", on_isolated_atoms="ignore"), name="stock-chgnet")


CASES = {
    "chgnet-0.3.0": Case(lambda: load_potential("chgnet-0.3.0"), SINGLE),
    "chgnet-r2scan": Case(lambda: load_potential("chgnet-r2scan"), SINGLE),
    "chgnet-0.3.0 in float64": Case(lambda: CHGNetPotential("chgnet-0.3.0", dtype=torch.float64), DOUBLE),
    "chgnet-r2scan in float64": Case(lambda: CHGNetPotential("chgnet-r2scan", dtype=torch.float64), DOUBLE),
    "7net-0": Case(lambda: load_potential("7net-0"), SINGLE),
    "7net-0 in float64": Case(lambda: SevenNetPotential("7net-0", dtype=torch.float64), ROUNDED),
    "7net-l3i5": Case(lambda: load_potential("7net-l3i5"), SINGLE),
    "7net-mf-0-pbe": Case(lambda: load_potential("7net-mf-0-pbe"), SINGLE),
    "7net-mf-0-r2scan": Case(lambda: load_potential("7net-mf-0-r2scan"), SINGLE),
    "lennard-jones": Case(lennard_jones, DOUBLE),
    "lennard-jones with corrections": Case(lambda: CorrectedPotential(lennard_jones()), DOUBLE),
    "stock-chgnet": Case(stock_chgnet, STOCK),
}
SLOW = {"stock-chgnet"}
SEVENNET = importlib.util.find_spec("sevenn") is not None


def available(name: str) -> str:
    """Skip the test where the package with the potential's weights is not installed."""
    if name.startswith("7net") and not SEVENNET:
        pytest.skip("needs the package sevenn")
    return name


def rattled(crystal: Crystal, *, seed: int) -> Crystal:
    """Atoms and cell displaced at random, so that nothing is zero by symmetry."""
    rng = np.random.default_rng(seed)
    lattice = crystal.lattice @ (np.eye(3) + rng.normal(0, 0.02, (3, 3)))
    moved = crystal.fractional + rng.normal(0, 0.08, crystal.fractional.shape) @ np.linalg.inv(lattice)
    return crystal.replace(lattice=lattice, fractional=moved)


def of_group(group: str, lattice: Lattice, species: list[str], sites: list[list[float]]) -> Crystal:
    return Crystal.from_pymatgen(Structure.from_spacegroup(group, lattice, species, sites).get_primitive_structure())


SALT = Crystal.from_ase(bulk("NaCl", "rocksalt", a=5.64))
IRON = Crystal.from_ase(bulk("Fe", a=2.86))
ANATASE = of_group("I4_1/amd", Lattice.tetragonal(3.78, 9.51), ["Ti", "O"], [[0, 0, 0], [0, 0, 0.208]])
COBALTATE = rattled(
    of_group("R-3m", Lattice.hexagonal(2.816, 14.05), ["Li", "Co", "O"], [[0, 0, 0.5], [0, 0, 0], [0, 0, 0.2605]]),
    seed=0,
)
ARSENIDE = Crystal.from_ase(bulk("GaAs", "zincblende", a=5.75))
SHEAR = np.array([[1, 0, 0], [3, 1, 0], [0, -3, 1]])  # another cell of the same lattice, far from compact
SKEWED = rattled(
    ARSENIDE.replace(lattice=SHEAR @ ARSENIDE.lattice, fractional=ARSENIDE.fractional @ np.linalg.inv(SHEAR)), seed=1
)
OUTSIDE = Crystal(np.eye(3) * 4.2, [[-3.2, 5.1, 0.02], [0.5, 1.5, -7.5]], [12, 8])
MANY = of_group(
    "I-43d",
    Lattice.cubic(10.69),
    ["Li", "Li", "Si"],
    [[0.375, 0, 0.25], [0.1236, 0.1577, 0.9605], [0.208, 0.208, 0.208]],
)
RAGGED = [IRON, COBALTATE, SALT, MANY, SKEWED, OUTSIDE]
MOLECULE = Crystal(np.eye(3) * 14.0, [[0, 0, 0], [0.15, 0, 0], [0.19, 0.13, 0.02]], [7, 7, 8])
on_low_symmetry = pytest.mark.parametrize(
    "crystal", [COBALTATE, SKEWED, MOLECULE], ids=["LiCoO2", "GaAs", "a molecule in vacuum"]
)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CASES]
)
def case(request) -> tuple[Potential, Tolerance]:
    case = CASES[available(request.param)]
    return case.load(), case.tolerance


@pytest.fixture
def potential(case) -> Potential:
    return case[0]


@pytest.fixture
def tolerance(case) -> Tolerance:
    return case[1]


def assert_alike(found: Evaluation, expected: Evaluation, tolerance: Tolerance) -> None:
    assert found.problem == expected.problem == ""
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=tolerance.energy)
    np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=tolerance.forces)
    np.testing.assert_allclose(found.stress, expected.stress, rtol=0, atol=tolerance.stress)


def test_every_potential_of_the_catalogue_is_tested() -> None:
    assert set(CATALOG) <= set(CASES)


@pytest.mark.parametrize("name", CATALOG)
def test_the_catalogue_loads_what_it_names(name) -> None:
    assert load_potential(available(name)).name == name


def test_it_says_what_it_is(potential) -> None:
    assert potential.name and potential.version
    assert potential.device == torch.device("cpu")


def test_an_answer_is_whole(potential) -> None:
    for crystal, result in zip(RAGGED, potential.evaluate(RAGGED), strict=True):
        assert result.problem == ""
        assert isinstance(result.energy, float)
        assert result.forces.shape == (len(crystal), 3) and result.forces.dtype == np.float64
        assert result.stress.shape == (3, 3) and result.stress.dtype == np.float64
        np.testing.assert_allclose(result.stress, result.stress.T, rtol=0, atol=1e-12)
        numbers = [result.energy, result.forces, result.stress]
        if result.magmoms is not None:
            assert result.magmoms.shape == (len(crystal),)
            numbers.append(result.magmoms)
        assert all(np.isfinite(number).all() for number in numbers)


def test_nothing_to_evaluate(potential) -> None:
    assert potential.evaluate([]) == []


@on_low_symmetry
def test_a_rotation_turns_forces_and_stress(crystal, potential, tolerance) -> None:
    turn = Rotation.from_euler("xyz", [0.3, -1.1, 2.0]).as_matrix()
    before, after = potential.evaluate([crystal, crystal.replace(lattice=crystal.lattice @ turn.T)])
    turned = Evaluation(
        energy=before.energy, forces=before.forces @ turn.T, stress=turn @ before.stress @ turn.T, magmoms=None
    )
    assert_alike(after, turned, tolerance)


@on_low_symmetry
def test_a_translation_changes_nothing(crystal, potential, tolerance) -> None:
    moved = crystal.replace(fractional=crystal.fractional + np.array([0.37, -0.81, 1.6]))
    before, after = potential.evaluate([crystal, moved])
    assert_alike(after, before, tolerance)


@on_low_symmetry
def test_the_order_of_atoms_changes_nothing_else(crystal, potential, tolerance) -> None:
    order = np.arange(len(crystal))[::-1]
    other = crystal.replace(fractional=crystal.fractional[order], numbers=crystal.numbers[order])
    before, after = potential.evaluate([crystal, other])
    assert_alike(after, replace(before, forces=before.forces[order], magmoms=None), tolerance)


@on_low_symmetry
def test_a_supercell_is_the_same_crystal(crystal, potential, tolerance) -> None:
    """Another cell of the same lattice, twice as large and sheared."""
    cells = np.array([[1, 0, 0], [1, 2, 0], [0, -1, 1]])
    images = np.concatenate([crystal.fractional, crystal.fractional + np.array([0, 1, 0])])
    larger = crystal.replace(
        lattice=cells @ crystal.lattice,
        fractional=images @ np.linalg.inv(cells),
        numbers=np.concatenate([crystal.numbers] * 2),
    )
    before, after = potential.evaluate([crystal, larger])
    assert_alike(after, replace(before, forces=np.tile(before.forces, (2, 1)), magmoms=None), tolerance)


def slope(potential: Potential, changed: Callable[[float], Crystal], step: float) -> float:
    """d(energy of the cell in eV)/dx at x = 0 of a crystal that depends on x, by central differences.

    Energies that are rounded by ε eV/atom make it uncertain by ε · atoms / step.
    """
    ends = [changed(x) for x in (step, -step)]
    plus, minus = (one.energy * len(crystal) for one, crystal in zip(potential.evaluate(ends), ends, strict=True))
    return (plus - minus) / (2 * step)


@on_low_symmetry
def test_forces_are_the_slope_of_the_energy(crystal, potential, tolerance) -> None:
    (result,) = potential.evaluate([crystal])
    allowed = tolerance.forces + tolerance.energy * len(crystal) / tolerance.step
    assert np.abs(result.forces).max() > 10 * allowed
    for atom, axis in ((0, 0), (0, 1), (len(crystal) - 1, 2)):

        def moved(x: float, atom: int = atom, axis: int = axis) -> Crystal:
            cartesian = crystal.cartesian.copy()
            cartesian[atom, axis] += x
            return crystal.replace(fractional=cartesian @ np.linalg.inv(crystal.lattice))

        found = -slope(potential, moved, tolerance.step)
        assert result.forces[atom, axis] == pytest.approx(found, rel=0, abs=allowed)


@on_low_symmetry
def test_stress_is_the_slope_of_the_energy_over_strain(crystal, potential, tolerance) -> None:
    (result,) = potential.evaluate([crystal])
    size = tolerance.step / 5
    allowed = tolerance.stress + tolerance.energy * len(crystal) / size / crystal.volume
    assert np.abs(result.stress).max() > 10 * allowed
    for i, j in ((0, 0), (0, 1), (1, 2), (2, 2)):
        strain = np.zeros((3, 3))
        strain[i, j] = strain[j, i] = 1 if i == j else 0.5

        def strained(x: float, strain: np.ndarray = strain) -> Crystal:
            return crystal.replace(lattice=crystal.lattice @ (np.eye(3) + x * strain))

        found = slope(potential, strained, size) / crystal.volume
        assert result.stress[i, j] == pytest.approx(found, rel=0, abs=allowed)


def test_forces_sum_to_zero(potential, tolerance) -> None:
    for result in potential.evaluate(RAGGED):
        np.testing.assert_allclose(result.forces.sum(0), 0, atol=tolerance.forces)


def test_a_batch_says_what_each_crystal_says_alone(potential, tolerance) -> None:
    for crystal, together in zip(RAGGED, potential.evaluate(RAGGED), strict=True):
        (alone,) = potential.evaluate([crystal])
        assert_alike(together, alone, tolerance)
        assert (together.magmoms is None) == (alone.magmoms is None)


def test_the_same_question_has_the_same_answer(potential) -> None:
    for one, two in zip(potential.evaluate(RAGGED), potential.evaluate(RAGGED), strict=True):
        assert one.energy == two.energy
        np.testing.assert_array_equal(one.forces, two.forces)
        np.testing.assert_array_equal(one.stress, two.stress)


BROKEN = {
    "no atoms": Crystal(np.eye(3) * 4, [], []),
    "not finite": Crystal(np.eye(3) * 4, [[0, 0, 0], [np.nan, 0, 0]], [3, 8]),
    "cell not finite": Crystal(np.full((3, 3), np.nan), [[0, 0, 0]], [3]),
    "no cell": Crystal(np.zeros((3, 3)), [[0, 0, 0]], [3]),
    "flat cell": Crystal([[4, 0, 0], [0, 4, 0], [4, 4, 0]], [[0, 0, 0], [0.5, 0.5, 0]], [3, 8]),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_crystal_has_a_problem_and_spares_the_others(broken, potential, tolerance) -> None:
    first, middle, last = potential.evaluate([SALT, broken, COBALTATE])
    assert middle.problem
    assert np.isnan(middle.energy) and np.isnan(middle.forces).all() and np.isnan(middle.stress).all()
    assert middle.forces.shape == (len(broken), 3)
    for found, crystal in ((first, SALT), (last, COBALTATE)):
        assert_alike(found, potential.evaluate([crystal])[0], tolerance)


def test_only_broken_crystals(potential) -> None:
    assert all(result.problem for result in potential.evaluate(list(BROKEN.values())))


def test_symmetry_changes_nothing(potential, tolerance) -> None:
    """A symmetric crystal large enough that its orbits save something, a small one, and one without symmetry."""
    crystals, projectors = [], []
    for crystal in (ANATASE, COBALTATE, MANY):
        everything = np.ones(len(crystal), dtype=bool)
        start, projector = symmetric_start(crystal, everything, symprec=0.01, device=potential.device)
        crystals.append(start)
        projectors.append(projector)
    assert projectors[1] is None and projectors[2] is not None and projectors[2].action is not None
    batch = Batch.from_crystals(crystals, dtype=torch.float64)
    whole, reduced = potential.compute(batch).split(batch.counts), potential.compute(batch, projectors)
    for found, expected in zip(reduced.split(batch.counts), whole, strict=True):
        assert_alike(found, expected, tolerance)
