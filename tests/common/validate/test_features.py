"""What a record looks like to a suite: small facts, worked out by hand, and none of its text."""

from typing import Any

import pyarrow as pa
import pytest

from stages.common.core.records import SHAPES, Record, Shape, message
from stages.common.curate.filters.contamination import Contamination, Index
from stages.common.validate.features import SCHEMAS, facts, whole

QUESTION = {"id": "<q>.json:1", "messages": [message("user", "Who wrote the tale of Genji?")], "group": "iid"}
INDEX = Index.build([QUESTION], Contamination())
CALL = message("assistant", None, tool_calls=[{"name": "f", "arguments": None}])  # type: ignore[arg-type]  # a null in the file
KNOWN = {"id": "a.txt:1", "source": "a.txt"}


def found(shape: Shape, **own: Any) -> Record:
    record = whole(shape, {**KNOWN, "tools": None, **own})
    return {name: value for name, value in facts(shape, record, INDEX).items() if name not in KNOWN}


def test_a_document() -> None:
    text = "Ask: who wrote the Tale of Genji? Write to me@post.sample."
    assert found("documents", text=text) == {
        "characters": 58,
        "empty": 0,
        "test_question": "&lt;q&gt;.json:1",
        "personal_data": "1 mail",
    }
    assert found("documents", text=None) == {"characters": 0, "empty": 1, "test_question": None, "personal_data": None}


def test_a_conversation() -> None:
    turns = [message("user", "f?"), CALL, message("tool", "t"), message("assistant", " "), None, message("<b>", "x")]
    assert found("conversations", messages=turns) == {
        "roles": "user call tool assistant other other",
        "empty": 2,
        "characters": 5,
        "languages": None,
        "test_question": None,
        "personal_data": None,
    }


ASKED, ANSWER = (
    "What is the capital of France, and for how long has it been the capital of the country?",
    "法国的首都是巴黎，从中世纪起就是了，中间有过几次中断。",
)


@pytest.mark.parametrize(
    ("question", "answer", "languages"),
    [
        (ASKED, ANSWER, "en, answered in zh"),
        (ANSWER, ASKED, "zh, answered in en"),
        (ASKED, ASKED, None),
        (f"{ASKED} Answer in Chinese.", ANSWER, None),
        (ASKED, "巴黎。", None),  # too short to tell
        (ASKED, "", None),  # found by others
    ],
)
def test_question_and_answer_in_two_languages(question: str, answer: str, languages: str | None) -> None:
    turns = [message("user", question), message("assistant", answer)]
    assert found("conversations", messages=turns)["languages"] == languages
    assert found("comparisons", prompt=turns[:1], responses=[answer, "x"], ranks=[1, 2])["languages"] == languages


@pytest.mark.parametrize("ranks", [[], [1], [1, None]])
def test_ranks_that_rank_nothing_do_not_stop_the_look_at_languages(ranks: list[int | None]) -> None:
    ranked = {"prompt": [message("user", ASKED)], "responses": [ANSWER, ANSWER], "ranks": ranks}
    assert found("comparisons", **ranked)["languages"] is None


def test_a_comparison() -> None:
    prompt = [message("user", "Well?")]
    assert found("comparisons", prompt=prompt, responses=["a", None, "a"], ranks=[1, 2, None]) == {
        "roles": "user",
        "empty": 0,
        "characters": 7,
        "responses": 3,
        "empty_responses": 1,
        "different_responses": 2,
        "ranks": "1 2 None of 3",
        "different_ranks": 3,
        "languages": None,
        "test_question": None,
        "personal_data": None,
    }
    nothing = found("comparisons", prompt=None, responses=None, ranks=None)
    assert (nothing["roles"], nothing["ranks"], nothing["responses"]) == ("", " of 0", 0)


def test_a_question_is_not_looked_for_in_itself() -> None:
    own = {"messages": QUESTION["messages"], "reference": None, "group": " iid "}
    assert found("questions", **own) == {
        "roles": "user",
        "empty": 0,
        "characters": 28,
        "reference_characters": 0,
        "group_characters": 3,
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_the_columns_of_its_schema_and_null_columns_keep_their_type(shape: Shape) -> None:
    record = whole(
        shape,
        {"text": "t", "messages": [], "prompt": [], "responses": [], "ranks": [], "response": "", "tools": None}
        | {"desirable": True}
        | KNOWN,
    )
    record |= {"reference": None, "group": None}
    row = facts(shape, record, INDEX)
    assert set(row) == set(SCHEMAS[shape].names)
    assert pa.Table.from_pylist([row], SCHEMAS[shape]).schema == SCHEMAS[shape]
