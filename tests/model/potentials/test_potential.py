"""CHGNet against the stock package, its memory, its messages, and an ASE calculator against ASE itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from ase.build import bulk
from ase.calculators.lj import LennardJones

from model.crystals.crystal import Crystal
from model.crystals.parquet import read_crystals
from model.potentials.ase import ASEPotential
from model.potentials.chgnet.network import CHGNetNetwork
from model.potentials.chgnet.potential import CHGNetPotential
from model.potentials.interface import Evaluation
from tests.support.crystals import olivine, rattled
from tests.support.data import PHASES, WHOLE_PHASES, needs_whole

torch.set_num_threads(1)
GPA = 160.21766208  # eV/Å³ per GPa in the stock package
# The package turns its volumes into scalars in a way that torch warns about.
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True:UserWarning")


def cubic(a: float, fractional: list, numbers: list[int]) -> Crystal:
    return Crystal(np.eye(3) * a, fractional, numbers)


def garnet_sized() -> Crystal:
    """Li15Si4 (I-43d): Li on 12a and 48e, Si on 16c; the conventional cell of 76 atoms."""
    from pymatgen.core import Lattice, Structure

    sites = [[0.375, 0, 0.25], [0.1236, 0.1577, 0.9605], [0.208, 0.208, 0.208]]
    return Crystal.from_pymatgen(
        Structure.from_spacegroup("I-43d", Lattice.cubic(10.69), ["Li", "Li", "Si"], sites).get_primitive_structure()
    )


CRYSTALS = {
    "NaCl": Crystal.from_ase(bulk("NaCl", "rocksalt", a=5.64)),
    "Si": Crystal.from_ase(bulk("Si", a=5.43)),
    "Fe one atom": Crystal.from_ase(bulk("Fe", a=2.86)),
    "LiFePO4 rattled": rattled(olivine(), width=0.08, strain=0.02),
    "Li15Si4": garnet_sized(),
    "angle-free": cubic(4.5, [[0, 0, 0]], [19]),
    "molecule in vacuum": cubic(14.0, [[0, 0, 0], [0.052, 0, 0]], [7, 7]),
    "outside the cell": cubic(4.2, [[-3.2, 5.1, 0.02], [0.5, 1.5, -7.5]], [12, 8]),
    "skewed": rattled(
        Crystal([[3, 0, 0], [8.9, 3.1, 0], [0.2, -9.2, 3.3]], [[0, 0, 0], [0.4, 0.6, 0.5]], [31, 33]),
        width=0.08,
        strain=0.02,
    ),
}


@pytest.fixture(scope="module")
def chgnet() -> CHGNetPotential:
    return CHGNetPotential()


@pytest.fixture(scope="module")
def exact() -> CHGNetPotential:
    return CHGNetPotential(dtype=torch.float64)


@pytest.fixture(scope="module")
def load_stock():
    """The package in float64: its float32 forces are off by up to 1e-3 eV/Å, differently on every processor."""
    import chgnet.graph.converter
    import chgnet.model.model
    from chgnet.model import CHGNet

    def load(name: str):
        model = CHGNet.load(model_name=name, use_device="cpu", verbose=False).double()
        model.composition_model.float()
        model.graph_converter.set_isolated_atom_response("ignore")
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chgnet.graph.converter, "TORCH_DTYPE", torch.float64)
        patch.setattr(chgnet.model.model, "TORCH_DTYPE", torch.float64)
        yield load


@pytest.fixture(scope="module")
def stock(load_stock):
    return load_stock("0.3.0")


def assert_same_as_stock(results: list[Evaluation], crystals: list[Crystal], model) -> None:
    for result, crystal in zip(results, crystals, strict=True):
        reference = model.predict_structure(crystal.to_pymatgen(), task="efsm")
        assert result.problem == ""
        np.testing.assert_allclose(result.energy, reference["e"], atol=1e-5)
        np.testing.assert_allclose(result.forces, reference["f"], atol=1e-4, rtol=1e-5)
        np.testing.assert_allclose(result.stress * GPA, reference["s"], atol=1e-2)
        np.testing.assert_allclose(result.magmoms, reference["m"], atol=1e-4)


def test_equals_the_package_on_a_ragged_batch(chgnet, stock) -> None:
    crystals = list(CRYSTALS.values())
    assert_same_as_stock(chgnet.evaluate(crystals), crystals, stock)


def test_r2scan_equals_the_package(load_stock) -> None:
    crystals = list(CRYSTALS.values())[:4]
    potential = CHGNetPotential("chgnet-r2scan")
    assert_same_as_stock(potential.evaluate(crystals), crystals, load_stock("r2scan"))


def test_equals_the_package_to_rounding_in_float64(exact, stock) -> None:
    crystals = list(CRYSTALS.values())
    for crystal, result in zip(crystals, exact.evaluate(crystals), strict=True):
        reference = stock.predict_structure(crystal.to_pymatgen(), task="efs")
        np.testing.assert_allclose(result.energy, reference["e"], atol=2e-6)  # the package sums references in float32
        np.testing.assert_allclose(result.forces, reference["f"], atol=1e-6)
        np.testing.assert_allclose(result.stress * GPA, reference["s"], atol=1e-5)


def test_equals_the_package_and_the_stored_energies_of_known_phases(chgnet, stock) -> None:
    rows = pd.read_parquet(PHASES).query("n_atoms <= 24").sort_values("n_atoms")
    crystals = read_crystals(rows)
    assert len(crystals) > 50
    results = chgnet.evaluate(crystals)
    np.testing.assert_allclose([result.energy for result in results], rows.energy_per_atom, atol=2e-5)
    assert_same_as_stock(results[:30], crystals[:30], stock)  # the package takes its time


@pytest.mark.slow
@needs_whole
@pytest.mark.parametrize("name", ["chgnet-0.3.0", "chgnet-r2scan"])
def test_equals_the_package_on_two_hundred_stored_crystals(name, load_stock) -> None:
    """All in ragged batches, with lone atoms, molecules and cells without an angle among them, in both precisions."""
    rows = pd.read_parquet(WHOLE_PHASES).query("n_atoms <= 40").sample(200, random_state=0)
    crystals = [*read_crystals(rows), *CRYSTALS.values()]
    results = CHGNetPotential(name).evaluate(crystals)
    if name == "chgnet-0.3.0":
        np.testing.assert_allclose([r.energy for r in results[:200]], rows.energy_per_atom, atol=2e-5)
    assert_same_as_stock(results, crystals, load_stock(name.removeprefix("chgnet-")))
    precise = CHGNetPotential(name, dtype=torch.float64).evaluate(crystals)
    for result, reference in zip(results, precise, strict=True):
        np.testing.assert_allclose(result.energy, reference.energy, atol=1e-5)
        np.testing.assert_allclose(result.forces, reference.forces, atol=5e-5, rtol=1e-5)


ALONE = {
    "atom 1 (Li) has no neighbour within 6 Å": cubic(12.0, [[0.5, 0.5, 0.5]], [3]),
    "atom 2 (Ne) has no neighbour within 6 Å": cubic(20.0, [[0, 0, 0], [0.5, 0.5, 0.5], [0, 0, 0.05]], [1, 10, 1]),
    "atom 5 (O) has no neighbour within 6 Å": Crystal(
        np.diag([8.0, 8.0, 30.0]), [[0, 0, z] for z in (0.1, 0.2, 0.3, 0.4, 0.8)], [13, 13, 13, 13, 8]
    ),
}


def test_an_atom_without_neighbours_is_named(chgnet, stock) -> None:
    """It has an energy without meaning, for which the package raises an error too."""
    stock.graph_converter.set_isolated_atom_response("error")
    for problem, crystal in ALONE.items():
        (result,) = chgnet.evaluate([crystal])
        assert result.problem == problem
        assert np.isnan([result.energy, *result.forces.ravel(), *result.stress.ravel(), *result.magmoms]).all()
    with pytest.raises(ValueError, match="isolated atom"):
        stock.predict_structure(ALONE["atom 2 (Ne) has no neighbour within 6 Å"].to_pymatgen())
    stock.graph_converter.set_isolated_atom_response("ignore")


def test_energy_is_smooth_where_a_bond_crosses_a_cutoff(exact) -> None:
    """Bonds appear at 6 Å, and angles at 3 Å, with no weight."""
    for distance in (3.0, 6.0):
        trio = [[[0, 0, 0], [(distance + d) / 20, 0, 0], [0.07, 0.07, 0]] for d in (-1e-4, 1e-4)]
        inside, outside = exact.evaluate([cubic(20.0, sites, [3, 14, 8]) for sites in trio])
        assert 3 * (outside.energy - inside.energy) == pytest.approx(-2e-4 * outside.forces[1, 0], abs=1e-6)
        np.testing.assert_allclose(inside.forces, outside.forces, atol=2e-3)


def test_a_result_does_not_depend_on_batch_mates(exact) -> None:
    crystals = list(CRYSTALS.values())
    together = exact.evaluate(crystals)
    tight = CHGNetPotential(dtype=torch.float64, memory_mb=20.0).evaluate(crystals[::-1])[::-1]
    for crystal, a, b in zip(crystals, together, tight, strict=True):
        (alone,) = exact.evaluate([crystal])
        for other in (a, b):
            assert alone.energy == pytest.approx(other.energy, abs=1e-10)
            np.testing.assert_allclose(alone.forces, other.forces, atol=1e-9)


def assert_same(results: list[Evaluation], expected: list[Evaluation]) -> None:
    for result, other in zip(results, expected, strict=True):
        assert result.problem == other.problem == ""
        assert result.energy == pytest.approx(other.energy, abs=1e-5)
        np.testing.assert_allclose(result.forces, other.forces, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(result.stress, other.stress, atol=1e-6)
        np.testing.assert_allclose(result.magmoms, other.magmoms, atol=1e-5)


def test_a_large_crystal_is_computed_leanly_or_refused(chgnet, monkeypatch) -> None:
    crystals = [CRYSTALS["LiFePO4 rattled"], CRYSTALS["molecule in vacuum"], CRYSTALS["NaCl"]]
    monkeypatch.setattr("model.potentials.chgnet.messages.LEAN_BLOCK", 150)  # several blocks, the last one not full
    seen = watch(monkeypatch, lambda graph: None)
    assert_same(CHGNetPotential(memory_mb=8.0).evaluate(crystals), chgnet.evaluate(crystals))
    assert [lean for lean in seen if lean] == [True]
    large, *rest = CHGNetPotential(memory_mb=1.0).evaluate(crystals)
    assert large.problem == "28 atoms need more than 5 times memory_mb; raise it" and np.isnan(large.forces).all()
    assert_same(rest, chgnet.evaluate(crystals[1:]))


def watch(monkeypatch, guard) -> list[bool]:
    """Call ``guard`` with every graph where the network would begin to take memory; whether the graphs were lean."""
    original, seen = CHGNetNetwork.bond_gradient, []

    def guarded(self, graph):
        seen.append(graph.lean)
        guard(graph)
        return original(self, graph)

    monkeypatch.setattr(CHGNetNetwork, "bond_gradient", guarded)
    return seen


def test_too_little_memory_halves_the_batch_and_the_budget(chgnet, monkeypatch) -> None:
    crystals = list(CRYSTALS.values())
    expected = chgnet.evaluate(crystals)
    potential = CHGNetPotential()
    before = potential.bytes

    def only_one_crystal(graph) -> None:
        if graph.crystals > 1:
            raise torch.OutOfMemoryError("as CUDA says it")

    watch(monkeypatch, only_one_crystal)
    assert_same(potential.evaluate(crystals), expected)
    assert potential.bytes < before


def test_too_little_memory_for_one_crystal_is_its_problem_alone(chgnet, monkeypatch) -> None:
    crystals = [CRYSTALS["NaCl"], CRYSTALS["LiFePO4 rattled"], CRYSTALS["Si"]]
    small, expected = [crystals[0], crystals[2]], chgnet.evaluate(crystals)

    def few_atoms_or_lean(graph) -> None:
        if len(graph.numbers) > 2 and not graph.lean:
            raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        watch(patch, few_atoms_or_lean)
        assert_same(CHGNetPotential().evaluate(crystals), expected)

    def few_atoms(graph) -> None:
        if len(graph.numbers) > 2:
            raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        watch(patch, few_atoms)
        first, large, last = CHGNetPotential().evaluate(crystals)
    assert large.problem == "cpu has too little memory for its 28 atoms" and np.isnan(large.energy)
    assert_same([first, last], chgnet.evaluate(small))


BROKEN = {
    "not finite": cubic(4.0, [[0, 0, 0], [np.nan, 0, 0]], [3, 8]),
    "singular cell": Crystal(np.zeros((3, 3)), [[0, 0, 0]], [3]),
    "needle cell": Crystal(np.diag([1e-3, 1e-2, 1e5]), [[0, 0, 0]], [3]),
    "atom 1 (He) has no neighbour within 6 Å": cubic(8.0, [[0, 0, 0]], [2]),
    "atom 3 (Li) has no neighbour within 6 Å": cubic(20.0, [[0, 0, 0], [0.1, 0, 0], [0.5, 0.5, 0.5]], [3, 3, 3]),
    "too dense": cubic(1.0, np.random.default_rng(0).random((200, 3)).tolist(), [3] * 200),
    "element beyond 94": cubic(4.0, [[0, 0, 0]], [100]),
    "energy or forces not finite": cubic(5.0, [[0, 0, 0], [0, 0, 0]], [3, 8]),
    "no atoms": cubic(4.0, [], []),
}


def test_a_broken_crystal_says_why_and_spares_the_others(chgnet) -> None:
    crystals = [CRYSTALS["NaCl"], *BROKEN.values(), CRYSTALS["Si"]]
    first, *broken, last = chgnet.evaluate(crystals)
    assert [result.problem for result in broken] == list(BROKEN)
    assert not np.isfinite([result.energy for result in broken]).any()
    assert first.energy == pytest.approx(chgnet.evaluate([CRYSTALS["NaCl"]])[0].energy, abs=1e-6)
    assert np.isfinite(last.energy) and last.problem == ""


def test_an_ase_calculator_is_a_potential() -> None:
    potential = ASEPotential(LennardJones(sigma=3.4, epsilon=0.01, rc=8.0), version="argon")
    argon = rattled(Crystal.from_ase(bulk("Ar", cubic=True)), width=0.08, strain=0.02)
    crystals = [Crystal.from_ase(bulk("Ar", a=5.2)), BROKEN["not finite"], argon]
    results = potential.evaluate(crystals)
    atoms = crystals[2].to_ase()
    atoms.calc = potential.calculator
    assert (potential.name, potential.version) == ("LennardJones", "argon")
    assert results[1].problem == "not finite"
    assert results[2].energy == pytest.approx(atoms.get_potential_energy() / 4)
    np.testing.assert_allclose(results[2].forces, atoms.get_forces())
    np.testing.assert_allclose(results[2].stress, atoms.get_stress(voigt=False))


@pytest.mark.parametrize("options", [{"memory_mb": 0.0}, {"dtype": torch.float16}, {"name": "chgnet-9.9.9"}])
def test_wrong_options_are_refused(options) -> None:
    with pytest.raises(
        ValueError, match=r"memory_mb|dtype|has the weights chgnet-0\.3\.0, chgnet-r2scan, not 'chgnet-9"
    ):
        CHGNetPotential(**options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same() -> None:
    crystals = list(CRYSTALS.values())
    here = CHGNetPotential().evaluate(crystals)
    there = CHGNetPotential(device="cuda", memory_mb=2000).evaluate(crystals)
    for a, b in zip(here, there, strict=True):
        assert a.energy == pytest.approx(b.energy, abs=1e-5)
        np.testing.assert_allclose(a.forces, b.forces, atol=2e-4)


def test_the_processors_treatment_of_tiny_numbers_is_left_as_it_was(chgnet) -> None:
    def tiny_is_zero() -> bool:
        return float(torch.tensor(1e-39) * 1.0) == 0.0

    chgnet.evaluate([CRYSTALS["Si"]])
    assert not tiny_is_zero()
    if torch.set_flush_denormal(True):
        try:
            chgnet.evaluate([CRYSTALS["Si"]])
            assert tiny_is_zero()
        finally:
            torch.set_flush_denormal(False)
