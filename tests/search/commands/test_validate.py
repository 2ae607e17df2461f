"""What `hostguide validate` says of a configuration."""

import pytest

from search.commands.validate import describe


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({}, "2 rounds of up to 11 new and inpainted crystals together: at most 17 candidates"),
        ({"feedback": False}, "2 rounds of 6 new and up to 5 inpainted crystals: at most 17 candidates"),
        ({"inpainted": 0}, "2 rounds of 6 new crystals: at most 12 candidates"),
    ],
)
def test_rounds_are_told_as_the_policy_shares_them_out(make_config, sections, expected):
    policy = {"rounds": 2, "candidates_per_round": 11, "new_share": 0.545455, "rounds_ahead": 0, "batch": 6, **sections}
    assert expected in list(describe(make_config(policy=policy)))
