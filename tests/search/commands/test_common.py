"""Checks of what was typed, shared by several commands."""

import math

import pytest

from search.commands.common import begin, number, parse_share, require_elements, seconds_of


def test_a_share_is_read_and_a_bad_one_refused():
    assert parse_share("--share", "2/4") == (2, 4)
    assert parse_share("--share", "1/1") == (1, 1)
    for bad in ("5/4", "0/4", "1", "1/", "a/b", "1/4/2", "-1/4"):
        with pytest.raises(ValueError, match=r"^--share must be k/n with k from 1 to n, for example 1/4; got '"):
            parse_share("--share", bad)


def test_what_is_no_element_is_named_with_its_option():
    require_elements("--free", ["Li", "Og"])
    for bad in ("Xx", "X", "li", "Lithium", ""):
        with pytest.raises(ValueError, match=f"^--free '{bad}' is not an element; use symbols such as Li$"):
            require_elements("--free", ["Li", bad])


def test_numbers_that_are_missing_are_left_out_of_tables():
    assert number(1.26, "+.1f") == "+1.3"
    assert [number(value, ".1f") for value in (None, math.nan, math.inf)] == ["", "", ""]
    assert number(math.nan, ".1f", "–") == "–"


def test_without_minutes_there_is_no_limit():
    begin()
    assert (seconds_of(None), seconds_of(0)) == (math.inf, 0)
    assert 60 < seconds_of(1.5) <= 90
