"""The stations of a candidate's way, where no other file tests them."""

import time

import numpy as np
import pytest

from model.crystals.screening import ScreenSettings
from model.generation.framework import DEFAULT_TOLERANCES
from model.relaxation.relax import RelaxSettings
from model.stages import Analyser, Rejected, Relaxer
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
