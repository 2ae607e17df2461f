import math
from itertools import pairwise

import numpy as np
import pytest

from model.crystal import Crystal
from model.framework import Framework, extract_frameworks
from model.symmetry import SpaceGroup
from search.pipeline import _framework
from search.policy import HOPELESS, Ledger, PolicySettings, composition_ledger, framework_ledger

CELLS = ["LiSi", "Li2Si", "Li3Si", "Li4Si", "LiSi2"]


def composition_row(cell, e_d):
    return {"cell_formula": cell, "e_d": e_d}


def generated(candidate, e_d, *records):
    return {"candidate": candidate, "e_d": e_d, "framework": None, "frameworks": list(records)}


def inpainted(candidate, e_d, framework):
    return {"candidate": candidate, "e_d": e_d, "framework": framework, "frameworks": None}


@pytest.fixture(scope="module")
def layered(licoo2, rattle):
    """One record each of the R-3m CoO2 host, found in two differently distorted crystals."""
    records = []
    for seed in range(2):
        found = extract_frameworks(rattle(licoo2, width=0.02, seed=seed), ["Li"])
        host = next(framework for framework in found if framework.space_group.number == 166)
        records.append(_framework(f"layered-{seed}", host))
    return records


def cubic(identity, edge, guests=None):
    host = Crystal(np.eye(3) * edge, [[0, 0, 0]], [14])
    group = SpaceGroup(221, "Pm-3m", 0.1, 10.0)
    return _framework(identity, Framework(host, guests or {"Li": 1}, group, 0.0, 0.0, 1))


# --- the value ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "expected"), [(0.99, "proven"), (1.01, "promising")])
def test_the_value_is_the_best_e_d_less_the_bonus(factor, expected):
    # proven: E = −0.1, n = 9; promising: E = 0, n = 0; n_all = 9. Equal values −0.1 − c·sqrt(ln 10/10) = −c·sqrt(ln 10)
    # at c = 0.1/(sqrt(ln 10)·(1 − 1/sqrt(10))).
    c = 0.1 / (math.sqrt(math.log(10)) * (1 - 1 / math.sqrt(10)))
    ledger = Ledger(PolicySettings(exploration=factor * c))
    ledger.add("promising", best=0.0)
    for e_d in [0.3, -0.1, *[None] * 7]:
        ledger.record("proven", e_d)
    assert ledger.pick(1) == expected


def test_the_lowest_e_d_counts_not_the_last_or_the_mean():
    ledger = Ledger(PolicySettings(exploration=0))
    for e_d in (0.02, 0.9, 0.9):
        ledger.record("a", e_d)
    for e_d in (0.03, 0.03, 0.03):
        ledger.record("b", e_d)
    assert ledger.arms["a"].best == 0.02
    assert ledger.pick(1) == "a"


def test_without_exploration_the_best_arm_takes_all():
    ledger = Ledger(PolicySettings(exploration=0))
    for key, e_d in (("a", 0.2), ("b", -0.1), ("c", 0.0)):
        ledger.record(key, e_d)
    assert [ledger.pick(3) for _ in range(4)] == ["b"] * 4
    assert ledger.arms["b"].spent == 1 + 12


def test_much_exploration_spreads_over_all_arms():
    ledger = Ledger(PolicySettings(exploration=100))
    for key, e_d in (("a", 0.2), ("b", -0.1), ("c", 0.0)):
        ledger.record(key, e_d)
    assert sorted(ledger.pick(1) for _ in range(6)) == ["a", "a", "b", "b", "c", "c"]


def test_a_hopeless_arm_is_as_good_as_one_without_any_energy():
    ledger = Ledger(PolicySettings(exploration=0))
    ledger.record("worse", HOPELESS + 5)
    ledger.record("failed", None)
    assert ledger.pick(1) == "failed"  # equal values: the name decides
    ledger.record("bad", HOPELESS - 0.01)
    assert ledger.pick(1) == "bad"


def test_a_pick_counts_at_once():
    ledger = Ledger(PolicySettings())
    ledger.add("a")
    ledger.add("b")
    first, second = ledger.pick(1), ledger.pick(1)
    assert {first, second} == {"a", "b"}
    assert [arm.spent for arm in ledger.arms.values()] == [1, 1]


@pytest.mark.parametrize("feedback", [True, False])
def test_the_order_in_which_arms_became_known_decides_nothing(feedback):
    picks = []
    for names in (CELLS, CELLS[::-1]):
        ledger = Ledger(PolicySettings(feedback=feedback))
        for name in names:
            ledger.add(name)
        ledger.record("Li2Si", -0.2)
        picks.append([ledger.pick(1) for _ in range(30)])
    assert picks[0] == picks[1]


# --- compositions -------------------------------------------------------------------------------------------------


def test_every_composition_is_tried_before_any_twice():
    ledger = composition_ledger(CELLS, [], [], PolicySettings())
    assert sorted(ledger.pick(1) for _ in CELLS) == sorted(CELLS)
    assert sorted(ledger.pick(1) for _ in CELLS) == sorted(CELLS)  # alike as long as nothing is known


def test_an_untried_composition_comes_before_the_best_known():
    rows = [composition_row(cell, -5.0) for cell in CELLS[1:]]
    assert composition_ledger(CELLS, rows, [], PolicySettings()).pick(1) == CELLS[0]


def test_a_composition_that_only_failed_is_no_longer_untried():
    rows = [composition_row(cell, None) for cell in CELLS[:-1]] + [composition_row(CELLS[-1], 0.1)]
    ledger = composition_ledger(CELLS, rows, [], PolicySettings(exploration=0))
    assert ledger.pick(1) == CELLS[-1]
    assert all(arm.spent >= 1 for arm in ledger.arms.values())


def test_without_feedback_energies_decide_nothing():
    rows = [composition_row("Li2Si", -3.0), composition_row("LiSi", 0.9)]
    ledger = composition_ledger(CELLS, rows, [], PolicySettings(feedback=False))
    for _ in range(4 * len(CELLS) - len(rows)):
        ledger.pick(1)
    assert {arm.spent for arm in ledger.arms.values()} == {4}


def test_waiting_candidates_count_as_spent():
    waiting = [{"cell_formula": cell} for cell in CELLS[:3]]
    ledger = composition_ledger(CELLS, [], waiting, PolicySettings())
    assert {ledger.pick(1), ledger.pick(1)} == set(CELLS[3:])
    assert {arm.spent for arm in ledger.arms.values()} == {1}


def test_inpainted_cells_outside_the_search_are_left_aside():
    rows = [composition_row("Li8Si3", -9.0), composition_row("LiSi", 0.0)]
    assert set(composition_ledger(CELLS, rows, rows, PolicySettings()).arms) == set(CELLS)


def test_the_order_of_rows_decides_no_composition():
    rng = np.random.default_rng(0)
    rows = [
        composition_row(CELLS[i], float(e)) for i, e in zip(rng.integers(5, size=40), rng.normal(size=40), strict=True)
    ]
    picks = []
    for order in (range(40), rng.permutation(40)):
        ledger = composition_ledger(CELLS, [rows[i] for i in order], [], PolicySettings())
        picks.append([ledger.pick(1) for _ in range(50)])
    assert picks[0] == picks[1]


def test_more_is_spent_where_e_d_is_low():
    rows = [composition_row(cell, 0.01 * index) for index, cell in enumerate(CELLS)]
    ledger = composition_ledger(CELLS, rows, [], PolicySettings())
    for _ in range(60):
        ledger.pick(1)
    spent = [ledger.arms[cell].spent for cell in CELLS]
    assert all(better > worse for better, worse in pairwise(spent))
    assert min(spent) > 1


# --- frameworks ---------------------------------------------------------------------------------------------------


def test_without_frameworks_there_is_nothing_to_pick():
    ledger, known = framework_ledger([generated("a", 0.1)], [], PolicySettings())
    assert not ledger.arms
    assert not known


def test_a_framework_starts_with_its_parents_e_d():
    rows = [generated("a", 0.3, cubic("f", 3.0)), generated("b", -0.1, cubic("g", 4.0))]
    ledger, known = framework_ledger(rows, [], PolicySettings(exploration=0))
    assert {key: (arm.best, arm.spent) for key, arm in ledger.arms.items()} == {"f": (0.3, 0), "g": (-0.1, 0)}
    assert ledger.pick(3) == "g"
    assert known["g"].parent["candidate"] == "b"
    assert known["g"].record["framework"] == "g"


def test_a_framework_is_then_judged_by_its_children():
    rows = [
        generated("a", -0.5, cubic("f", 3.0)),
        generated("b", 0.0, cubic("g", 4.0)),
        inpainted("c", 0.2, "f"),
        inpainted("d", 0.1, "f"),
    ]
    ledger, _ = framework_ledger(rows, [], PolicySettings(exploration=0))
    assert (ledger.arms["f"].best, ledger.arms["f"].spent) == (0.1, 2)
    assert ledger.pick(1) == "g"


def test_a_framework_whose_children_all_failed_is_hopeless():
    rows = [generated("a", -0.5, cubic("f", 3.0)), generated("b", 0.9, cubic("g", 4.0)), inpainted("c", None, "f")]
    ledger, _ = framework_ledger(rows, [], PolicySettings(exploration=0))
    assert math.isinf(ledger.arms["f"].best)
    assert ledger.pick(1) == "g"


def test_waiting_children_count_but_do_not_judge():
    rows = [generated("a", -0.5, cubic("f", 3.0))]
    waiting = [{"cell_formula": "LiSi", "framework": "f"}] * 3 + [{"cell_formula": "LiSi"}]
    ledger, _ = framework_ledger(rows, waiting, PolicySettings())
    assert (ledger.arms["f"].best, ledger.arms["f"].spent) == (-0.5, 3)


def test_one_framework_found_twice_is_one_arm(layered):
    first, second = layered
    assert first["host"] != second["host"]
    rows = [generated("a", 0.3, first), generated("b", -0.2, second)]
    ledger, known = framework_ledger(rows, [], PolicySettings())
    assert list(known) == list(ledger.arms) == ["layered-0"]
    assert known["layered-0"].parent["candidate"] == "a"


def test_the_same_host_with_other_guests_or_another_group_is_another_arm(layered):
    first, second = layered
    more = {**second, "framework": "more", "guests": {"Li": 2}}
    other = {**second, "framework": "other", "space_group_number": 12}
    _, known = framework_ledger([generated("a", 0.3, first, more, other)], [], PolicySettings())
    assert list(known) == ["layered-0", "more", "other"]


def test_without_feedback_frameworks_take_turns():
    rows = [generated("a", -0.5, cubic("f", 3.0)), generated("b", 0.9, cubic("g", 4.0)), inpainted("c", -2.0, "f")]
    ledger, _ = framework_ledger(rows, [], PolicySettings(feedback=False))
    assert [ledger.pick(3) for _ in range(4)] == ["g", "f", "g", "f"]


def test_the_order_of_children_decides_nothing():
    parents = [generated("a", 0.1, cubic("f", 3.0)), generated("b", 0.2, cubic("g", 4.0))]
    children = [inpainted(f"c{i}", e_d, "fg"[i % 2]) for i, e_d in enumerate([0.3, None, -0.1, 0.0, 0.2])]
    picks = []
    for some in (children, children[::-1]):
        ledger, _ = framework_ledger([*parents, *some], [], PolicySettings())
        picks.append([ledger.pick(2) for _ in range(10)])
    assert picks[0] == picks[1]
