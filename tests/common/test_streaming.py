"""Answers as they are made: the same tokens as in one go, no longer than wanted, within the model's context."""

import threading
import time
from typing import TYPE_CHECKING

import pytest

from stages.common import chat, generation, streaming
from stages.common.errors import DataError
from stages.common.records import Record, message
from tests.tiny import make_model, make_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

QUESTION = [message("user", "What is the capital of land 3?")]


@pytest.fixture(scope="module")
def tokenizer() -> "PreTrainedTokenizerBase":
    return make_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    return make_model(tokenizer, seed=3).eval()


def test_the_pieces_are_the_greedy_answer(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    prompt = chat.encode_prompt(tokenizer, QUESTION)
    (whole,) = generation.generate(model, [prompt], max_new_tokens=24, stop=chat.stops(tokenizer))
    pieces = list(streaming.stream(model, tokenizer, QUESTION, max_new_tokens=24))
    assert len(pieces) > 2
    assert "".join(pieces) == tokenizer.decode(whole, skip_special_tokens=True)


def test_temperature_samples(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    answers = {
        "".join(streaming.stream(model, tokenizer, QUESTION, max_new_tokens=16, temperature=1.5)) for _ in range(3)
    }
    assert len(answers) > 1


def test_closing_the_answer_stops_the_model(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1
        time.sleep(0.01)

    hook = model.register_forward_hook(count)
    try:
        answer = streaming.stream(model, tokenizer, QUESTION, max_new_tokens=200)
        next(answer)
        answer.close()  # type: ignore[attr-defined]  # a generator
        stopped_at = steps
        time.sleep(0.2)
        assert steps == stopped_at < 20
        assert "answer" not in [thread.name for thread in threading.enumerate()]
    finally:
        hook.remove()


def test_a_failure_in_the_model_reaches_the_reader(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(streaming.stream(model, tokenizer, QUESTION, max_new_tokens=8))


def conversation(turns: int) -> list[Record]:
    system = message("system", "Be brief.")
    pairs = [[message("user", f"question {turn}"), message("assistant", f"answer {turn}")] for turn in range(turns)]
    return [system, *(item for pair in pairs for item in pair), message("user", "the last one")]


def test_the_oldest_turns_go_first_and_the_system_prompt_stays(tokenizer: "PreTrainedTokenizerBase") -> None:
    whole = chat.encode_prompt(tokenizer, conversation(5))
    assert streaming.fitting(tokenizer, conversation(5), len(whole)) == whole
    text = tokenizer.decode(streaming.fitting(tokenizer, conversation(5), len(whole) - 1))
    assert "Be brief." in text
    assert "the last one" in text
    assert "question 0" not in text
    assert "answer 0" not in text
    assert "question 1" in text


def test_a_message_without_room_is_refused_with_the_numbers(tokenizer: "PreTrainedTokenizerBase") -> None:
    with pytest.raises(DataError, match=r"has \d+ tokens, and there is room for 10"):
        streaming.fitting(tokenizer, conversation(2), 10)
    with pytest.raises(DataError, match="there is room for 0"):
        streaming.fitting(tokenizer, conversation(2), -5)
