"""Completions and log-probabilities, against a forward pass of the model itself."""

import json
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
import torch

from stages.common.core import chat
from stages.common.core.records import message
from stages.common.serving.engine.champions import Champions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT = "The capital of land 3 is town 21. 第3国的首都"
ASK: Any = [{"role": "user", "content": "What is the capital of land 3?"}]


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def known(champions: Champions, tokens: list[int]) -> torch.Tensor:
    """Return the model's own log-probabilities [T, V] of what follows each of the tokens."""
    with torch.inference_mode():
        return champions.current.engine.model(torch.tensor([tokens])).logits[0].log_softmax(-1)


def tokenizer_of(champions: Champions) -> "PreTrainedTokenizerBase":
    return champions.current.engine.tokenizer


@pytest.mark.parametrize("made", [0, 1, 6])
def test_an_echoed_prompt_has_the_log_likelihoods_of_a_forward_pass(
    client: openai.OpenAI, lasting: Champions, made: int
) -> None:
    tokens = chat.encode_texts(tokenizer_of(lasting), [TEXT])[0]
    found = client.completions.create(
        model="lathe", prompt=TEXT, max_tokens=made, echo=True, logprobs=2, temperature=0
    ).choices[0]
    assert found.text.startswith(TEXT) and found.logprobs
    scores, tops, offsets = found.logprobs.token_logprobs, found.logprobs.top_logprobs, found.logprobs.text_offset
    assert scores and tops and offsets and found.logprobs.tokens
    assert scores[0] is None and tops[0] is None
    whole = known(lasting, tokens)
    expected = [float(whole[at, token]) for at, token in enumerate(tokens[1:])]
    assert scores[1 : len(tokens)] == pytest.approx(expected, abs=1e-4)
    best = whole.max(-1).values.tolist()
    assert [max(top.values()) for top in tops[1 : len(tokens)]] == pytest.approx(best[:-1], abs=1e-4)
    assert all(score <= max(top.values()) for score, top in zip(scores[1:], tops[1:], strict=True))
    assert offsets[0] == 0 and offsets == sorted(offsets) and offsets[-1] <= len(found.text)
    assert len(scores) == len(tokens) + made
    if made:
        assert scores[len(tokens)] == pytest.approx(best[-1], abs=1e-4), "greedy takes the best"


def test_prompts_are_texts_or_tokens_one_or_many_and_each_is_a_choice(
    client: openai.OpenAI, lasting: Champions
) -> None:
    texts = ["The capital of land 3", "land 7", ""]
    tokens = chat.encode_texts(tokenizer_of(lasting), texts[:2])
    given: dict[str, Any] = {"model": "lathe", "max_tokens": 5, "temperature": 0}
    alone = [client.completions.create(prompt=text, **given).choices[0].text for text in texts]
    both = client.completions.create(prompt=texts, **given)
    assert [(one.index, one.text) for one in both.choices] == list(enumerate(alone))
    assert both.object == "text_completion" and both.usage and both.usage.completion_tokens > 3
    assert [one.text for one in client.completions.create(prompt=tokens, **given).choices] == alone[:2]
    echoed = client.completions.create(prompt=tokens[0], echo=True, **given).choices[0].text
    assert echoed == texts[0] + alone[0]


def test_a_streamed_completion_is_the_whole_one(client: openai.OpenAI) -> None:
    given: dict[str, Any] = {
        "model": "lathe",
        "prompt": [TEXT, "land 9"],
        "max_tokens": 12,
        "temperature": 0,
        "logprobs": 1,
        "echo": True,
    }
    whole = client.completions.create(**given)
    chunks = list(client.completions.create(**given, stream=True, stream_options={"include_usage": True}))
    for choice in whole.choices:
        parts = [part for chunk in chunks for part in chunk.choices if part.index == choice.index]
        assert "".join(part.text for part in parts) == choice.text
        assert parts[-1].finish_reason == choice.finish_reason
        assert choice.logprobs
        for column in ("token_logprobs", "text_offset", "tokens"):
            told = [value for part in parts for value in getattr(part.logprobs, column)]
            assert told == getattr(choice.logprobs, column), column
    assert chunks[-1].usage == whole.usage


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_s_log_probabilities_are_those_of_its_tokens(
    client: openai.OpenAI, lasting: Champions, stream: bool
) -> None:
    tokenizer = tokenizer_of(lasting)
    asked: dict[str, Any] = {"model": "lathe", "messages": ASK, "max_tokens": 8, "logprobs": True, "top_logprobs": 3}
    asked |= {"temperature": 1.5, "seed": 5}  # they are the model's own, whatever is drawn
    if stream:
        choices = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True)]
        text = "".join(one.delta.content or "" for one in choices)
        content = [score for one in choices if one.logprobs for score in one.logprobs.content or []]
    else:
        (choice,) = client.chat.completions.create(**asked).choices
        text, content = choice.message.content, choice.logprobs.content
    spelt = bytes(byte for score in content for byte in score.bytes or [])
    assert spelt.decode(errors="replace").startswith(text.rstrip("\ufffd")) and len(content) >= 7
    prompt = chat.encode_prompt(tokenizer, [message("user", ASK[0]["content"])])
    ids = {tuple(piece): token for token, piece in enumerate(_spellings(lasting))}
    tokens = [ids[tuple(score.bytes or [])] for score in content]
    whole = known(lasting, [*prompt, *tokens])[len(prompt) - 1 :]
    assert [score.logprob for score in content] == pytest.approx(
        [float(whole[at, token]) for at, token in enumerate(tokens)], abs=1e-4
    )
    for at, score in enumerate(content):
        best = whole[at].topk(3).values.tolist()
        assert [one.logprob for one in score.top_logprobs] == pytest.approx(best, abs=1e-4)


def _spellings(champions: Champions) -> list[bytes]:
    engine = champions.current.engine
    return [engine.grammars.tokens.decode_bytes([token]) for token in range(len(engine.tokenizer))]  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", [5, 0, 1, 2])
def test_behind_a_stop_string_nothing_is_scored(client: openai.OpenAI, seed: int) -> None:
    """Some of these answers hold a special token, which is scored and is no text."""
    given: dict[str, Any] = {"model": "lathe", "prompt": TEXT, "max_tokens": 24, "logprobs": 0}
    given |= {"temperature": 1.2, "seed": seed}
    whole = client.completions.create(**given).choices[0]
    stop = whole.text[6:8]
    cut = client.completions.create(**given, stop=[stop]).choices[0]
    assert cut.finish_reason == "stop" and cut.text == whole.text[: whole.text.index(stop)]
    assert cut.logprobs and whole.logprobs and cut.logprobs.tokens and whole.logprobs.tokens
    assert cut.logprobs.tokens == whole.logprobs.tokens[: len(cut.logprobs.tokens)]
    assert len(cut.logprobs.tokens) < len(whole.logprobs.tokens) and cut.logprobs.text_offset
    assert cut.logprobs.text_offset[-1] < len(cut.text)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"prompt": "word " * 5_000}, "prompt", "context_length_exceeded"),
        ({"prompt": [0, 10**6]}, "prompt", "invalid_value"),
        ({"prompt": [[True]]}, "prompt", "invalid_value"),
        ({"prompt": {"a": 1}}, "prompt", "invalid_value"),
        ({"prompt": ["a"] * 33}, "prompt", "invalid_value"),
        ({"prompt": "a", "best_of": 3}, "best_of", "unsupported_value"),
        ({"prompt": "a", "logprobs": 99}, "logprobs", "invalid_value"),
        ({"prompt": "a", "messages": []}, "messages", "unknown_parameter"),
    ],
    ids=lambda given: str(given)[:30],
)
def test_what_cannot_be_completed_is_refused_by_name(url: str, body: dict[str, Any], param: str, code: str) -> None:
    reply = httpx.post(f"{url}/v1/completions", content=json.dumps(body))
    assert reply.status_code == 400
    assert (reply.json()["error"]["param"], reply.json()["error"]["code"]) == (param, code)
