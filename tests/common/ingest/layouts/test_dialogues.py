"""Dialogues: lines said in turn in one row, or one row a line."""

import pytest

from stages.common.core.records import Record, message
from stages.common.ingest.layouts.dialogues import Line, is_line, joined, line
from stages.common.ingest.layouts.fields import Malformed
from tests.support.parse import parse


def spoken(number: int, name: str, after: str | None, speaker: str) -> Line:
    return Line(number, "L1", name, after, speaker, f"Text {name}.")


def test_a_list_of_lines_is_said_in_turn() -> None:
    expected = [message("user", "Hi"), message("assistant", "Hello."), message("user", "Bye")]
    assert parse({"dialog": ["Hi", "Hello.", "Bye"], "act": [1, 2, 3]}) == (
        "dialogue",
        "conversations",
        {"messages": expected, "tools": None},
    )
    turns = [{"role": "user", "content": "Hi"}, {"from": "gpt", "value": "Hello."}]
    assert parse({"dialogue": turns})[2]["messages"] == expected[:2]
    with pytest.raises(Malformed, match="bad turn"):
        parse({"dialog": []})


@pytest.mark.parametrize(
    "more",
    [
        {"conversation_id": "L1", "speaker": "u0", "reply-to": None},
        {"root": "L1", "user": "u0", "reply_to": None},
        {"conversation_id": "L1", "speaker": {"id": "u0"}, "reply-to": None, "meta": {}},
    ],
)
def test_utterances_of_convokit(more: Record) -> None:
    row = {"id": "L1", "text": "Hi"} | more
    assert is_line(row)
    assert line(7, row) == Line(7, "L1", "L1", None, "u0", "Hi")
    assert not is_line({"text": "Hi", "speaker": "u0", "id": "L1"})


def test_lines_are_ordered_by_who_replies_to_whom_and_joined_by_speaker() -> None:
    lines = [
        spoken(1, "d", "c", "anna"),
        spoken(2, "c", "b", "ben"),
        spoken(3, "b", "a", "anna"),
        spoken(4, "a", None, "anna"),
    ]
    found = joined(lines)
    assert found.messages == [message("user", "Text a.\nText b."), message("assistant", "Text c.")]
    assert (sorted(found.used), found.unanswered) == ([2, 3, 4], [1])


def test_a_part_of_a_dialogue_starts_after_a_line_elsewhere() -> None:
    found = joined([spoken(8, "x", "gone", "anna"), spoken(9, "y", "x", "ben")])
    assert [one["content"] for one in found.messages] == ["Text x.", "Text y."]


@pytest.mark.parametrize(
    "lines",
    [
        [spoken(1, "a", None, "anna"), spoken(2, "b", "a", "ben"), spoken(3, "c", "b", "carl")],
        [spoken(1, "a", None, "anna"), spoken(2, "b", "a", "ben"), spoken(3, "c", "a", "ben")],
        [spoken(1, "a", None, "anna"), spoken(2, "b", None, "ben")],
        [spoken(1, "a", "b", "anna"), spoken(2, "b", "a", "ben")],
        [spoken(1, "a", None, "anna"), spoken(2, "a", None, "anna")],
    ],
)
def test_three_speakers_forks_and_rings_are_no_dialogue(lines: list[Line]) -> None:
    with pytest.raises(Malformed, match="bad dialogue"):
        joined(lines)
