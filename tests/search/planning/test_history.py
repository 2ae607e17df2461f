"""What is known of a search: which crystals are new, what is rewarded, and when to end."""

import numpy as np
import pytest

from model.crystals.crystal import Crystal
from search.config import PolicySettings
from search.planning.frameworks import FrameworkPool
from search.planning.history import COMPARED, Novelty, SearchHistory
from search.storage.results import pack


def candidate(name, e_d, edge=3.0, **columns):
    crystal = Crystal(np.eye(3) * edge, [[0, 0, 0], [0.5, 0.5, 0.5]], [3, 14])
    return {
        "candidate": name,
        "e_d": e_d,
        "duplicate_of": None,
        "final": pack(crystal),
        "space_group_number": 221,
        "generator": "diffusion",
        "cell_formula": "LiSi",
        "frameworks": None,
        "volume_per_atom": 13.5,
        "energy": -3.0,
        "n_atoms": 2,
        "steps": 9,
        "n_independent_atoms": 2,
        "evaluations": 31,
        "status": "relaxed",
        "formula": "LiSi",
        "round": 0,
        "seconds_generate": 1.0,
        "seconds_relax": 2.0,
        "seconds_analyse": None,
        "bravais_lattice": "cP",
        **columns,
    }


def told(rows, settings):
    known = SearchHistory(settings, FrameworkPool(0.05))
    known.read(rows)
    return known


def novelty_of(rows):
    novelty = Novelty()
    novelty.read(rows)
    return novelty


def test_a_crystal_seen_again_is_neither_new_nor_seen_once():
    novelty = novelty_of([candidate("a", 0.0), candidate("b", 0.01, edge=3.02), candidate("c", 0.02, edge=3.8)])
    assert novelty.new().tolist() == [True, False, True]
    assert novelty.once().tolist() == [False, False, True]


def test_a_repeat_within_a_task_counts_as_seen_again():
    repeat = candidate("b", None, duplicate_of="a", final=None, status="rejected")
    novelty = novelty_of([candidate("a", 0.0), repeat])
    assert novelty.once().tolist() == [False, False]


def test_poor_crystals_are_not_compared_and_count_as_new():
    novelty = novelty_of([candidate(name, COMPARED + 0.1) for name in "ab"])
    assert novelty.new().tolist() == [True, True]


def test_the_bar_is_the_window_or_the_best_tenth():
    settings = PolicySettings(window=0.05, quantile=0.1)
    far = [candidate(f"{i:02d}", 0.5 + 0.1 * i) for i in range(11)]
    assert told(far, settings).bar() == pytest.approx(0.6)
    near = [candidate(f"{i:02d}", 0.35 - 0.1 * i, edge=3 + i) for i in range(5)]
    assert told(near, settings).bar() == 0.05
    assert told([], settings).bar() == 0.05


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
        ({"target": 0.01}, "target is reached: E_d 0.0100"),
        ({"candidates": 4}, None),
        ({"candidates": 3}, "3 candidates are stored"),
        ({"cpu_seconds": 10}, None),
        ({"cpu_seconds": 9}, "9 CPU seconds are spent"),
        ({"max_cost": 0.006, "cost_per_actor_hour": 2.0}, None),
        ({"max_cost": 0.005, "cost_per_actor_hour": 2.0}, "0.005 are spent at 2 an hour, 0.005 were allowed"),
        ({"patience_rounds": 4}, None),
        ({"patience_rounds": 3}, "has fallen for 3 rounds"),
    ],
)
def test_a_search_ends_when_there_is_reason(stop, expected):
    rows = [candidate("a", 0.03), candidate("b", 0.01, round=1), candidate("c", 0.0095, round=2)]
    rows[2]["status"] = "unconverged"
    reason = told(rows, PolicySettings(lookahead=0, stop=stop)).ending.reason(5)
    assert (reason is None) if expected is None else (expected in str(reason))


def test_nothing_is_over_before_it_began():
    settings = PolicySettings(stop={"patience_rounds": 1, "target": -1, "candidates": 1, "cpu_seconds": 1})
    assert told([], settings).ending.reason(9) is None


def test_a_fall_by_less_than_a_milli_electron_volt_is_no_improvement():
    rows = [candidate("a", 0.03), candidate("b", 0.0295, round=6)]
    assert told(rows, PolicySettings(lookahead=0, stop={"patience_rounds": 5})).ending.reason(7) is not None
