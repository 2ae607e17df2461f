import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from model.generators.registry import GENERATORS
from search.config import PolicySettings
from search.planning.policy import (
    FIXED_WORK,
    START_NEW,
    START_VALUE,
    Arm,
    ArmOutcome,
    ArmStatistics,
    Choice,
    Rates,
    host_class,
    value,
    work,
)
from tests.support.rows import row_with

CELLS = ["LiSi", "Li2Si", "Li3Si", "Li4Si", "LiSi2"]
NEW = [Arm("diffusion", cell) for cell in CELLS]


def choose(arms, statistics, slots, rng, samples):
    return Choice(arms, statistics).pick(slots, rng, samples)


def streams(seed=0):
    return lambda pick: np.random.default_rng([seed, pick])


def came(value, *, once=True, work=300.0, tries=1):
    """Outcome of candidates of this value each, all seen once or all seen more often."""
    low = tries * (value > 0)
    return ArmOutcome(tries, tries * value, low, low * once, tries * work)


def statistics_of(settings=None, **records):
    """Statistics in which the candidates of each cell (keyword) have the values listed and are new."""
    made = ArmStatistics(settings or PolicySettings())
    for cell, values in records.items():
        for one in values:
            made.record(Arm("diffusion", cell), came(one))
    return made


def rates(made, arm):
    """Expected value, and expected chance to be new."""
    low, not_low, new, not_new = made.beta(arm)
    return low / (low + not_low), new / (new + not_new)


# --- what an arm is thought to bring ------------------------------------------------------------------------------


def test_a_rate_shrinks_towards_that_of_the_larger_set_as_a_coins_does():
    """By hand, a prior counting for one toss: (1/2 + 1)/2 = 3/4 of the large set, (3/4 + 0)/2 of the small one."""
    tosses = Rates(strength=1.0)
    tosses.add([("large",)], 1, 1.0)
    tosses.add([("small",)], 1, 0.0)
    assert tosses.rate(0.5, ("large",)) == 0.75
    assert tosses.rate(0.5, ("large",), ("small",)) == 0.375
    assert tosses.posterior(("large",), 0.5) == (1.5, 0.5)
    assert tosses.posterior(("never tossed",), 0.25) == (0.25, 0.75)


def test_what_comes_as_expected_makes_the_distributions_narrower_and_moves_none():
    made = ArmStatistics(PolicySettings(prior_weight=2.0, new_prior_weight=4.0))
    arm = Arm("some generator", "LiSi")
    made.record(arm, ArmOutcome(10, value=10 * START_VALUE, low=10, once=10 * START_NEW))
    for like, tries in ((arm, 10), (Arm("some generator", "Li6Si2"), 0), (Arm("another", "LiSi"), 0)):
        low, new = 2 + tries, 4 + tries  # tosses that each distribution counts
        new_of_ten = (new * START_NEW, new * (1 - START_NEW))
        assert made.beta(like) == pytest.approx((low * START_VALUE, low * (1 - START_VALUE), *new_of_ten))


def test_nothing_known_is_the_start_rate_of_the_generator_everywhere():
    made = ArmStatistics(PolicySettings(prior_weight=4.0))
    for arm in [*NEW, Arm("inpainting", "LiSi", host="f", host_class=1), Arm("ion_substitution", "Li3Si")]:
        assert rates(made, arm) == pytest.approx((GENERATORS[arm.generator].first_guess, START_NEW))


def test_an_untried_arm_is_judged_by_its_generator_its_composition_and_its_size():
    made = ArmStatistics(PolicySettings())
    for generator, cell in itertools.product(("ion_substitution", "inpainting"), ("LiSi", "Li4Si")):
        good = generator == "ion_substitution" and cell == "LiSi"
        made.record(Arm(generator, cell), came(float(good), tries=20))

    def expected(*arm):
        return rates(made, Arm(*arm))[0]

    assert expected("ion_substitution", "Li2Si2") > expected("inpainting", "Li2Si2")  # generator
    assert expected("ion_substitution", "Li2Si2") > expected("ion_substitution", "Li8Si2")  # composition
    assert expected("ion_substitution", "Li2Si2") < expected("ion_substitution", "LiSi")  # itself counts most
    assert expected("ion_substitution", "GeP") > expected("ion_substitution", "GeP4")  # size


def test_what_one_generator_found_good_is_thought_good_for_others_only_in_part():
    """Where so many came that nothing shrinks, the root of the odds once for the composition and once for the size."""
    made = ArmStatistics(PolicySettings())
    for cell in ("LiSi", "Li4Si"):
        made.record(Arm("ion_substitution", cell), came(0.5, tries=20_000))
        made.record(Arm("diffusion", cell), came(0.9 if cell == "LiSi" else 0.1, tries=20_000))

    def odds(cell):
        rate = rates(made, Arm("mutation", cell, host="f", host_class=1))[0]
        return rate / (1 - rate)

    ratio = (0.7 / 0.3) / (0.3 / 0.7)  # of both generators together
    assert odds("LiSi") / odds("Li4Si") == pytest.approx(ratio**0.5 * ratio**0.5, rel=1e-3)
    of_the_size = odds("Ge2") / odds("Ge5")  # of which only the size is known
    assert of_the_size == pytest.approx(ratio**0.5, rel=1e-3)


def test_crystals_that_were_seen_before_make_their_cell_less_promising_but_its_formula_no_worse():
    fresh, worn = (ArmStatistics(PolicySettings()) for _ in range(2))
    fresh.record(NEW[0], came(0.8, tries=20))
    worn.record(NEW[0], came(0.8, once=False, tries=20))
    for arm in (NEW[0], Arm("ion_substitution", "LiSi")):
        assert rates(worn, arm)[0] == rates(fresh, arm)[0]
        assert rates(worn, arm)[1] < 0.5 * rates(fresh, arm)[1]
    larger = Arm("ion_substitution", "Li6Si6")
    assert rates(worn, larger)[1] > 2 * rates(worn, Arm("ion_substitution", "LiSi"))[1]


def test_what_is_under_way_lowers_the_arm_and_what_is_new_in_its_cell():
    made = statistics_of(LiSi=[1.0, 1.0], Li4Si=[1.0, 1.0])
    arms = [*NEW, Arm("ion_substitution", "LiSi")]
    before = [rates(made, arm) for arm in arms]
    made.record(NEW[0], ArmOutcome(1))
    after = [rates(made, arm) for arm in arms]
    assert after[0][0] < before[0][0] and after[0][1] < before[0][1]
    assert after[-1][0] == before[-1][0] and after[-1][1] < before[-1][1]
    assert after[1:-1] == before[1:-1]


def test_the_distributions_stay_proper_whatever_is_recorded():
    """A million crystals, all on the hull and all new, or none of them: no rate is thought certain."""
    for worth in (1.0, 0.0):
        made = ArmStatistics(PolicySettings())
        made.record(NEW[0], came(worth, tries=1_000_000))
        for arm in (*NEW, Arm("ion_substitution", "LiSi"), Arm("mutation", "LiSi", host="c", host_class=1)):
            assert np.isfinite(made.beta(arm)).all() and min(made.beta(arm)) > 0
        assert len(choose(NEW, made, 5, streams(), 1)) == 5


def test_expected_work_follows_size_and_what_the_generator_needed():
    made = ArmStatistics(PolicySettings())
    for _ in range(500):
        made.record(Arm("diffusion", "Li3Si"), came(0.0, work=FIXED_WORK + 4 * 20))
    assert made.work(Arm("diffusion", "Li3Si")) == pytest.approx(FIXED_WORK + 4 * 20, rel=0.01)
    assert made.work(Arm("diffusion", "Li6Si2")) == pytest.approx(FIXED_WORK + 8 * 20, rel=0.01)


def test_the_work_of_a_candidate_is_counted_not_timed():
    settings = PolicySettings(evaluation_cost=0.5)
    row = row_with(n_atoms=4, n_independent_atoms=2, steps=9, evaluations=31)
    assert work(row, settings) == FIXED_WORK + 2 * 10 + 4 * 0.5 * 31
    assert work(replace(row, n_independent_atoms=None, steps=None, evaluations=None), settings) == FIXED_WORK
    assert work(replace(row, seconds_relax=1e6), settings) == work(row, settings)


# --- picks --------------------------------------------------------------------------------------------------------


def test_the_same_numbers_give_the_same_picks():
    picks = [choose(NEW, statistics_of(LiSi=[1, 0], Li3Si=[0]), 20, streams(), 1) for _ in range(2)]
    assert picks[0] == picks[1]
    assert picks[0] != choose(NEW, statistics_of(LiSi=[1, 0], Li3Si=[0]), 20, streams(1), 1)


def test_all_but_exploration_goes_where_rewards_are():
    made = statistics_of(
        PolicySettings(exploration_rate=0.2), LiSi=[1.0] * 31, **{cell: [0.0] * 30 for cell in CELLS[1:]}
    )
    picks = Counter(arm.cell for arm, _ in choose(NEW, made, 30, streams(), 1))
    others = (streams()(0).random(30) < 0.2).sum()  # the stream 0 says which picks explore
    assert 0 < others == 30 - picks["LiSi"]


def test_exploration_reaches_every_arm_however_bad():
    made = statistics_of(
        PolicySettings(exploration_rate=0.5), LiSi=[1.0] * 99, **{cell: [0.0] * 99 for cell in CELLS[1:]}
    )
    picks = Counter(arm.cell for arm, _ in choose(NEW, made, 40, streams(), 1))
    assert set(picks) == set(CELLS)
    without = statistics_of(
        PolicySettings(exploration_rate=0), LiSi=[1.0] * 99, **{cell: [0.0] * 99 for cell in CELLS[1:]}
    )
    assert {arm.cell for arm, _ in choose(NEW, without, 20, streams(), 1)} == {"LiSi"}


def test_exploration_reaches_bad_arms_in_rounds_of_few_picks_too():
    made = statistics_of(
        PolicySettings(exploration_rate=0.1), LiSi=[1.0] * 99, **{cell: [0.0] * 99 for cell in CELLS[1:]}
    )
    picks = [arm.cell for number in range(300) for arm, _ in choose(NEW, made, 1, streams(number), 1)]
    others = [streams(number)(0).random() < 0.1 for number in range(300)]
    assert [cell != "LiSi" for cell in picks] == others
    assert abs(sum(others) - 30) < 4 * np.sqrt(300 * 0.1 * 0.9)  # a binomial count: 4 standard deviations


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch": 101}, "less than or equal to 100"),
        ({"stop": {"max_cost": 5}}, "max_cost and cost_per_actor_hour must be given together"),
        ({"stop": {"cost_per_actor_hour": 5}}, "max_cost and cost_per_actor_hour must be given together"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        PolicySettings(**settings)


def test_of_equal_rewards_the_cheaper_goes_first():
    settings = PolicySettings(exploration_rate=0, prior_weight=1)
    made = ArmStatistics(settings)
    for _ in range(200):
        made.record(Arm("cheap", "LiSi"), came(0.5, work=200.0))
        made.record(Arm("dear", "LiSi"), came(0.5, work=2000.0))
    picks = choose([Arm("dear", "LiSi"), Arm("cheap", "LiSi")], made, 10, streams(), 1)
    assert {arm.generator for arm, _ in picks} == {"cheap"}


def test_before_results_every_composition_is_tried_before_any_twice():
    made = ArmStatistics(PolicySettings())
    picks = [arm.cell for arm, _ in choose(NEW, made, 10, streams(), 1)]
    assert sorted(picks[:5]) == sorted(picks[5:]) == sorted(CELLS)


@pytest.mark.parametrize("feedback", [False, True])
def test_generators_take_turns_by_their_start_before_results_and_evenly_without_feedback(feedback):
    arms = [Arm(generator, cell) for generator in ("diffusion", "random", "ion_substitution") for cell in CELLS]
    made = ArmStatistics(PolicySettings(feedback=feedback))
    if not feedback:
        for cell in CELLS:
            made.record(Arm("random", cell), came(1.0))
    picks = Counter(arm.generator for arm, _ in choose(arms, made, 39, streams(), 1))
    assert picks == ({"diffusion": 14, "random": 4, "ion_substitution": 21} if feedback else dict.fromkeys(picks, 13))


def test_a_framework_gets_several_samples_and_new_crystals_one():
    arms = [
        Arm("diffusion", "LiSi"),
        Arm("mutation", "LiSi", host="c", host_class=1),
        Arm("inpainting", "LiSi", host="f", host_class=1, guests=(("Li", 1),)),
    ]
    picks = choose(arms, ArmStatistics(PolicySettings()), 10, streams(), 3)
    assert sum(count for _, count in picks) == 10
    assert {(arm.host, count) for arm, count in picks[:4]} == {("", 1), ("c", 1), ("f", 3)}


def test_many_frameworks_of_one_cell_do_not_crowd_out_the_rest():
    hosts = [Arm("inpainting", "LiSi", host=f"f{i}", host_class=1) for i in range(500)]
    made = ArmStatistics(PolicySettings(exploration_rate=0))
    for arm in (*NEW, *hosts[:5]):
        made.record(arm, came(0.2))
    picks = Counter(arm.generator for arm, _ in choose([*NEW, *hosts], made, 60, streams(), 1))
    assert picks["diffusion"] > 30


def test_among_the_frameworks_of_a_cell_the_better_class_and_the_better_children_win():
    settings = PolicySettings(exploration_rate=0, prior_weight=2)
    made = ArmStatistics(settings)
    for i in range(30):
        made.record(Arm("inpainting", "LiSi", host=f"good{i}", host_class=1), came(0.8))
        made.record(Arm("inpainting", "LiSi", host=f"bad{i}", host_class=4), came(0.0))
    untried = [
        Arm("inpainting", "LiSi", host="better", host_class=1),
        Arm("inpainting", "LiSi", host="worse", host_class=4),
    ]
    picks = Counter(arm.host for arm, _ in choose(untried, made, 10, streams(), 1))
    assert picks["better"] > picks["worse"]


@pytest.mark.parametrize("settings", [{"exploration_rate": 0}, {"exploration_rate": 1}, {"feedback": False}])
def test_an_arm_that_has_made_all_it_can_is_left_out(settings):
    limited = [
        Arm("mutation", "LiSi", host=name, host_class=1, limit=limit) for name, limit in (("a", 2), ("b", 3), ("c", 1))
    ]
    made = ArmStatistics(PolicySettings(**settings))
    for arm in limited[2], Arm("random", "LiSi"):
        made.record(arm, came(1.0))
    alone = choose(limited, made, 10, streams(), 3)
    assert Counter(arm.host for arm, _ in alone) == {"a": 2, "b": 3}
    assert choose(limited, made, 10, streams(), 3) == []
    assert choose([*limited, Arm("random", "LiSi")], made, 10, streams(), 3) == [(Arm("random", "LiSi"), 1)] * 10


def test_no_arms_no_picks():
    assert choose([], ArmStatistics(PolicySettings()), 5, streams(), 1) == []


# --- what is found ------------------------------------------------------------------------------------------------


def test_a_crystal_is_worth_one_on_the_hull_and_half_at_the_threshold():
    e_d = np.array([-0.3, 0.0, 0.05, 0.1, 0.11, np.nan])
    assert value(e_d, 0.1) == pytest.approx([1, 1, 0.75, 0.5, 0, 0])


def test_frameworks_are_classed_by_the_best_crystal_that_had_them():
    assert [host_class(e_d, 0.05) for e_d in (-0.1, 0.05, 0.06, 0.15, 0.9, None)] == [1, 1, 2, 3, 4, 5]
