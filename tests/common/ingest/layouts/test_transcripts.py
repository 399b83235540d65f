"""Talk written down as one text."""

import pytest

from stages.common.core.records import Record, message
from stages.common.ingest.layouts.fields import Malformed
from stages.common.ingest.layouts.transcripts import is_transcript, messages, spoken
from tests.support.parse import parse

TALK = [
    message("user", "Hi"),
    message("assistant", "Hello.\n\nWhat is it?"),
    message("user", "答：what?"),
    message("assistant", "Fine."),
]


@pytest.mark.parametrize(
    "text",
    [
        "\n\nHuman: Hi\n\nAssistant: Hello.\n\nWhat is it?\n\nHuman: 答：what?\n\nAssistant: Fine.",
        "Human:Hi\nAssistant:Hello.\n\nWhat is it?\nHuman: 答：what?\nAssistant:Fine.\n",
        "[Round 0]\n问：Hi\n答：Hello.\n\nWhat is it?\n[Round 1]\n问：答：what?\n答：Fine.",
        "[Round 1]\n\n问：Hi\n\n答：Hello.\n\nWhat is it?\n\n[Round 2]\n\n问: 答：what?\n\n答: Fine.",
    ],
)
def test_every_layout_says_the_same(text: str) -> None:
    assert is_transcript(text)
    assert messages(text) == TALK
    assert parse({"text": text}) == ("transcript", "conversations", {"messages": TALK, "tools": None})
    assert parse({"transcript": text, "rating": 3})[1] == "conversations"


def test_an_answer_to_come_is_no_message() -> None:
    text = "\n\nHuman: Hi\n\nAssistant:"
    assert messages(text) == TALK[:1]
    assert spoken(text) == [*TALK[:1], message("assistant", "")]


@pytest.mark.parametrize(
    "text", ["Human: beings are", "Humans\nAssistant: no", "[Round 1] of the fight", "问：Hi", "He said:\n\nHuman: Hi"]
)
def test_prose_is_no_transcript(text: str) -> None:
    assert not is_transcript(text)
    assert parse({"text": text}) == ("text", "documents", {"text": text})


def test_lines_inside_a_paragraph_do_not_change_the_speaker() -> None:
    text = "\n\nHuman: Read:\nHuman: no\n\nAssistant: Read."
    assert messages(text) == [message("user", "Read:\nHuman: no"), message("assistant", "Read.")]


@pytest.mark.parametrize(
    "row", [{"transcript": "Hi\n\nHuman: there"}, {"transcript": ""}, {"transcript": "Assistant:"}]
)
def test_a_text_under_transcript_that_is_none_is_refused(row: Record) -> None:
    with pytest.raises(Malformed, match="bad transcript"):
        parse(row)
