"""Text comes whole whatever the tokens cut, and nothing of a stop string is ever shown."""

import itertools
from typing import TYPE_CHECKING

import pytest

from stages.common.serving.engine.text import Text
from tests.support.tiny import make_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLES = ["The capital of land 3 is town 21.", "第3国的首都是3城。", "naïve 👩‍👩‍👧 — «ok»", "a\n\n  b\tc ", ""]


@pytest.fixture(scope="module")
def tokenizer() -> "PreTrainedTokenizerBase":
    return make_tokenizer()


def pieces(text: Text, tokens: list[int], every: int = 1) -> list[str]:
    shown = []
    for number, token in enumerate(tokens, 1):
        text.add(token)
        if number % every == 0:
            shown.append(text.take())
        if text.ended:
            break
    return [*shown, text.take(), text.end()]


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("every", [1, 2, 5, 1000])
def test_the_pieces_are_the_text_and_none_holds_half_a_character(
    tokenizer: "PreTrainedTokenizerBase", sample: str, every: int
) -> None:
    found = pieces(Text(tokenizer), tokenizer.encode(sample), every)
    assert "".join(found) == sample
    assert not any("\ufffd" in piece for piece in found)


def test_bytes_that_are_no_character_come_out_at_the_end(tokenizer: "PreTrainedTokenizerBase") -> None:
    tokens = tokenizer.encode("城")[:-1]
    assert "".join(pieces(Text(tokenizer), tokens)) == tokenizer.decode(tokens)
    mixed = [*tokens, *tokenizer.encode(" town"), *tokens, *tokens]
    assert "".join(pieces(Text(tokenizer), mixed)) == tokenizer.decode(mixed)


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (["town"], "The capital of land 3 is "),
        (["town 21.", "is t"], "The capital of land 3 "),
        ([" 3 is town 2"], "The capital of land"),
        (["town 22"], SAMPLES[0]),
        (["."], SAMPLES[0][:-1]),
        (["T"], ""),
    ],
)
def test_nothing_of_a_stop_string_is_shown(
    tokenizer: "PreTrainedTokenizerBase", stop: list[str], expected: str
) -> None:
    text = Text(tokenizer, stop)
    assert text.is_urgent
    found = pieces(text, tokenizer.encode(SAMPLES[0]))
    assert "".join(found) == expected
    for shown in itertools.accumulate(found):
        assert expected.startswith(shown)
    assert text.ended is (expected != SAMPLES[0])
    assert "".join(pieces(Text(tokenizer, stop), tokenizer.encode(SAMPLES[0]), 1000)) == expected
