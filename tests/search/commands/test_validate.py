"""What `hostguide validate` says of a configuration."""

import pytest

from search.commands.validate import describe
from tests.support.configs import per_round


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
    assert expected in list(describe(make_config(policy=policy)))
