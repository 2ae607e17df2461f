"""The stations of a candidate's way, where no other file tests them."""

import time

import numpy as np
import pytest

from model.crystals.screening import ScreenSettings
from model.generation.framework import DEFAULT_TOLERANCES
from model.relaxation.polish import Polished, PolishSettings
from model.relaxation.relax import RelaxSettings
from model.stages import Analyser, PolishedCrystal, PolishRequest, Rejected, Relaxer, Repeat
from model.thermodynamics.reference import packaged_reference
from tests.support.crystals import rattled


def test_seconds_of_a_batch_add_up_to_its_wall_time(licoo2, lisi):
    relaxer = Relaxer("chgnet-0.3.0", RelaxSettings(max_steps=3), ScreenSettings())
    fused = lisi.replace(fractional=np.zeros((2, 3)))
    began = time.monotonic()
    outcomes = relaxer.relax([rattled(licoo2, width=0.1), fused, rattled(lisi, width=0.1)])
    elapsed = time.monotonic() - began
    assert isinstance(outcomes[1], Rejected)
    large, small = outcomes[0], outcomes[2]
    assert large.seconds + small.seconds <= elapsed  # each had the whole of it, if they were not shared out
    work = [len(one.initial) * (one.steps + 1) for one in (large, small)]
    np.testing.assert_allclose(large.seconds / small.seconds, work[0] / work[1])


@pytest.mark.parametrize(("keep_symmetry", "moved"), [(False, 0.15), (False, 0.01), (True, 0.15), (True, 0.02)])
def test_only_what_will_relax_to_the_same_crystal_is_a_repeat(licoo2, keep_symmetry, moved):
    """One atom is moved (Å): by 0.15 it may relax to another crystal; so may any that has lost the symmetry to keep."""
    settings = RelaxSettings(max_steps=0, keep_symmetry=keep_symmetry)
    relaxer = Relaxer("chgnet-0.3.0", settings, ScreenSettings())
    step = np.where(np.arange(len(licoo2)) == 0, moved, 0.0)[:, None] @ np.linalg.inv(licoo2.lattice)[:1]
    shifted, other = (
        licoo2.replace(fractional=licoo2.fractional + 0.3),
        licoo2.replace(fractional=licoo2.fractional + step),
    )
    first, second, third = relaxer.relax([licoo2, shifted, other])
    assert not isinstance(first, Rejected)
    assert second == Rejected("duplicate", 1)
    assert isinstance(third, Rejected) == (not keep_symmetry and moved < 0.1)


def test_crystals_of_one_task_that_relaxed_to_other_energies_are_no_repeats(licoo2, relaxation):
    analyser = Analyser(packaged_reference(), ["Co", "Li", "O"], ["Li"], DEFAULT_TOLERANCES, ScreenSettings())
    relaxed = [relaxation(licoo2, energy=energy) for energy in (-5.9, -5.85, -5.899)]
    assert [one.repeats for one in analyser.analyse(relaxed, [None] * 3)] == [None, None, 2]


def test_only_crystals_up_to_the_given_decomposition_energy_give_frameworks(licoo2, relaxation):
    analyser = Analyser(packaged_reference(), ["Co", "Li", "O"], ["Li"], DEFAULT_TOLERANCES, ScreenSettings())
    relaxed = [relaxation(licoo2, energy=-5.9)]
    (judged,) = analyser.analyse(relaxed, [["Li"]])
    assert judged.frameworks
    e_d = judged.decomposition.e_d
    for highest, number in ((e_d, len(judged.frameworks)), (e_d - 1e-6, 0)):
        (again,) = analyser.analyse(relaxed, [["Li"]], None, highest)
        assert len(again.frameworks) == number
        assert (again.decomposition.e_d, again.space_group) == (e_d, judged.space_group)


# --- polishing ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def polished_batch(licoo2):
    """Two equal crystals and a stretched one, relaxed without steps, and the relaxer with a hull far above."""
    relaxer = Relaxer("chgnet-0.3.0", RelaxSettings(keep_symmetry=True), ScreenSettings(), {licoo2.formula: 0.0})
    shaken = [rattled(licoo2, seed, width=0.05) for seed in range(2)]
    return relaxer, shaken, relaxer.relax(shaken, request=request_of(0.0))


def request_of(above_hull, known=()):
    return PolishRequest(settings=PolishSettings(), above_hull={"LiCoO2": above_hull}, known=known)


def test_low_crystals_are_polished_once_each(polished_batch):
    relaxer, shaken, (first, second) = polished_batch
    assert isinstance(first, Polished) and first.space_group.symbol == "R-3m"
    assert first.max_force < PolishSettings().fmax and first.initial is shaken[0]
    assert isinstance(second, Repeat) and second.repeats == 1
    (plain,) = relaxer.relax(shaken[:1])
    assert (first.steps, first.n_independent_atoms) == (plain.steps, plain.n_independent_atoms)  # of the relaxation


def test_what_is_polished_already_is_a_repeat_unless_it_is_lower(polished_batch):
    relaxer, shaken, (first, _) = polished_batch
    for energy, kind in ((first.energy_final, Repeat), (first.energy_final + 0.005, Polished)):
        known = PolishedCrystal(candidate="earlier", content=first.final.to_bytes(), energy=energy)
        (outcome,) = relaxer.relax(shaken[:1], request=request_of(0.0, [known]))
        assert isinstance(outcome, kind)
        assert not isinstance(outcome, Repeat) or outcome.repeats == "earlier"


def test_crystals_too_far_above_the_hull_are_not_polished(polished_batch):
    relaxer, shaken, (first, _) = polished_batch
    (outcome,) = relaxer.relax(shaken[:1], request=request_of(first.energy_final - 0.1))
    assert not isinstance(outcome, Polished | Repeat) and outcome.converged
