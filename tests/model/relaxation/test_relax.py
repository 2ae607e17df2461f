"""The batched relaxer against ASE's FIRE with its Fréchet filter, its invariants, and what must not stop it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from ase.units import GPa

from model.crystals.crystal import Crystal
from model.potentials.ase import ASEPotential
from model.potentials.chgnet.potential import CHGNetPotential
from model.reasons import Reason
from model.relaxation.relax import ENERGY_SETTLED, Relaxation, RelaxSettings, relax
from tests.support.crystals import rattled
from tests.support.reasons import RELAXED

torch.set_num_threads(1)
# The stock calculator turns volumes into scalars in a way that torch warns about.
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True:UserWarning")
OPTIMIZERS = ("fire", "lbfgs")


shaken = partial(rattled, width=0.12, strain=0.04)
SALT = shaken(Crystal.from_ase(bulk("NaCl", "rocksalt", a=5.64, cubic=True)))
ANTIFLUORITE = shaken(Crystal.from_ase(bulk("MgLi2", "fluorite", a=6.2)).replace(numbers=[16, 3, 3]), seed=1)
SILICON = shaken(Crystal.from_ase(bulk("Si", a=5.43)), seed=2)
RAGGED = [SALT, ANTIFLUORITE, SILICON]
COPPER = [shaken(Crystal.from_ase(bulk("Cu", cubic=cubic)), seed=seed) for seed, cubic in ((3, True), (4, False))]


class Collapse(Calculator):
    """Two atoms that attract each other with a constant force."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, *args, **kwargs) -> None:
        super().calculate(*args, **kwargs)
        vector = self.atoms.get_distance(0, 1, mic=True, vector=True)
        pull = vector / np.linalg.norm(vector)
        self.results = {"energy": np.linalg.norm(vector), "forces": np.stack([pull, -pull]), "stress": np.zeros(6)}


class SoftSpring(Calculator):
    """Two atoms 3 Å apart at rest, on a spring of 0.05 eV/Å²."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, *args, **kwargs) -> None:
        super().calculate(*args, **kwargs)
        vector = self.atoms.get_distance(0, 1, mic=True, vector=True)
        stretch = np.linalg.norm(vector) - 3.0
        pull = 0.05 * stretch * vector / np.linalg.norm(vector)
        self.results = {"energy": 0.025 * stretch**2, "forces": np.stack([pull, -pull]), "stress": np.zeros(6)}


@pytest.fixture(scope="module")
def chgnet() -> CHGNetPotential:
    return CHGNetPotential()


@pytest.fixture(scope="module")
def emt() -> ASEPotential:
    return ASEPotential(EMT())


@pytest.fixture(scope="module")
def relaxed(chgnet) -> dict[str, list[Relaxation]]:
    return {name: relax(RAGGED, chgnet, RelaxSettings(optimizer=name, fmax=0.1), batch_size=2) for name in OPTIMIZERS}


def by_ase(crystal: Crystal, calculator, steps: int, *, pressure: float = 0.0):
    """Energy per atom and final atoms after these steps of ASE's FIRE."""
    atoms = crystal.to_ase()
    atoms.calc = calculator
    FIRE(FrechetCellFilter(atoms, scalar_pressure=pressure * GPa), logfile=None).run(fmax=0.0, steps=steps)
    return atoms.get_potential_energy() / len(atoms), atoms


def pressure_left(result: Relaxation, *, fmax: float) -> float:
    """GPa by which the pressure may be off: on the cell too, forces fall below fmax, and they are V σ / n."""
    return fmax * len(result.final) / result.final.volume / GPa


def test_fire_is_ases_with_the_stock_chgnet(relaxed) -> None:
    from chgnet.model import CHGNetCalculator

    calculator = CHGNetCalculator(use_device="cpu", on_isolated_atoms="ignore")
    for crystal, result in zip(RAGGED, relaxed["fire"], strict=True):
        energy, _ = by_ase(crystal, calculator, result.steps)
        assert result.energy_final == pytest.approx(energy, abs=1e-4)


def test_fire_is_ases_step_by_step(emt) -> None:
    """In double precision the trajectories are the same, under pressure too."""
    for crystal in COPPER:
        (result,) = relax([crystal], emt, RelaxSettings(optimizer="fire", fmax=0.01, pressure=5.0))
        assert result.converged and result.steps > 10
        energy, atoms = by_ase(crystal, EMT(), result.steps, pressure=5.0)
        assert result.energy_final == pytest.approx(energy, abs=1e-9)
        np.testing.assert_allclose(result.final.lattice, atoms.cell.array, atol=1e-7)
        assert result.pressure == pytest.approx(5.0, abs=pressure_left(result, fmax=0.01))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_relaxation_says_what_is_true(optimizer, relaxed, chgnet) -> None:
    results = relaxed[optimizer]
    again = chgnet.evaluate([result.final for result in results])
    for crystal, result, check in zip(RAGGED, results, again, strict=True):
        assert result.initial is crystal
        assert result.converged and result.reason == "converged" and 0 < result.steps < 500
        assert result.max_force < 0.1 < result.max_force_initial
        assert result.energy_final < result.energy_initial
        assert result.energy_final == pytest.approx(check.energy, abs=1e-5)
        np.testing.assert_allclose(result.forces_final, check.forces, atol=1e-4)
        assert np.linalg.norm(result.forces_final, axis=1).max() < 0.12  # in the undeformed cell it was below 0.1
        assert result.pressure == pytest.approx(-np.trace(check.stress) / 3 / GPa, abs=1e-3)
        assert abs(result.pressure) < pressure_left(result, fmax=0.1)
        np.testing.assert_array_equal(result.final.numbers, crystal.numbers)


def test_the_fast_optimizer_needs_fewer_steps_to_the_same_energy(relaxed) -> None:
    fire, fast = relaxed["fire"], relaxed["lbfgs"]
    assert 2 * sum(r.steps for r in fast) < sum(r.steps for r in fire)
    for a, b in zip(fire, fast, strict=True):
        assert b.energy_final < a.energy_final + 2e-3


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_batch_mates_do_not_matter(optimizer, emt) -> None:
    crystals = [shaken(Crystal.from_ase(bulk(name)), seed=i) for i, name in enumerate(["Cu", "Al", "Au", "Ni", "Pd"])]
    settings = RelaxSettings(optimizer=optimizer, fmax=0.02)
    for result, crystal in zip(relax(crystals, emt, settings, batch_size=3), crystals, strict=True):
        (alone,) = relax([crystal], emt, settings)
        assert (alone.steps, alone.reason) == (result.steps, result.reason)
        np.testing.assert_allclose(alone.final.lattice, result.final.lattice, atol=1e-9)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fixed_cell_and_fixed_atoms_stay(optimizer, chgnet) -> None:
    free = np.arange(len(SALT)) < 3
    settings = RelaxSettings(optimizer=optimizer, cell="fixed")
    held, loose = relax([SALT, SALT], chgnet, settings, free=[free, None])
    for result in (held, loose):
        assert result.converged
        np.testing.assert_allclose(result.final.lattice, SALT.lattice, atol=1e-12)
    moved = np.abs((held.final.fractional - SALT.fractional) @ SALT.lattice).max(axis=1)
    assert (moved[free] > 1e-3).all() and (moved[~free] < 1e-10).all()
    assert np.linalg.norm(held.forces_final[free], axis=1).max() < 0.1
    assert loose.energy_final < held.energy_final


def test_fixed_atoms_keep_fractional_coordinates_while_the_cell_relaxes(chgnet) -> None:
    free = np.arange(len(SALT)) < 3
    (result,) = relax([SALT], chgnet, free=[free])
    assert result.converged and np.abs(result.final.lattice - SALT.lattice).max() > 1e-2
    np.testing.assert_allclose(result.final.fractional[~free], SALT.fractional[~free], atol=1e-9)


def test_every_failure_is_a_reason(chgnet) -> None:
    box = np.eye(3) * 4.0
    broken = {
        "fused_atoms": Crystal(box, [[0, 0, 0], [0.01, 0, 0]], [3, 8]),
        "nan": Crystal(box, [[0, 0, 0], [np.nan, 0, 0]], [3, 8]),
        "no_atoms": Crystal(box, [], []),
    }
    needle = Crystal(np.diag([1.0, 1.2, 400.0]), [[0, 0, 0]], [3])
    singular = Crystal(np.zeros((3, 3)), [[0, 0, 0]], [3])
    unknown = Crystal(box, [[0, 0, 0]], [100])
    single = Crystal.from_ase(bulk("Fe", a=2.6))
    vacuum = Crystal(np.eye(3) * 16.0, [[0, 0, 0], [0.08, 0, 0]], [7, 7])
    odd = [needle, singular, unknown, single, vacuum]
    for optimizer in OPTIMIZERS:
        settings = RelaxSettings(optimizer=optimizer, max_steps=60)
        *known, thin, flat, heavy, one, molecule, last = relax(
            [*broken.values(), *odd, SILICON], chgnet, settings, batch_size=4
        )
        assert [result.reason for result in known] == list(broken)
        assert all(result.reason in RELAXED for result in (thin, flat, heavy, one, molecule))
        assert flat.reason == heavy.reason == "nan" and heavy.detail
        assert one.converged and last.converged
        assert np.isfinite(molecule.energy_final)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"max_steps": 3}, "step_limit"),
        ({"max_steps": 0}, "step_limit"),
        ({"max_seconds": 0.0}, "wall_time"),
        ({"max_volume_change": 1.001}, "volume_runaway"),
        ({"max_energy_fall": 1e-3}, "energy_runaway"),
    ],
)
def test_limits_end_a_relaxation_and_are_recorded(change, reason, emt) -> None:
    (result,) = relax(COPPER[:1], emt, RelaxSettings(fmax=1e-4, **change))
    assert result.reason == reason and not result.converged
    assert result.steps <= change.get("max_steps", 500)
    assert result.energy_final == pytest.approx(emt.evaluate([result.final])[0].energy, abs=1e-9)


def test_lbfgs_does_not_end_where_forces_are_small_but_the_energy_still_falls() -> None:
    pair = Crystal(np.eye(3) * 14.0, [[0, 0, 0], [0.45, 0, 0]], [3, 8])  # 3.3 Å too far apart, pulled with 0.165 eV/Å
    (result,) = relax([pair], ASEPotential(SoftSpring()), RelaxSettings(optimizer="lbfgs", fmax=0.1, cell="fixed"))
    settled = ENERGY_SETTLED * 0.1
    assert result.converged and result.energy_final < settled
    at_the_limit = 0.025 * (0.1 / 0.05) ** 2 / 2  # eV/atom where the force falls below 0.1 eV/Å
    assert at_the_limit > 20 * settled


class Layers(Calculator):
    """Two atoms with a Morse potential of 0.5 eV, 2.5 Å and 1.2/Å: far apart, a plateau with small forces."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, *args, **kwargs) -> None:
        super().calculate(*args, **kwargs)
        vector = self.atoms.get_distance(0, 1, mic=True, vector=True)
        distance = np.linalg.norm(vector)
        decay = np.exp(-1.2 * (distance - 2.5))
        pull = 2 * 0.5 * 1.2 * (decay - decay**2) * vector / distance
        self.results = {"energy": 0.5 * (1 - decay) ** 2, "forces": np.stack([pull, -pull]), "stress": np.zeros(6)}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_plateau_is_no_minimum(optimizer) -> None:
    pair = Crystal(np.eye(3) * 14.0, [[0, 0, 0], [5.6 / 14, 0, 0]], [3, 8])  # 3.1 Å too far apart
    settings = RelaxSettings(optimizer=optimizer, cell="fixed")
    (result,) = relax([pair], ASEPotential(Layers()), settings)
    assert result.max_force_initial < settings.fmax  # small forces from the start
    assert result.converged and result.energy_final < 1e-3 < 0.2 < result.energy_initial


def test_a_crystal_at_rest_takes_no_step(emt) -> None:
    (first,) = relax(COPPER[:1], emt, RelaxSettings(fmax=1e-3))
    (again,) = relax([first.final], emt)
    assert again.converged and again.steps == 0


def test_atoms_that_fuse_on_the_way_end_it() -> None:
    potential = ASEPotential(Collapse())
    pair = Crystal(np.eye(3) * 6.0, [[0, 0, 0], [0.3, 0, 0]], [3, 8])
    for optimizer in OPTIMIZERS:
        (result,) = relax([pair], potential, RelaxSettings(optimizer=optimizer, cell="fixed"))
        assert result.reason == "fused_atoms" and 0 < result.steps < 100 and not result.converged
        assert np.isfinite(result.energy_final)


def test_a_potential_that_fails_on_the_way_gives_the_initial_crystal_back() -> None:
    class Fails(EMT):
        calls = 0

        def calculate(self, *args, **kwargs) -> None:
            Fails.calls += 1
            if Fails.calls > 4:
                raise RuntimeError("no answer")
            super().calculate(*args, **kwargs)

    (result,) = relax(COPPER[:1], ASEPotential(Fails()))
    assert (result.reason, result.detail) == ("nan", "RuntimeError: no answer")
    assert result.final is COPPER[0] and result.energy_final == result.energy_initial and not result.converged


def test_nothing_to_relax(emt) -> None:
    assert relax([], emt) == []


@pytest.mark.parametrize(
    "change", [{"optimizer": "newton"}, {"cell": "shape"}, {"fmax": 0.0}, {"max_steps": -1}, {"max_volume_change": 1.0}]
)
def test_wrong_settings_are_refused(change) -> None:
    with pytest.raises(ValueError, match="Input should be"):
        RelaxSettings(**change)


def test_wrong_masks_and_batches_are_refused(emt) -> None:
    with pytest.raises(ValueError, match="free must be boolean"):
        relax(COPPER[:1], emt, free=[np.array([1, 0])])
    with pytest.raises(ValueError, match="batch_size"):
        relax(COPPER, emt, batch_size=0)


def test_an_atom_that_leaves_the_others_ends_the_relaxation() -> None:
    """CHGNet's F atoms push each other away at 5.9 Å; beyond 6 Å they have no neighbours, and no energy."""
    pair = Crystal(20 * np.eye(3), [[0, 0, 0], [5.9 / 20, 0, 0]], [9, 9])
    settings = RelaxSettings(cell="fixed", optimizer="fire", fmax=1e-7, max_steps=400)
    salt = Crystal.from_ase(bulk("NaCl", "rocksalt", a=5.6))
    apart, kept = relax([pair, salt], CHGNetPotential(), settings)
    assert apart.reason == Reason.NAN and apart.steps > 0 and not apart.converged
    assert apart.detail == "atom 1 (F) has no neighbour within 6 Å"
    assert kept.detail == ""
