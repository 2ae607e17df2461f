"""Which crystals of a search its judge is asked about, and what it answers."""

import numpy as np
import pytest

from model.crystals.crystal import Crystal
from model.potentials.catalog import load_potential
from model.relaxation.relax import RelaxSettings
from model.thermodynamics.candidate_judge import CandidateJudge, JudgeRequest
from model.thermodynamics.correction import Shift
from model.thermodynamics.reference import packaged_reference
from model.thermodynamics.stability import Stability

JUDGE = "chgnet-r2scan"
CELL = np.eye(3) * 2.4
SALT = Crystal(2 * np.ones((3, 3)) - 2 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [3, 9])  # LiF, 4.0 Å instead of 4.02
CAESIUM = Crystal(CELL, [[0, 0, 0], [0.5, 0.5, 0.5]], [3, 9])  # in the structure of CsCl, far above it


@pytest.fixture(scope="module")
def candidate_judge():
    reference = packaged_reference(JUDGE)
    return CandidateJudge(JUDGE, reference, ["Li", "F"], RelaxSettings(fmax=0.01, keep_symmetry=True), gain=0.05)


@pytest.fixture(scope="module")
def answers(candidate_judge):
    """Of a low crystal, one that only the search puts low, one that is too high to ask, and one without E_d."""
    request = JudgeRequest(below=0.01, shifts={"LiF": Shift(offset=0.02, error=0.03)})
    return candidate_judge.judge([SALT, CAESIUM, CAESIUM, None], [0.0, -0.01, 0.05, None], request)


def test_a_crystal_is_judged_if_its_error_bar_reaches_below_the_bar(answers):
    assert [one and one.judge for one in answers] == [JUDGE, JUDGE, None, None]
    assert answers[2].expected == pytest.approx(0.07) and answers[2].e_d is None


def test_what_may_matter_is_relaxed_and_the_rest_is_not(answers):
    low, high = answers[:2]
    assert low.e_d < low.first and low.crystal.identity != SALT.identity
    assert high.e_d == high.first > 0.06 and high.crystal is CAESIUM


def test_energies_and_e_d_are_those_of_the_judge(answers):
    hull = Stability(packaged_reference(JUDGE), ["Li", "F"])
    evaluations = load_potential(JUDGE).evaluate([one.crystal for one in answers[:2]])
    for one, evaluation in zip(answers[:2], evaluations, strict=True):
        assert one.energy == pytest.approx(evaluation.energy, abs=1e-5)
        assert one.e_d == pytest.approx(hull.decomposition("LiF", evaluation.energy).e_d, abs=1e-5)


def test_an_empty_batch_is_no_trouble(candidate_judge):
    assert candidate_judge.judge([], [], JudgeRequest(below=0.0, shifts={})) == []
