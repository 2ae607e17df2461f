from collections import Counter

import numpy as np
import pytest

from search.policy import (
    FIXED_WORK,
    START_RATE,
    Arm,
    Book,
    PolicySettings,
    choose,
    host_class,
    reward,
    work,
)

CELLS = ["LiSi", "Li2Si", "Li3Si", "Li4Si", "LiSi2"]
NEW = [Arm("diffusion", cell) for cell in CELLS]


def streams(seed=0):
    return lambda pick: np.random.default_rng([seed, pick])


def book(settings=None, **records):
    """A book in which each cell (keyword) has the rewards listed."""
    made = Book(settings or PolicySettings())
    for cell, rewards in records.items():
        for value in rewards:
            made.record(Arm("diffusion", cell), value, 300.0)
    return made


# --- what an arm is thought to bring ------------------------------------------------------------------------------


def test_without_relatives_the_beta_distribution_is_that_of_a_coin():
    # Posterior of n tries with r rewards under Beta(s·p, s·(1 − p)); all levels hold the same tries, so p is known.
    settings = PolicySettings(strength=2.0)
    made = book(settings, LiSi=[1.0, 0.0, 0.5])
    everything = (2 * START_RATE + 1.5) / 5
    method = region = (2 * everything + 1.5) / 5
    cell = (2 * (2 * region + 1.5) / 5 + 1.5) / 5

    def odds(rate):
        return rate / (1 - rate)

    prior = odds(method) * odds(cell) / odds(everything)
    prior /= 1 + prior
    assert made.beta(NEW[0]) == pytest.approx((2 * prior + 1.5, 2 * (1 - prior) + 1.5))


def test_nothing_known_is_the_start_rate_everywhere():
    made = Book(PolicySettings(strength=4.0))
    for arm in [*NEW, Arm("inpainting", "LiSi", "f", 1)]:
        assert made.beta(arm) == pytest.approx((4 * START_RATE, 4 * (1 - START_RATE)))


def test_an_untried_arm_is_judged_by_its_method_and_by_its_composition():
    made = Book(PolicySettings())
    for _ in range(20):
        made.record(Arm("diffusion", "LiSi"), 1.0)
        made.record(Arm("random", "LiSi"), 0.0)
        made.record(Arm("diffusion", "Li4Si"), 0.0)
        made.record(Arm("random", "Li4Si"), 0.0)

    def expected(*arm):
        a, b = made.beta(Arm(*arm))
        return a / (a + b)

    assert expected("diffusion", "Li2Si2") > expected("random", "Li2Si2")  # method
    assert expected("diffusion", "Li2Si2") > expected("diffusion", "Li8Si2")  # composition
    assert expected("diffusion", "Li2Si2") < expected("diffusion", "LiSi")  # itself counts most


def test_what_is_under_way_lowers_the_arm_and_nothing_else():
    made = book(LiSi=[1.0, 1.0], Li4Si=[1.0, 1.0])
    before = [made.beta(arm) for arm in NEW]
    made.record(NEW[0], None)
    after = [made.beta(arm) for arm in NEW]
    assert after[0] == pytest.approx((before[0][0], before[0][1] + 1))
    assert after[1:] == before[1:]


def test_rewards_never_exceed_tries_so_the_distribution_is_proper():
    made = book(LiSi=[1.0] * 50)
    a, b = made.beta(NEW[0])
    assert a > 0 < b


def test_expected_work_follows_size_and_what_the_method_needed():
    made = Book(PolicySettings())
    for _ in range(500):
        made.record(Arm("diffusion", "Li3Si"), 0.0, FIXED_WORK + 4 * 20)
    assert made.work(Arm("diffusion", "Li3Si")) == pytest.approx(FIXED_WORK + 4 * 20, rel=0.01)
    assert made.work(Arm("diffusion", "Li6Si2")) == pytest.approx(FIXED_WORK + 8 * 20, rel=0.01)


def test_the_work_of_a_candidate_is_counted_not_timed():
    settings = PolicySettings(evaluation_cost=0.5)
    row = {"n_atoms": 2, "steps": 9, "evaluations": 31}
    assert work(row, settings) == FIXED_WORK + 2 * (10 + 0.5 * 31)
    assert work({**row, "steps": None, "evaluations": None}, settings) == FIXED_WORK
    assert work({**row, "seconds_relax": 1e6}, settings) == work(row, settings)


# --- picks --------------------------------------------------------------------------------------------------------


def test_the_same_numbers_give_the_same_picks():
    picks = [choose(NEW, book(LiSi=[1, 0], Li3Si=[0]), 20, streams(), 1) for _ in range(2)]
    assert picks[0] == picks[1]
    assert picks[0] != choose(NEW, book(LiSi=[1, 0], Li3Si=[0]), 20, streams(1), 1)


def test_most_goes_where_rewards_are():
    made = book(LiSi=[1.0] * 30, **{cell: [0.0] * 30 for cell in CELLS[1:]})
    picks = Counter(arm.cell for arm, _ in choose(NEW, made, 30, streams(), 1))
    assert picks["LiSi"] > 20


def test_the_floor_reaches_every_arm_however_bad():
    made = book(PolicySettings(floor=0.5), LiSi=[1.0] * 99, **{cell: [0.0] * 99 for cell in CELLS[1:]})
    picks = Counter(arm.cell for arm, _ in choose(NEW, made, 40, streams(), 1))
    assert set(picks) == set(CELLS)
    without = book(PolicySettings(floor=0), LiSi=[1.0] * 99, **{cell: [0.0] * 99 for cell in CELLS[1:]})
    assert {arm.cell for arm, _ in choose(NEW, without, 20, streams(), 1)} == {"LiSi"}


def test_of_equal_rewards_the_cheaper_goes_first():
    settings = PolicySettings(floor=0, strength=1)
    made = Book(settings)
    for _ in range(200):
        made.record(Arm("cheap", "LiSi"), 0.5, 200.0)
        made.record(Arm("dear", "LiSi"), 0.5, 2000.0)
    picks = choose([Arm("dear", "LiSi"), Arm("cheap", "LiSi")], made, 10, streams(), 1)
    assert {arm.method for arm, _ in picks} == {"cheap"}


def test_before_results_every_composition_is_tried_before_any_twice():
    made = Book(PolicySettings())
    picks = [arm.cell for arm, _ in choose(NEW, made, 10, streams(), 1)]
    assert sorted(picks[:5]) == sorted(picks[5:]) == sorted(CELLS)


@pytest.mark.parametrize("feedback", [False, True])
def test_methods_share_evenly_until_or_unless_results_speak(feedback):
    arms = [Arm(method, cell) for method in ("diffusion", "random", "exchange") for cell in CELLS]
    made = Book(PolicySettings(feedback=feedback))
    if not feedback:
        for cell in CELLS:
            made.record(Arm("random", cell), 1.0)
    picks = Counter(arm.method for arm, _ in choose(arms, made, 30, streams(), 1))
    assert picks == {"diffusion": 10, "random": 10, "exchange": 10}


def test_a_framework_gets_several_samples_and_new_crystals_one():
    arms = [Arm("diffusion", "LiSi"), Arm("inpainting", "LiSi", "f", 1)]
    picks = choose(arms, Book(PolicySettings()), 8, streams(), 3)
    assert sum(count for _, count in picks) == 8
    assert {(arm.host, count) for arm, count in picks[:4]} == {("", 1), ("f", 3)}


def test_many_frameworks_of_one_cell_do_not_crowd_out_the_rest():
    hosts = [Arm("inpainting", "LiSi", f"f{i}", 1) for i in range(500)]
    made = Book(PolicySettings(floor=0))
    for arm in (*NEW, *hosts[:5]):
        made.record(arm, 0.2, 300.0)
    picks = Counter(arm.method for arm, _ in choose([*NEW, *hosts], made, 60, streams(), 1))
    assert picks["diffusion"] > 30


def test_among_the_frameworks_of_a_cell_the_better_class_and_the_better_children_win():
    settings = PolicySettings(floor=0, strength=2)
    made = Book(settings)
    for i in range(30):
        made.record(Arm("inpainting", "LiSi", f"good{i}", 1), 0.8, 300.0)
        made.record(Arm("inpainting", "LiSi", f"bad{i}", 4), 0.0, 300.0)
    untried = [Arm("inpainting", "LiSi", "better", 1), Arm("inpainting", "LiSi", "worse", 4)]
    picks = Counter(arm.host for arm, _ in choose(untried, made, 10, streams(), 1))
    assert picks["better"] > picks["worse"]


def test_no_arms_no_picks():
    assert choose([], Book(PolicySettings()), 5, streams(), 1) == []


# --- what is found ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("e_d", "once", "expected"),
    [(-0.3, True, 1), (0.0, True, 1), (0.05, True, 0.75), (0.1, True, 0.5), (0.11, True, 0), (0.0, False, 0)],
)
def test_the_reward_is_one_on_the_hull_and_half_at_the_bar(e_d, once, expected):
    assert reward(e_d, once=once, bar=0.1) == pytest.approx(expected)


def test_what_has_no_energy_has_no_reward():
    assert reward(np.nan, once=True, bar=0.1) == 0


def test_frameworks_are_classed_by_the_best_crystal_that_had_them():
    assert [host_class(e_d, 0.05) for e_d in (-0.1, 0.05, 0.06, 0.15, 0.9, None)] == [1, 1, 2, 3, 4, 5]
