"""What is known of a search: which crystals are new, what is rewarded, and when to end."""

import numpy as np
import pytest

from model.crystals.crystal import Crystal
from model.crystals.matching import distance_fingerprints, packed
from search.config import PolicySettings
from search.planning.frameworks import FrameworkPool
from search.planning.history import COMPARED, ENOUGH, Novelty, SearchHistory
from search.storage.rows import StoredCrystal
from tests.support.rows import row_with


def candidate(name, e_d, edge=3.0, **columns):
    crystal = Crystal(np.eye(3) * edge, [[0, 0, 0], [0.5, 0.5, 0.5]], [3, 14])
    made = {
        "candidate": name,
        "e_d": e_d,
        "final": StoredCrystal.of(crystal),
        "space_group_number": 221,
        "volume_per_atom": 13.5,
        "energy": -3.0,
        "steps": 9,
        "n_independent_atoms": 2,
        "evaluations": 31,
        "seconds_generate": 1.0,
        "seconds_relax": 2.0,
        "bravais_lattice": "cP",
    }
    return row_with(**{**made, **columns})


def told(rows, settings):
    history = SearchHistory(settings, FrameworkPool(0.05))
    history.read(rows)
    return history


def novelty_of(rows):
    novelty = Novelty()
    novelty.read(rows)
    return novelty


def test_a_crystal_seen_again_is_neither_new_nor_seen_once():
    novelty = novelty_of([candidate("a", 0.0), candidate("b", 0.004, edge=3.02), candidate("c", 0.02, edge=3.8)])
    assert novelty.new().tolist() == [True, False, True]
    assert novelty.once().tolist() == [False, False, True]


def test_a_repeat_within_a_task_counts_as_seen_again():
    repeat = candidate("b", None, duplicate_of="a", final=None, status="rejected")
    novelty = novelty_of([candidate("a", 0.0), repeat])
    assert novelty.once().tolist() == [False, False]


def judged(name, e_d, edge, e_d_judge, edge_judge):
    """A candidate that the judge relaxed into a cube with another edge."""
    crystal = candidate(name, e_d, edge=edge_judge).final.crystal
    (fingerprint,) = distance_fingerprints([crystal])
    said = {"final_judge": StoredCrystal.of(crystal), "fingerprint_judge": packed(fingerprint)}
    return candidate(name, e_d, edge=edge, judge="7net-0", e_d_judge=e_d_judge, energy_judge=-3.0, **said)


def test_what_the_judge_relaxes_into_the_same_crystal_is_the_same():
    rows = [
        judged("a", 0.0, 3.0, 0.01, 3.3),
        judged("b", 0.02, 3.8, 0.012, 3.31),  # another crystal until the judge relaxes it
        judged("c", 0.02, 4.4, 0.03, 4.2),
        candidate("d", 0.021, edge=3.79),  # b again, not judged
        judged("e", 0.05, 5.0, 0.06, 3.3),  # as a, but with another energy
    ]
    novelty = novelty_of(rows)
    assert novelty.new().tolist() == [True, False, True, False, True]
    assert novelty.once().tolist() == [False, False, True, False, True]


def test_poor_crystals_are_not_compared_and_count_as_new():
    novelty = novelty_of([candidate(name, COMPARED + 0.1) for name in "ab"])
    assert novelty.new().tolist() == [True, True]


def test_the_reward_threshold_is_the_window_or_the_best_tenth():
    settings = PolicySettings(energy_window=0.05, quantile=0.1)
    far = [candidate(f"{i:02d}", 0.5 + 0.1 * i) for i in range(11)]
    assert told(far, settings).reward_threshold() == pytest.approx(0.6)
    near = [candidate(f"{i:02d}", 0.35 - 0.1 * i, edge=3 + i) for i in range(5)]
    assert told(near, settings).reward_threshold() == 0.05
    assert told([], settings).reward_threshold() == 0.05


def test_once_a_few_crystals_lie_in_the_window_none_above_it_counts():
    settings = PolicySettings(energy_window=0.05, quantile=0.1)
    low = [candidate(f"{i:03d}", 0.01 * i, edge=3 + 0.3 * i) for i in range(ENOUGH)]
    high = [candidate(f"{i:03d}", 0.5 + 0.01 * i) for i in range(100, 200)]
    assert told([*low[1:], *high], settings).reward_threshold() > 0.5
    assert told([*low, *high], settings).reward_threshold() == 0.05


def test_below_the_hull_crystals_are_valued_by_their_distance_from_the_lowest_of_their_formula():
    settings = PolicySettings(energy_window=0.05)
    rows = [candidate("a", -0.2), candidate("b", -0.16, edge=3.8), candidate("c", 0.0, edge=4.4)]
    ((_, found),) = told(rows, settings).spent(0.05)
    assert found.value == pytest.approx(1.0 + 0.6 + 0.0)
    ((_, above),) = told([candidate("a", 0.0), candidate("b", 0.04, edge=3.8)], settings).spent(0.05)
    assert above.value == pytest.approx(1.0 + 0.6)


def test_a_crystal_that_relaxed_at_the_second_time_only_may_be_changed():
    first = candidate("a", 0.0, status="unconverged")
    known = told([first, candidate("b", 0.0), candidate("c", 0.0)], PolicySettings())
    assert list(known.parents) == ["b"]


# --- the end ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ({}, None),
        ({"target": 0.005}, None),
        ({"target": 0.01}, "target reached: E_d 0.0100"),
        ({"candidates": 4}, None),
        ({"candidates": 3}, "candidate limit of 3 reached (3 stored)"),
        ({"cpu_seconds": 10}, None),
        ({"cpu_seconds": 9}, "CPU budget of 9 s is used up (9 s)"),
        ({"max_cost": 0.006, "cost_per_actor_hour": 2.0}, None),
        ({"max_cost": 0.005, "cost_per_actor_hour": 2.0}, "budget of 0.005 is used up (0.005 at 2 per actor-hour)"),
        ({"patience_rounds": 4}, None),
        ({"patience_rounds": 3}, "no lower E_d below 0.05 eV/atom for 3 rounds"),
    ],
)
def test_a_search_ends_when_there_is_reason(stop, expected):
    unconverged = candidate("c", 0.0095, round=2, status="unconverged")
    rows = [candidate("a", 0.03), candidate("b", 0.01, round=1), unconverged]
    reason = told(rows, PolicySettings(rounds_ahead=0, stop=stop)).stopping.reason(5)
    assert (reason is None) if expected is None else (expected in str(reason))


def test_nothing_is_over_before_it_began():
    settings = PolicySettings(stop={"patience_rounds": 1, "target": -1, "candidates": 1, "cpu_seconds": 1})
    assert told([], settings).stopping.reason(9) is None


def test_a_fall_by_less_than_a_milli_electron_volt_is_no_improvement():
    rows = [candidate("a", 0.03), candidate("b", 0.0295, round=6)]
    assert told(rows, PolicySettings(rounds_ahead=0, stop={"patience_rounds": 5})).stopping.reason(7) is not None
