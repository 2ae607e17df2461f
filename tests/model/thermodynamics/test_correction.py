"""What is expected of a judge, from what it said of other crystals."""

import numpy as np
import pytest

from model.thermodynamics.correction import MIXING, SLOPE, START, Correction, Shift

FORMULAS = {"Na3Ge": 0.25, "Na2Ge": 1 / 3, "NaGe": 0.5, "NaGe2": 2 / 3, "NaGe3": 0.75, "NaGe4": 0.8}  # share of Ge


def test_nothing_is_known_of_a_judge_that_was_never_asked():
    shift = Correction(["Na", "Ge"]).shift("NaGe")
    assert shift == Shift() and shift.expected(-0.05) == -0.05 and shift.error > START


def test_the_expectation_can_be_turned_round():
    shift = Shift(offset=0.07, slope=-0.4)
    assert shift.at(shift.expected(-0.03)) == pytest.approx(-0.03)


def test_a_law_that_the_features_hold_is_learnt():
    """The judge lies higher by 4 x (1 − x) 80 meV/atom, and the search exaggerates by half of its E_d."""
    rng, correction = np.random.default_rng(0), Correction(["Na", "Ge"])

    def judged(formula, e_d):
        return 0.5 * e_d + 0.08 * 4 * FORMULAS[formula] * (1 - FORMULAS[formula])

    for formula in ("Na3Ge", "NaGe", "NaGe3", "NaGe4") * 15:
        e_d = rng.normal(scale=0.05)
        correction.add(formula, e_d, judged(formula, e_d))
    shift = correction.shift("Na2Ge")  # never judged
    assert shift.slope == pytest.approx(-0.5, abs=0.03)
    assert shift.expected(-0.05) == pytest.approx(judged("Na2Ge", -0.05), abs=0.006)
    assert shift.error < START


def test_what_is_peculiar_to_a_formula_stays_with_it():
    correction = Correction(["Na", "Ge"])
    for number in range(20):
        e_d = 0.001 * number
        correction.add("NaGe", e_d, e_d + 0.06)
        correction.add("Na3Ge", e_d, e_d)
        correction.add("NaGe3", e_d, e_d)
    assert correction.shift("NaGe").expected(0.01) == pytest.approx(0.07, abs=0.005)
    assert correction.shift("Na3Ge").expected(0.01) == pytest.approx(0.01, abs=0.005)
    assert correction.shift("Na2Ge").error > correction.shift("NaGe").error


def test_error_bars_mean_what_they_say():
    """Of data drawn from the model itself, the errors in units of the error bars have a standard deviation of one."""
    scores = []
    for seed in range(40):
        rng, correction = np.random.default_rng(seed), Correction(["Na", "Ge"])
        mixing, slope = rng.normal(scale=MIXING), rng.normal(scale=SLOPE)
        own = {formula: rng.normal(scale=0.02) for formula in FORMULAS}

        def judged(formula, e_d, mixing=mixing, slope=slope, own=own, rng=rng):
            share = FORMULAS[formula]
            mean = mixing * 4 * share * (1 - share) + slope * e_d + own[formula]
            return e_d + mean + rng.normal(scale=0.015)

        for formula in list(FORMULAS)[:4] * 6:
            e_d = rng.normal(scale=0.05)
            correction.add(formula, e_d, judged(formula, e_d))
        for formula in FORMULAS:
            e_d, shift = rng.normal(scale=0.02), correction.shift(formula)
            scores.append((judged(formula, e_d) - shift.expected(e_d)) / shift.error)
    assert 0.75 < np.std(scores) < 1.25


def test_no_formula_depends_on_the_order_of_the_elements():
    pairs = [("Li2PS", 0.02, 0.05), ("LiPS", -0.01, 0.03), ("LiPS3", 0.0, 0.0)]
    one, other = Correction(["Li", "P", "S"]), Correction(["S", "Li", "P"])
    for pair in pairs:
        one.add(*pair)
        other.add(*pair)
    assert one.shift("LiP2S").expected(0.01) == pytest.approx(other.shift("LiP2S").expected(0.01), abs=1e-9)
