"""SevenNet against its own package, and what its evaluator is made of against closed forms."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from e3nn import o3
from scipy.spatial.transform import Rotation

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.potentials.sevennet import weights as weights_module
from model.potentials.sevennet.graph import Orbits, build_graph, neighbours, proper
from model.potentials.sevennet.harmonics import harmonics, turns
from model.potentials.sevennet.network import SevenNetNetwork
from model.potentials.sevennet.potential import SevenNetPotential
from model.potentials.sevennet.radial import SHORTEST, radial_table, table_index
from model.potentials.sevennet.weights import read_weights
from model.symmetry.projector import symmetric_start

torch.set_num_threads(1)
needs_sevenn = pytest.mark.skipif(importlib.util.find_spec("sevenn") is None, reason="needs the package sevenn")


def crystal(atoms: Atoms, *, rattle: float = 0.0, seed: int = 0) -> Crystal:
    atoms = atoms.copy()
    atoms.pbc = True
    atoms.rattle(rattle, seed=seed)
    return Crystal.from_ase(atoms)


VARIED = {
    "one atom, many images": crystal(bulk("Cu", a=3.6)),
    "a cell of one Å in length": Crystal(np.diag([1.1, 6.0, 6.0]), [[0, 0, 0]], [6]),
    "a compound": crystal(bulk("GaAs", "zincblende", a=5.75) * (2, 1, 1), rattle=0.1),
    "a slab": crystal(fcc111("Al", (2, 2, 2), vacuum=8, periodic=True), rattle=0.05),
    "hydrogen": crystal(molecule("CH3OH", vacuum=4), rattle=0.05),
    "atoms without neighbours": Crystal(np.eye(3) * 14, [[0, 0, 0], [0.5, 0.5, 0.5]], [6, 8]),
    "several elements": crystal(
        Atoms(
            "KMnF3",
            cell=np.eye(3) * 4.2,
            scaled_positions=[[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
        ),
        rattle=0.1,
    ),
    "40 atoms": crystal(bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (5, 1, 1), rattle=0.3),
}
MODELS = [
    ("7net-0", "7net-0", None),
    pytest.param("7net-l3i5", "7net-l3i5", None, marks=pytest.mark.slow),
    pytest.param("7net-mf-0-pbe", "7net-mf-0", "PBE", marks=pytest.mark.slow),
    pytest.param("7net-mf-0-r2scan", "7net-mf-0", "R2SCAN", marks=pytest.mark.slow),
]


@needs_sevenn
@pytest.mark.filterwarnings("ignore")  # the package's
@pytest.mark.parametrize(("name", "model", "modality"), MODELS)
def test_the_numbers_are_those_of_the_package(name, model, modality) -> None:
    from sevenn.calculator import SevenNetCalculator

    calculator = SevenNetCalculator(model, modal=modality, device="cpu")
    for what, found in zip(VARIED, SevenNetPotential(name).evaluate(list(VARIED.values())), strict=True):
        atoms = VARIED[what].to_ase()
        atoms.calc = calculator
        assert found.energy == pytest.approx(atoms.get_potential_energy() / len(atoms), rel=0, abs=1e-5), what
        np.testing.assert_allclose(found.forces, atoms.get_forces(), rtol=0, atol=1e-4, err_msg=what)
        np.testing.assert_allclose(found.stress, atoms.get_stress(voigt=False), rtol=0, atol=2e-5, err_msg=what)


@needs_sevenn
def test_small_pieces_give_the_same() -> None:
    crystals = list(VARIED.values())
    whole = SevenNetPotential("7net-0").evaluate(crystals)
    for one, two in zip(whole, SevenNetPotential("7net-0", memory_mb=4).evaluate(crystals), strict=True):
        assert one.energy == pytest.approx(two.energy, rel=0, abs=1e-6)
        np.testing.assert_allclose(one.forces, two.forces, rtol=0, atol=2e-5)


@needs_sevenn
def test_too_little_memory_halves_the_batch_and_is_a_large_crystals_own_problem(monkeypatch) -> None:
    small, large = crystal(bulk("Si")), crystal(bulk("Si") * (2, 2, 2), rattle=0.05)
    potential = SevenNetPotential("7net-0")
    expected, before = potential.evaluate([small, small]), potential.most_edges
    original = SevenNetNetwork.energy_gradient

    def few_atoms(self, graph, table):
        if len(graph.numbers) > 2:
            raise torch.OutOfMemoryError
        return original(self, graph, table)

    monkeypatch.setattr(SevenNetNetwork, "energy_gradient", few_atoms)
    first, big, last = potential.evaluate([small, large, small])
    assert big.problem == "cpu has too little memory for its 16 atoms" and np.isnan(big.energy)
    assert [first.energy, last.energy] == pytest.approx([one.energy for one in expected], abs=1e-6)
    assert potential.most_edges < before


@needs_sevenn
def test_orbits_are_those_of_the_proper_rotations() -> None:
    """Rock salt has 48 operations, 24 of them proper; its eight atoms are two orbits."""
    salt = crystal(bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    salt, projector = symmetric_start(salt, np.ones(8, dtype=bool), symprec=0.01, device=torch.device("cpu"))
    assert projector is not None
    group = proper(projector)
    assert group is not None and 2 * len(group.rotations) == len(projector.rotations)
    batch = Batch.from_crystals([salt], dtype=torch.float64)
    orbits = Orbits.of(batch, [group])
    graph = build_graph(batch, orbits, neighbours(batch, orbits, 5.0), highest=2, dtype=torch.float64)
    assert graph.copies.tolist() == [4.0, 4.0]


def test_a_reflection_alone_makes_no_orbits() -> None:
    mirrored = crystal(
        Atoms(
            "LiLiO",
            cell=[[3, 0.4, 0], [0, 4, 0], [0, 0, 6]],
            scaled_positions=[[0, 0, 0.2], [0, 0, 0.8], [0.5, 0.5, 0]],
        )
    )
    _, projector = symmetric_start(mirrored, np.ones(3, dtype=bool), symprec=0.01, device=torch.device("cpu"))
    assert projector is not None and len(projector.rotations) >= 2
    kept = torch.linalg.det(projector.rotations) < 0
    kept[torch.linalg.matrix_norm(projector.rotations - torch.eye(3, dtype=torch.float64)).argmin()] = True
    assert proper(replace(projector, rotations=projector.rotations[kept], targets=projector.targets[kept])) is None


def test_harmonics_are_those_of_e3nn() -> None:
    unit = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=-1)
    expected = o3.spherical_harmonics([0, 1, 2, 3], unit, normalize=False, normalization="component")
    torch.testing.assert_close(harmonics(unit, 3), expected, rtol=0, atol=1e-12)


def test_harmonics_turn() -> None:
    rotations = torch.from_numpy(Rotation.random(4, random_state=0).as_matrix())
    unit = torch.nn.functional.normalize(torch.randn(20, 3, dtype=torch.float64), dim=-1)
    turned = harmonics((unit @ rotations).flatten(0, 1), 3).view(4, 20, 16)
    for degree, turn in enumerate(turns(rotations, 3)):
        part = slice(degree**2, (degree + 1) ** 2)
        torch.testing.assert_close(turned[..., part], harmonics(unit, 3)[:, part] @ turn.mT, rtol=0, atol=1e-12)
        torch.testing.assert_close(turn @ turn.mT, torch.eye(2 * degree + 1, dtype=torch.float64).expand_as(turn))


@needs_sevenn
def test_slopes_of_the_table_are_exact() -> None:
    table = radial_table(read_weights("7net-0"), 1.0, tolerance=1e-9, dtype=torch.float64)
    length = torch.linspace(1.2, 4.95, 40, dtype=torch.float64, requires_grad=True)
    real = torch.ones(40, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda r: table(r, real)[:, ::9], length, eps=1e-6, atol=1e-4)
    assert (table(length, ~real) == 0).all()


@needs_sevenn
def test_the_compression_keeps_the_radial_functions() -> None:
    """The table of long distances against the one that holds everywhere and leaves out a thousand times less."""
    weights, real = read_weights("7net-0"), torch.ones(60, dtype=torch.bool)
    length = torch.linspace(1.5, 4.99, 60, dtype=torch.float64)
    found, exact = (
        [c @ mix for c, mix in zip(table(length, real).split(table.sizes, dim=-1), table.mix, strict=True)]
        for table in (
            radial_table(weights, 1.5, tolerance=1e-6, dtype=torch.float64),
            radial_table(weights, 0.0, tolerance=1e-9, dtype=torch.float64),
        )
    )
    for one, two in zip(found, exact, strict=True):
        assert (one - two).square().mean().sqrt() < 3e-6 * two.square().mean().sqrt()


def test_each_distance_has_its_table() -> None:
    assert [SHORTEST[table_index(length)] for length in (2.0, 1.5, 1.2, 0.7, 0.1)] == [1.5, 1.5, 1.0, 0.6, 0.0]


@needs_sevenn
def test_what_cannot_be_evaluated_has_a_problem() -> None:
    radium = Crystal(np.eye(3) * 5, [[0, 0, 0]], [88])
    large = crystal(bulk("Cu", a=3.6) * (6, 6, 6))
    first, second = SevenNetPotential("7net-0", memory_mb=2).evaluate([radium, large])
    assert first.problem == "7net-0 does not know Ra"
    assert second.problem == "216 atoms need more than 10 times memory_mb; raise it"


def test_a_wrong_name_and_a_missing_package_are_named(monkeypatch) -> None:
    with pytest.raises(ValueError, match="not '7net-9'"):
        read_weights("7net-9")
    monkeypatch.setattr(weights_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'hostguide\[sevennet\]'"):
        read_weights("7net-0")


@pytest.mark.parametrize("wrong", [{"dtype": torch.float16}, {"memory_mb": 0}])
def test_wrong_arguments(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SevenNetPotential("7net-0", **wrong)
