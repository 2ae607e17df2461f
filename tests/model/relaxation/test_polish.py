"""Polishing: off saddle points, onto the highest group that costs nothing, and nothing that was not asked for."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from pymatgen.core import Lattice, Structure

from model.crystals.crystal import Crystal
from model.potentials.ase import ASEPotential
from model.potentials.chgnet.potential import CHGNetPotential
from model.relaxation.polish import Polished, PolishSettings, polish
from model.relaxation.relax import RelaxSettings, relax
from model.symmetry.space_group import EXACT, REPORTED, space_group
from tests.support.crystals import olivine, rattled

KEEP = RelaxSettings(keep_symmetry=True)
FCC = Crystal.from_ase(bulk("Cu", cubic=True))
BCC = Crystal.from_ase(bulk("Cu", "bcc", a=2.87, cubic=True))


@pytest.fixture(scope="module")
def emt() -> ASEPotential:
    return ASEPotential(EMT())


@pytest.fixture(scope="module")
def fcc_energy(emt) -> float:
    (ideal,) = relax([FCC], emt, RelaxSettings(fmax=1e-4))
    return ideal.energy_final


def test_a_saddle_point_is_left_on_the_way_down(emt, fcc_energy) -> None:
    """bcc copper is a saddle point of the Bain path; with its symmetry kept, all forces vanish there."""
    (held,) = relax([BCC], emt, KEEP)
    assert held.converged and space_group(held.final, REPORTED).symbol == "Im-3m"
    (found,) = polish([held.final], emt, KEEP)
    assert found.space_group.symbol == "Fm-3m"
    assert found.energy_final == pytest.approx(fcc_energy, abs=1e-4)
    assert found.saddle_fall == pytest.approx(held.energy_final - found.energy_final, abs=1e-4) and found.fall > 0.01


def test_the_highest_group_that_costs_nothing_is_found_with_its_crystal(emt, fcc_energy) -> None:
    """A rough relaxation leaves noise, in which a tight tolerance sees no symmetry and a wide one too much."""
    ragged = [rattled(FCC, seed=1, width=0.05), rattled(Crystal.from_ase(bulk("Au")), seed=2, width=0.05)]
    rough = [one.final for one in relax(ragged, emt, RelaxSettings(max_steps=4))]
    assert space_group(rough[0], EXACT, -1.0).number < 200
    for before, found in zip(rough, polish(rough, emt, RelaxSettings()), strict=True):
        assert found.converged and found.initial is before and found.saddle_fall == 0
        assert found.space_group.symbol == space_group(found.final, EXACT, -1.0).symbol == "Fm-3m"
        assert len(found.final) == len(before)
    first = polish(rough[:1], emt, RelaxSettings())[0]
    assert first.energy_final == pytest.approx(fcc_energy, abs=1e-4)


def test_a_group_that_costs_energy_is_not_taken(emt) -> None:
    """A tetragonal cell, held by its symmetry-breaking neighbours, stays what it is."""
    wide = PolishSettings(tolerance=0.0, shake=1e-6, strain=0.0)
    ordered = Crystal(np.eye(3) * 3.75, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], [79, 29, 29, 29])
    (relaxed,) = relax([ordered], emt, KEEP)
    (found,) = polish([relaxed.final], emt, KEEP, wide)
    assert found.space_group.symbol == "Pm-3m"  # Cu3Au, not the disordered fcc


def test_what_may_not_move_stays(emt) -> None:
    crystal = rattled(FCC, seed=3, width=0.05)
    free = np.array([True, True, False, False])
    fixed = RelaxSettings(cell="fixed")
    (found,) = polish([crystal], emt, fixed, free=[free])
    np.testing.assert_allclose(found.final.lattice, crystal.lattice, atol=1e-12)
    np.testing.assert_allclose(found.final.fractional[~free], crystal.fractional[~free], atol=1e-12)
    assert np.linalg.norm(found.forces_final[free], axis=1).max() < PolishSettings().fmax
    assert np.abs(found.final.fractional[free] - crystal.fractional[free]).max() > 1e-3


def test_a_crystal_that_cannot_be_relaxed_comes_back_with_its_reason(emt) -> None:
    fused = Crystal(np.eye(3) * 4.0, [[0, 0, 0], [0.01, 0, 0]], [29, 29])
    bad, good = polish([fused, FCC], emt, RelaxSettings())
    assert bad.reason == "fused_atoms" and bad.space_group is None and not bad.converged
    assert good.converged and good.space_group.symbol == "Fm-3m"
    assert polish([], emt, RelaxSettings()) == []


def test_batch_mates_do_not_matter(emt) -> None:
    crystals = [rattled(Crystal.from_ase(bulk(name)), seed=i, width=0.05) for i, name in enumerate(["Cu", "Al", "Au"])]
    together = polish([*crystals, BCC], emt, RelaxSettings())
    for crystal, result in zip(crystals, together, strict=False):
        (alone,) = polish([crystal], emt, RelaxSettings())
        assert isinstance(alone, Polished) and alone.space_group == result.space_group
        np.testing.assert_allclose(alone.final.lattice, result.final.lattice, atol=1e-3)


def test_olivine_is_pnma() -> None:
    potential, start = CHGNetPotential(), rattled(olivine(), seed=0, width=0.02)
    (rough,) = relax([start], potential, RelaxSettings(optimizer="fire", fmax=0.1))
    assert space_group(rough.final, REPORTED, -1.0).symbol != "Pnma"
    (found,) = polish([rough.final], potential, RelaxSettings())
    assert found.space_group.symbol == "Pnma"


def test_a_crystal_that_came_near_to_a_higher_group_within_a_lower_one_gets_the_higher() -> None:
    """LiMn2O4 falls from Fd-3m to Imma; after these displacements, one step of the ladder leads to C2/c first."""
    places = [[0, 0, 0], [0.625] * 3, [0.388] * 3]
    spinel = Structure.from_spacegroup("Fd-3m", Lattice.cubic(8.24), ["Li", "Mn", "O"], places)
    start = rattled(Crystal.from_pymatgen(spinel.get_primitive_structure()), seed=0, width=0.08)
    potential = CHGNetPotential()
    (rough,) = relax([start], potential, RelaxSettings())
    (found,) = polish([rough.final], potential, RelaxSettings())
    assert found.space_group.symbol == "Imma"
