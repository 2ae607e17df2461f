"""What `hostguide validate` says of a configuration."""

import pytest

from search.commands.validate import FORMULAS_SHOWN, describe
from search.planning.prepare import load_reference
from tests.support.configs import per_round


def told(config):
    return list(describe(config, load_reference(config)))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (per_round(6, 5), "2 rounds of up to 11 candidates: at most 17 candidates"),
        (
            per_round(6, 5) | {"feedback": False},
            "2 rounds of 6 new crystals and up to 5 made from hosts or other crystals: at most 17 candidates",
        ),
        (per_round(6, 0), "2 rounds of 6 new crystals: at most 12 candidates"),
    ],
)
def test_rounds_are_told_as_the_policy_shares_them_out(make_config, policy, expected):
    policy = {"rounds": 2, "rounds_ahead": 0, "batch": 6, **policy}
    assert expected in told(make_config(policy=policy))


def test_of_many_formulas_the_first_are_listed(make_config):
    compositions = {"system": "Li-P-S-Cl", "max_atoms": 9, "min_atoms": 4}
    lines = told(make_config(compositions=compositions))
    listed = [line for line in lines if "Å³/atom" in line]
    assert lines[1] == "126 cells of 4 to 9 atoms:"
    assert len(listed) == FORMULAS_SHOWN
    assert f"  and {125 - FORMULAS_SHOWN} more formulas" in lines  # LiPSCl has two cells


def test_the_judge_is_told(make_config):
    assert "judge: chgnet-r2scan, with its own hull; the estimated time is without it" in told(
        make_config(judge={"potential": "chgnet-r2scan"})
    )
    assert not any(line.startswith("judge:") for line in told(make_config()))
