"""Crystals that are not worth a full relaxation: which they are, what they keep, and that the others do not notice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT

from model.crystals.crystal import Crystal
from model.potentials.ase import ASEPotential
from model.relaxation.candidate_funnel import relax_in_stages
from model.relaxation.relax import FIRST_ASKED, RelaxSettings, may_be_ranked, relax

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def emt() -> ASEPotential:
    return ASEPotential(EMT())


def strained(name: str, strain: float, *, seed: int = 0) -> Crystal:
    crystal = Crystal.from_ase(bulk(name, cubic=True))
    lattice = crystal.lattice * (1 + strain)
    noise = np.random.default_rng(seed).normal(0, 0.1, crystal.fractional.shape) @ np.linalg.inv(lattice)
    return crystal.replace(lattice=lattice, fractional=crystal.fractional + noise)


# two compositions; the larger the strain, the higher the energy
STRAINS = (("Cu", 0.12), ("Cu", 0.02), ("Al", 0.03), ("Cu", 0.07), ("Cu", 0.05))
CRYSTALS = [strained(name, strain) for name, strain in STRAINS]
SETTINGS = RelaxSettings(optimizer="lbfgs", fmax=0.02, share=0.5)


def test_the_lowest_of_every_composition_are_relaxed_in_full(emt) -> None:
    broken = Crystal(np.eye(3) * 4.0, [[0, 0, 0], [np.nan, 0, 0]], [13, 13])
    results = relax_in_stages([*CRYSTALS, broken], emt, SETTINGS)
    reasons = ["not_promising", "converged", "converged", "not_promising", "converged", "nan"]
    assert [result.reason for result in results] == reasons
    singles = emt.evaluate(CRYSTALS)
    alone = relax(CRYSTALS, emt, SETTINGS)
    for crystal, result, single, full in zip(CRYSTALS, results, singles, alone, strict=False):
        assert result.initial is crystal and result.energy_initial == pytest.approx(single.energy)
        if result.reason == "converged":
            assert (result.steps, result.converged) == (full.steps, True)
            assert result.energy_final == pytest.approx(full.energy_final, abs=1e-9)
        else:
            assert may_be_ranked(result) and not result.converged and result.final is crystal
            assert result.energy_final == pytest.approx(single.energy)


def test_guests_move_before_the_choice(emt) -> None:
    guests = [np.arange(4) == 0] * 5
    before, after = (relax_in_stages(CRYSTALS, emt, SETTINGS, guests=masks) for masks in (None, guests))
    for crystal, result, single in zip(CRYSTALS, after, before, strict=True):
        assert result.energy_initial == pytest.approx(single.energy_initial) and result.steps > 0
        if result.reason == "not_promising":
            assert result.energy_final < result.energy_initial
            np.testing.assert_array_equal(result.final.lattice, crystal.lattice)
            np.testing.assert_allclose(result.final.fractional[1:], crystal.fractional[1:], atol=1e-9)
    held = relax_in_stages(CRYSTALS, emt, SETTINGS, guests=guests, free=[np.arange(4) > 1] * 5)
    assert all(abs(r.final.fractional[:2] - c.fractional[:2]).max() < 1e-9 for r, c in zip(held, CRYSTALS, strict=True))


def test_without_a_share_it_is_a_relaxation(emt) -> None:
    settings = SETTINGS.model_copy(update={"share": 1.0})
    for one, other in zip(relax_in_stages(CRYSTALS, emt, settings), relax(CRYSTALS, emt, settings), strict=True):
        assert (one.steps, one.energy_final) == (other.steps, other.energy_final)
    assert relax_in_stages([], emt, SETTINGS) == []


@pytest.mark.parametrize("optimizer", ["fire", "lbfgs"])
def test_a_crystal_above_the_ceiling_is_stopped_early_and_the_others_are_not(optimizer, emt) -> None:
    settings = RelaxSettings(optimizer=optimizer, fmax=1e-6, energy_ceiling=0.05)
    whole = relax(CRYSTALS, emt, settings)
    assert all(result.reason == "converged" for result in whole)  # copper's minima are one and the same
    lowest = whole[1].energy_final
    copper, aluminium = CRYSTALS[3], CRYSTALS[2]
    for known, reason in ((lowest - 1.0, "early_stopped"), (lowest - 0.04, "converged")):
        first, other = relax([copper, aluminium], emt, settings, known={"Cu": known})
        assert (first.reason, other.reason) == (reason, "converged")
        assert may_be_ranked(first) and first.energy_final < first.energy_initial
    assert relax([copper], emt, settings, known={"Cu": lowest - 1.0})[0].steps == FIRST_ASKED < whole[3].steps
    off = settings.model_copy(update={"energy_ceiling": None})
    assert relax([copper], emt, off, known={"Cu": lowest - 1.0})[0].converged


def test_what_has_converged_in_the_same_call_counts(emt) -> None:
    """Body-centred copper is kept by symmetry in a minimum above the face-centred one."""
    body = Crystal.from_ase(bulk("Cu", "bcc", a=3.1, cubic=True))
    settings = RelaxSettings(optimizer="fire", fmax=1e-4, energy_ceiling=5e-3)
    alone, (_, second) = relax([body], emt, settings), relax([CRYSTALS[1], body], emt, settings, batch_size=1)
    assert alone[0].reason == "converged"
    assert second.reason == "early_stopped" and second.steps < alone[0].steps


@pytest.mark.parametrize("change", [{"share": 0.0}, {"share": 1.5}, {"energy_ceiling": 0.0}, {"guest_steps": -1}])
def test_wrong_settings_are_refused(change) -> None:
    with pytest.raises(ValueError, match="Input should be"):
        RelaxSettings(**change)
