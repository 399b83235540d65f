"""Expectations of our own: which values pass."""

import json

import pytest

from stages.common.validate.expectations import rank_all, take_turns
from stages.common.validate.great_expectations import SUITES


@pytest.mark.parametrize("ranks", ["1 2 of 2", "2 1 of 2", "1 1 of 2", "1 2 2 3 of 4", "1 2 2 4 of 4", "3 1 2 of 3"])
def test_ranks_that_rank_all_answers(ranks: str) -> None:
    assert rank_all(ranks)


@pytest.mark.parametrize(
    "ranks",
    ["1 2 of 3", "1 2 3 of 2", "2 2 of 2", "0 1 of 2", "1 3 of 2", "-1 1 of 2", "1 None of 2", " of 0", " of 2"],
)
def test_ranks_that_do_not(ranks: str) -> None:
    assert not rank_all(ranks)


@pytest.mark.parametrize("roles", ["user", "system user assistant", "user call tool tool assistant user", "user call"])
def test_roles_in_order(roles: str) -> None:
    assert take_turns(roles)


@pytest.mark.parametrize(
    "roles", ["", "system", "assistant", "user user", "user call assistant", "user other", "user tool"]
)
def test_roles_out_of_order(roles: str) -> None:
    assert take_turns(roles) == (roles == "system")  # who may be last is the suite's matter


def test_every_expectation_of_our_own_is_in_a_suite() -> None:
    from great_expectations.expectations.expectation import Expectation

    from stages.common.validate import expectations

    classes = [
        found
        for found in vars(expectations).values()
        if isinstance(found, type) and issubclass(found, Expectation) and found.__module__ == expectations.__name__
    ]
    used = {
        entry["type"]
        for file in SUITES.glob("*.json")
        for entry in json.loads(file.read_text(encoding="utf-8"))["expectations"]
    }
    assert len(classes) == 13
    assert {found.expectation_type for found in classes} <= used
