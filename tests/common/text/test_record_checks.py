"""Which exchanges are of no use; the order of turns is told the same by `faults` and by the
suites.
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.core.records import Record, Shape, message
from stages.common.curate.filters.contamination import Contamination, Index
from stages.common.text.record_checks import fault, in_order
from stages.common.validate.features import facts
from stages.common.validate.great_expectations import SUITES

CALL = [{"name": "f", "arguments": "{}"}]


def turns(roles: str) -> list[Record]:
    """S, U, A, C (an assistant's call) and T as turns that say something."""
    made = {
        "S": message("system", "s"),
        "U": message("user", "u"),
        "A": message("assistant", "a"),
        "C": message("assistant", "", tool_calls=CALL),
        "T": message("tool", "t"),
    }
    return [made[role] for role in roles]


@pytest.mark.parametrize("roles", ["UA", "SUA", "UAUA", "UCTA", "UCTTA", "UCTCTA", "UCTAUA", "UC"])
def test_a_whole_conversation_has_no_fault(roles: str) -> None:
    assert fault("conversations", {"messages": turns(roles)}) == ""


@pytest.mark.parametrize(
    ("roles", "reason"),
    [("", "empty_turn"), ("U", "no_answer"), ("UAU", "cut"), ("UCT", "cut"), ("UUA", "bad_role_order")]
    + [(roles, "bad_role_order") for roles in ("AU", "USA", "SSUA", "UTA", "UATA", "UAA", "UCA", "UCUA", "SA")],
)
def test_a_conversation_that_is_cut_or_out_of_order(roles: str, reason: str) -> None:
    assert fault("conversations", {"messages": turns(roles)}) == reason


def test_an_empty_turn_is_a_fault_and_a_call_without_words_is_not() -> None:
    assert fault("conversations", {"messages": [message("user", "u"), message("assistant", " ")]}) == "empty_turn"
    assert fault("conversations", {"messages": turns("UCTA")}) == ""


@pytest.mark.parametrize(("roles", "shape", "reason"), [("U", "prompts", ""), ("UA", "prompts", "no_question")])
def test_a_prompt_ends_with_the_user(roles: str, shape: Shape, reason: str) -> None:
    assert fault(shape, {"messages": turns(roles)}) == reason


@pytest.mark.parametrize(("roles", "reason"), [("U", ""), ("UCT", ""), ("UA", "no_question")])
def test_answers_are_compared_where_one_is_due(roles: str, reason: str) -> None:
    assert fault("comparisons", {"prompt": turns(roles), "responses": ["a", "b"]}) == reason


def test_what_else_a_shape_needs() -> None:
    assert fault("documents", {"text": ""}) == "empty"
    assert fault("comparisons", {"prompt": turns("U"), "responses": ["a", ""]}) == "empty_answer"
    assert fault("questions", {"messages": turns("U"), "reference": ""}) == "no_reference"
    assert fault("questions", {"messages": turns("U"), "reference": "a"}) == ""


@pytest.mark.parametrize("shape", ["conversations", "comparisons", "prompts", "questions"])
def test_curate_lets_through_exactly_the_orders_that_validate_expects(shape: Shape) -> None:
    from stages.common.validate.expectations import take_turns

    suite = json.loads((SUITES / f"{shape}.json").read_text(encoding="utf-8"))
    last = next(entry["kwargs"]["last"] for entry in suite["expectations"] if "last" in entry["kwargs"])
    index, key = Index.build([], Contamination()), "prompt" if shape == "comparisons" else "messages"

    @given(st.text("SUACT", max_size=8))
    def agree(roles: str) -> None:
        record = {key: turns(roles), "responses": ["a", "b"], "ranks": [1, 2], "reference": "r", "group": "g"}
        row = facts(shape, {"id": "a:1", "source": "a", "tools": None, **record}, index)
        expected = take_turns(row["roles"]) and row["roles"].split()[-1] in last
        assert expected == (fault(shape, record) == "")

    agree()


def test_an_order_is_judged_turn_by_turn() -> None:
    assert in_order(turns("SUCTTA")) and not in_order(turns("SUCTTUA"))
