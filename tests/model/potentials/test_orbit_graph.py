"""CHGNet by orbits says what CHGNet says of the whole crystal: on every kind of group, cell, bond and batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from ase.build import bulk
from pymatgen.core import Lattice, Structure

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.crystals.parquet import read_crystals
from model.potentials.chgnet.orbit_graph import orbit_graph
from model.potentials.chgnet.potential import CHGNetPotential
from model.relaxation.relax import RelaxSettings, relax
from model.symmetry.action import CELLS, SymmetryAction
from model.symmetry.projector import Projector, symmetric_start
from tests.support.data import PHASES, WHOLE_PHASES, needs_whole

torch.set_num_threads(1)


def of_group(group: str, lattice: Lattice, species: list[str], sites: list[list[float]], *, primitive=False) -> Crystal:
    structure = Structure.from_spacegroup(group, lattice, species, sites)
    return Crystal.from_pymatgen(structure.get_primitive_structure() if primitive else structure)


CRYSTALS = {
    "glide planes": of_group("I4_1/amd", Lattice.tetragonal(3.8, 9.5), ["Ti", "O"], [[0, 0, 0], [0, 0, 0.208]]),
    "no inversion": of_group(
        "P6_3mc", Lattice.hexagonal(3.25, 5.2), ["Zn", "O"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.38]]
    ),
    "screw axes only": of_group(
        "P3_121", Lattice.hexagonal(4.91, 5.4), ["Si", "O"], [[0.47, 0, 1 / 3], [0.41, 0.27, 0.21]]
    ),
    "rhombohedral": of_group(
        "R-3c",
        Lattice.hexagonal(5.0, 17.0),
        ["Ca", "C", "O"],
        [[0, 0, 0], [0, 0, 0.25], [0.257, 0, 0.25]],
        primitive=True,
    ),
    "centred cell": Crystal.from_ase(bulk("NaCl", "rocksalt", 5.6, cubic=True)),
    "one atom": Crystal.from_ase(bulk("Fe")),
    "two atoms in one orbit": Crystal.from_ase(bulk("Mg")),
    "supercell": Crystal.from_ase(bulk("Cu") * (2, 1, 1)),
    "inversion only": Crystal(
        np.array([[5.1, 0.3, 0.2], [0.4, 5.6, 0.5], [0.1, 0.7, 4.9]]),
        np.array([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3], [0.4, 0.1, 0.7], [-0.4, -0.1, -0.7]]),
        np.array([14, 14, 8, 8]),
    ),
    "no bonds": Crystal(np.eye(3) * 13.0, np.zeros((1, 3)), np.array([11])),
    "no angles": Crystal(np.eye(3) * 5.0, np.zeros((1, 3)), np.array([55])),
    # bonds of exactly 3 and 6 Å, the cutoffs, in an orientation where they come out a rounding error shorter or longer
    "bonds on the cutoff": Crystal(
        3.0 * np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0], np.zeros((1, 3)), np.array([29])
    ),
}


@pytest.fixture(scope="module")
def exact() -> CHGNetPotential:
    return CHGNetPotential(dtype=torch.float64)


def held(crystal: Crystal, free: np.ndarray | None = None) -> tuple[Crystal, Projector]:
    everything = np.ones(len(crystal), dtype=bool) if free is None else free
    symmetric, projector = symmetric_start(crystal, everything, symprec=0.01, device=torch.device("cpu"))
    assert projector is not None and projector.action is not None
    return symmetric, projector


def moved(crystal: Crystal, projector: Projector, seed: int) -> Crystal:
    """Atoms and cell displaced at random in all ways that the group allows."""
    rng = np.random.default_rng(seed)
    step = projector.atoms(torch.from_numpy(rng.normal(0, 0.1, (len(crystal), 3)))).numpy()
    strain = projector.cell(torch.from_numpy(rng.normal(0, 0.04, (3, 3)))).numpy()
    lattice = crystal.lattice @ (np.eye(3) + (strain + strain.T) / 2)
    return crystal.replace(lattice=lattice, fractional=crystal.fractional + step @ np.linalg.inv(crystal.lattice))


@pytest.fixture(autouse=True)
def every_orbit(monkeypatch):
    """Symmetric crystals get their own pass however little it saves."""
    monkeypatch.setattr("model.potentials.chgnet.potential.SECOND_PASS", 0)


def assert_equal(potential: CHGNetPotential, crystals: list[Crystal], projectors: list[Projector | None]) -> None:
    batch = Batch.from_crystals(crystals, dtype=torch.float64)
    whole, reduced = potential.compute(batch), potential.compute(batch, projectors)
    assert whole.problems == reduced.problems
    lonely = [len(crystal) == 1 and crystal.volume > 6**3 for crystal in crystals]
    assert [bool(problem) for problem in whole.problems] == lonely
    for name in ("energy", "forces", "stress", "magmoms"):
        torch.testing.assert_close(getattr(reduced, name), getattr(whole, name), rtol=0, atol=1e-10, equal_nan=True)


@pytest.mark.parametrize("name", CRYSTALS)
def test_orbits_say_what_the_whole_crystal_says(name, exact) -> None:
    crystal, projector = held(CRYSTALS[name])
    for seed in range(2):
        assert_equal(exact, [crystal, moved(crystal, projector, seed)], [projector] * 2)


def test_a_mixed_batch_comes_out_in_its_order(exact) -> None:
    pairs = [held(CRYSTALS[name]) for name in CRYSTALS]
    crystals, projectors = (list(column) for column in zip(*pairs, strict=True))
    projectors[1] = projectors[4] = None
    assert_equal(exact, crystals, projectors)


@pytest.mark.parametrize(("threshold", "passes"), [(0, 1), (6, 1), (7, 0)])
def test_symmetric_crystals_have_a_pass_of_their_own_where_that_saves_enough(exact, monkeypatch, threshold, passes):
    crystal, projector = held(Crystal.from_ase(bulk("NaCl", "rocksalt", 5.6, cubic=True)))  # 8 atoms, 2 orbits
    plain = moved(crystal, projector, 0)
    reduced, calls = exact._reduced, []
    monkeypatch.setattr("model.potentials.chgnet.potential.SECOND_PASS", threshold)
    monkeypatch.setattr(exact, "_reduced", lambda *given: calls.append(1) or reduced(*given))
    exact.compute(Batch.from_crystals([crystal, plain], dtype=torch.float64), [projector, None])
    assert len(calls) == passes


def test_any_subgroup_will_do(exact) -> None:
    crystal, projector = held(CRYSTALS["glide planes"])
    free = crystal.numbers == 8
    free[np.flatnonzero(free)[0]] = False
    assert_equal(exact, [crystal], [held(crystal, free)[1]])
    identity = replace(projector, rotations=projector.rotations[:1], targets=projector.targets[:1])
    identity = replace(
        identity, action=SymmetryAction.of(crystal, identity.rotations.numpy(), identity.targets.numpy())
    )
    assert_equal(exact, [crystal], [identity])


def test_atoms_may_lie_in_other_cells(exact) -> None:
    crystal, _ = held(CRYSTALS["rhombohedral"])
    away = crystal.replace(fractional=crystal.fractional + np.random.default_rng(0).integers(-3, 4, (len(crystal), 3)))
    assert_equal(exact, *([part] for part in held(away)))
    far = away.replace(fractional=away.fractional + CELLS)
    _, projector = symmetric_start(far, np.ones(len(far), dtype=bool), symprec=0.01, device=torch.device("cpu"))
    assert projector is not None and projector.action is None  # such bonds could not be told apart
    assert_equal(exact, [far], [projector])


def test_the_work_is_that_of_the_orbits(exact) -> None:
    crystal, projector = held(CRYSTALS["centred cell"])
    assert projector.action is not None and len(projector.rotations) == 192
    graph, node = orbit_graph(Batch.from_crystals([crystal], dtype=torch.float64), projector.action, exact.network)
    assert graph.copies is not None and graph.copies.tolist() == [4, 4] and node.bincount().tolist() == [4, 4]
    # shells below 6 Å: 2.8 (Na-Cl), 3.96 (two kinds), 4.85 (Na-Cl), 5.6 (two kinds); the shortest spans angles of
    # 90 and 180 degrees at either ion
    assert len(graph.bonds.target) == 2 * 6 and graph.short == 1 and len(graph.apex) == 4


def test_without_memory_it_goes_the_plain_way(exact, monkeypatch) -> None:
    crystal, projector = held(CRYSTALS["screw axes only"])
    small = CHGNetPotential(dtype=torch.float64, memory_mb=4.0)
    assert_equal(small, [crystal] * 2, [projector] * 2)

    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr("model.potentials.chgnet.potential.orbit_graph", full)
    assert_equal(exact, [crystal], [projector])

    def never(*_):
        raise AssertionError("a crowd of angles was listed for every operation")

    monkeypatch.setattr("model.potentials.chgnet.potential.orbit_graph", never)
    crowded, projector = held(Crystal.from_ase(bulk("Cu", a=1.4)))
    assert_equal(CHGNetPotential(dtype=torch.float64, memory_mb=150.0), [crowded], [projector])


def test_a_relaxation_takes_the_same_steps(exact) -> None:
    class Blind(CHGNetPotential):
        def compute(self, batch, symmetry=None):
            return super().compute(batch)

    crystals = [CRYSTALS[name] for name in ("glide planes", "screw axes only", "supercell")]
    settings = RelaxSettings(keep_symmetry=True, optimizer="lbfgs", fmax=0.02)
    blind = relax(crystals, Blind(dtype=torch.float64), settings)
    for result, other in zip(relax(crystals, exact, settings), blind, strict=True):
        assert result.converged and result.steps == other.steps
        assert result.energy_final == pytest.approx(other.energy_final, abs=1e-9)
        np.testing.assert_allclose(result.final.lattice, other.final.lattice, atol=1e-7)
        np.testing.assert_allclose(result.forces_final, other.forces_final, atol=1e-7)


def test_on_known_phases(exact) -> None:
    assert_equal_in_batches(exact, read_crystals(pd.read_parquet(PHASES).query("n_atoms <= 24")))


@pytest.mark.slow
@needs_whole
def test_on_two_hundred_known_phases(exact) -> None:
    frame = pd.read_parquet(WHOLE_PHASES, filters=[("n_atoms", "<=", 60)])
    assert_equal_in_batches(exact, read_crystals(frame.sample(200, random_state=0)))


def assert_equal_in_batches(exact, crystals) -> None:
    for some in (crystals[i : i + 10] for i in range(0, len(crystals), 10)):
        starts = [
            symmetric_start(c, np.ones(len(c), dtype=bool), symprec=0.01, device=torch.device("cpu")) for c in some
        ]
        symmetric, projectors = (list(column) for column in zip(*starts, strict=True))
        assert sum(projector is not None for projector in projectors) > len(some) / 2
        assert_equal(exact, symmetric, projectors)
