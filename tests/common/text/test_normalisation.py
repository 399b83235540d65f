"""What makes two texts the same."""

import pytest

from stages.common.core.records import message
from stages.common.text import content_hash, normalisation


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("cafe\u0301", "café"),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("\ufeffa\u200bb\x00c\xad", "abc"),
        ("a\xa0b\u3000c", "a b c"),
        ("  a  \n\n\n\n  b \t\n", "  a\n\n  b"),
        ("\n\n   An indented line.\nAnother.\n", "An indented line.\nAnother."),
        ("    x = 1\n    y = 2", "    x = 1\n    y = 2"),
        ("\u3000\u3000一段。\n\u3000\u3000二段。", "  一段。\n  二段。"),
        ("👩\u200d🚀 می\u200cخواهم", "👩\u200d🚀 می\u200cخواهم"),
    ],
)
def test_normalise(text: str, clean: str) -> None:
    assert normalisation.normalise(text) == clean
    assert normalisation.normalise(clean) == clean


def test_a_key_forgets_case_width_and_spacing_but_not_signs() -> None:
    assert normalisation.key(" What IS\n 2＋2？ ") == normalisation.key("what is 2+2?")
    assert normalisation.key("2+2?") != normalisation.key("2-2?")


def test_identity_is_the_content_of_a_shape() -> None:
    turns = [message("user", "Hi"), message("assistant", "Hello.")]
    one, two = ({"id": name, "source": name, "messages": turns, "tools": None} for name in "ab")
    assert content_hash.identity("conversations", one) == content_hash.identity("conversations", two)
    assert content_hash.identity("conversations", one) != content_hash.identity("conversations", one | {"tools": "[]"})


def test_the_same_first_user_turn_gives_the_same_split_in_every_shape() -> None:
    first = content_hash.split_digest("prompts", {"messages": [message("system", "x"), message("user", "Hi there")]})
    turns = [message("user", "hi  there"), message("assistant", "a"), message("user", "b")]
    assert content_hash.split_digest("conversations", {"messages": turns}) == first
    assert content_hash.split_digest("comparisons", {"prompt": turns}) == first


def test_clean_touches_every_text_a_model_reads_and_no_tool_call() -> None:
    call = [{"name": "f", "arguments": '{"a": "x  "}  '}]
    record = {"prompt": [message("user", " a "), message("assistant", "", " b ", call)], "responses": [" c ", "d"]}
    assert normalisation.clean("comparisons", record) == {
        "prompt": [message("user", "a"), message("assistant", "", "b", call)],
        "responses": ["c", "d"],
    }
    assert normalisation.clean("documents", {"id": " i ", "text": " a "}) == {"id": " i ", "text": "a"}
