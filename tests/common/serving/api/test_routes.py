"""The API as OpenAI's own client and plain HTTP use it."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from stages.common.core import chat
from stages.common.core.records import message
from stages.common.generation import generator
from stages.common.generation.llama_forward import Forward
from stages.common.serving.engine.champions import Champions
from tests.common.serving.conftest import served

ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of land 3?"}]
QUESTION = [message("user", "What is the capital of land 3?")]


@pytest.fixture
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def greedy(champions: Champions, tokens: int) -> tuple[str, int, int]:
    """Return the decoder's own answer, its tokens and the prompt's."""
    engine = champions.current.engine
    prompt = chat.encode_prompt(engine.tokenizer, QUESTION)
    ((found,),) = generator.decode(
        engine.model, [prompt], max_new_tokens=tokens, stop=chat.stops(engine.tokenizer), batch_size=1
    )
    text = str(engine.tokenizer.decode(found.tokens, skip_special_tokens=True))
    return text, len(found.tokens) + (found.stop is not None), len(prompt)


def test_a_whole_answer_has_text_usage_and_reason(client: openai.OpenAI, lasting: Champions) -> None:
    text, tokens, prompt = greedy(lasting, 24)
    answer = client.chat.completions.create(model="lathe", messages=ASK, temperature=0, max_tokens=24)
    assert answer.choices[0].message.content == text
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (prompt, tokens)
    assert answer.usage.total_tokens == prompt + tokens
    assert answer.model == "lathe"
    assert answer.system_fingerprint and answer.system_fingerprint.startswith("version-1-")


def test_a_stream_is_the_same_answer_in_pieces(
    client: openai.OpenAI, lasting: Champions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.common.serving.engine.requests.APART", 0.0)
    text, tokens, _ = greedy(lasting, 24)
    chunks = list(
        client.chat.completions.create(
            model="lathe",
            messages=ASK,
            temperature=0,
            max_tokens=24,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == text
    assert len([piece for piece in pieces if piece]) > 3
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in ("stop", "length")
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_events_are_as_openai_sends_them(url: str) -> None:
    with httpx.stream(
        "POST", f"{url}/v1/chat/completions", json={"messages": ASK, "stream": True, "max_tokens": 4}
    ) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in reply.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    first = json.loads(lines[0][6:])
    assert first["object"] == "chat.completion.chunk" and first["choices"][0]["delta"]["role"] == "assistant"


def test_a_seed_gives_the_same_answer_again_whatever_else_is_asked(client: openai.OpenAI) -> None:
    def ask(seed: int) -> str:
        answer = client.chat.completions.create(
            model="lathe", messages=ASK, temperature=1.2, top_p=0.95, seed=seed, max_tokens=24
        )
        return answer.choices[0].message.content or ""

    alone = [ask(seed) for seed in range(6)]
    found: dict[int, str] = {}
    threads = [threading.Thread(target=lambda seed=seed: found.update({seed: ask(seed)})) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in range(6)] == alone
    assert len(set(alone)) > 3


def test_stop_strings_beams_and_penalty(client: openai.OpenAI, lasting: Champions) -> None:
    text, _, _ = greedy(lasting, 24)
    stop = text[4:7]
    answer = client.chat.completions.create(model="lathe", messages=ASK, temperature=0, max_tokens=24, stop=[stop])
    assert answer.choices[0].message.content == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    beams = client.chat.completions.create(
        model="lathe",
        messages=ASK,
        temperature=0,
        max_tokens=8,
        extra_body={"beams": 3, "repetition_penalty": 1.3},
    )
    engine = lasting.current.engine
    prompt = chat.encode_prompt(engine.tokenizer, QUESTION)
    stops = chat.stops(engine.tokenizer)
    (tokens,) = generator.beam(
        engine.model, [prompt], beams=3, max_new_tokens=8, stop=sorted(stops), repetition_penalty=1.3
    )
    assert beams.choices[0].message.content == engine.tokenizer.decode(tokens, skip_special_tokens=True)


def test_a_long_conversation_says_what_it_left_out(client: openai.OpenAI) -> None:
    turns: list[ChatCompletionMessageParam] = [{"role": "system", "content": "Be brief."}]
    for number in range(20):
        turns += [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": "answer"}]
    answer = client.chat.completions.create(model="lathe", messages=[*turns, *ASK], max_tokens=8)
    assert answer.model_extra and answer.model_extra["dropped_messages"] > 0
    assert answer.usage and answer.usage.total_tokens <= 256
    with pytest.raises(openai.BadRequestError, match="there is room for"):
        client.chat.completions.create(
            model="lathe", messages=[{"role": "user", "content": "long " * 1000}], max_tokens=8
        )


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["lathe"]
    assert client.models.retrieve("lathe").id == "lathe"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt")
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt', only 'lathe'"):
        client.chat.completions.create(model="gpt", messages=ASK)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "messages[0].content"),
        ({"messages": ASK, "temperature": 3}, "temperature"),
        ({"messages": ASK, "top_p": -1}, "top_p"),
        ({"messages": ASK, "max_tokens": 0}, "max_tokens"),
        ({"messages": ASK, "n": 2}, "n"),
        ({"messages": ASK, "top_logprobs": 2}, "top_logprobs"),
        ({"messages": ASK, "logit_bias": {"5": -100}}, "logit_bias"),
        ({"messages": ASK, "presence_penalty": 0.5}, "presence_penalty"),
        ({"messages": ASK, "beams": 1000}, "beams"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(url: str, body: dict[str, Any], param: str) -> None:
    reply = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error" and error["message"]
    assert error["param"].startswith(param)


def test_an_unknown_address_and_a_failing_model_answer_in_openai_s_form(
    url: str, lasting: Champions, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert httpx.post(f"{url}/v1/embeddings", json={}).json()["error"]["code"] == "unknown_url"

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret path /srv/models")

    with monkeypatch.context() as patch:
        patch.setattr(Forward, "read", fail)
        reply = httpx.post(f"{url}/v1/chat/completions", json={"messages": ASK})
    assert reply.status_code == 500
    assert reply.json()["error"]["type"] == "server_error" and "secret" not in reply.text
    assert httpx.post(f"{url}/v1/chat/completions", json={"messages": ASK}).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_whose_reader_hangs_up_ends(url: str, lasting: Champions, stream: bool) -> None:
    engine = lasting.current.engine
    hook = engine.model.register_forward_hook(lambda *_: time.sleep(0.05))
    try:
        body = {"messages": ASK, "temperature": 1.5, "stream": stream, "seed": 5}
        with pytest.raises(httpx.TimeoutException), httpx.Client(timeout=0.4) as short:
            if stream:
                with short.stream("POST", f"{url}/v1/chat/completions", json=body) as reply:
                    next(reply.iter_lines())
                    raise httpx.ReadTimeout("enough")
            short.post(f"{url}/v1/chat/completions", json=body)
        end = time.monotonic() + 1.5
        while engine.load() != (0, 0):
            assert time.monotonic() < end, "it goes on for nobody"
            time.sleep(0.02)
    finally:
        hook.remove()


def test_metrics_count_what_was_asked(lasting: Champions, tmp_path: Path) -> None:
    with served(lasting, tmp_path / "page.jsonl") as url:
        assert httpx.post(f"{url}/v1/chat/completions", json={"messages": ASK, "max_tokens": 5}).status_code == 200
        too_long = [{"role": "user", "content": "long " * 1000}]
        assert httpx.post(f"{url}/v1/chat/completions", json={"messages": too_long}).status_code == 400
        found = httpx.get(f"{url}/metrics").text
    values = dict(line.rsplit(" ", 1) for line in found.splitlines() if not line.startswith("#"))
    assert float(values['lathe_tokens_total{kind="prompt"}']) > 10
    assert 1 <= float(values['lathe_tokens_total{kind="completion"}']) <= 5
    assert values['lathe_requests_total{outcome="refused",via="api"}'] == "1.0"
    assert values["lathe_first_token_seconds_count"] == values["lathe_answer_seconds_count"] == "1.0"
    assert (values["lathe_waiting"], values["lathe_answering"]) == ("0.0", "0.0")
    assert values['lathe_champion{model="lathe",version="1"}'] == "1.0"


def test_a_full_queue_says_when_to_come_back(lasting: Champions, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting.current.engine, "waiting_at_most", 0)
    reply = httpx.post(f"{url}/v1/chat/completions", json={"messages": ASK})
    assert reply.status_code == 429
    assert reply.json()["error"]["type"] == "rate_limit_error" and int(reply.headers["retry-after"]) > 0
