"""The chat page over real HTTP: it streams, decodes in every way, stops when the reader goes, and
keeps likes.
"""

import asyncio
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from stages.common.core.records import Record, message
from stages.common.runtime.errors import DataError
from stages.common.serving.api.metrics import Observer
from stages.common.serving.engine.champions import Champions
from stages.common.serving.pages import conversation, inputs
from stages.common.serving.pages.answered import Answered
from stages.common.serving.pages.inputs import LIBRARY, Page

DEFAULTS: dict[str, Any] = {
    "system": "",
    "decoding": "greedy",
    "temperature": 1.0,
    "top_p": 1.0,
    "beams": 2,
    "penalty": 1.0,
    "longest": 16,
    "tools": [],
}


def settings(**changes: Any) -> list[Any]:
    return list((DEFAULTS | changes).values())


def turn(role: str, text: str) -> Record:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def asks(text: str, **changes: Any) -> list[Any]:
    return [[turn("user", text)], *settings(**changes)]


def said(turns: list[Record]) -> str:
    return inputs.last(turns)


def ask(url: str, text: str, **changes: Any) -> tuple[str, str]:
    from gradio_client import Client  # type: ignore[import-untyped]  # ships no annotations

    turns, counts, _ = Client(url, verbose=False).predict(*asks(text, **changes), api_name="/chat")
    return said(turns), counts


def test_the_answer_streams_and_its_tokens_are_counted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradio_client import Client

    monkeypatch.setattr("stages.common.serving.engine.requests.APART", 0.0)
    job = Client(url, verbose=False).submit(*asks("Where?"), api_name="/chat")
    turns, counts, version = job.result(timeout=30)
    assert version.startswith("Version 1 of lathe, weights ")
    assert re.fullmatch(r"[1-9]\d* tokens read, [1-9]\d* written, version 1", counts)
    shown = [said(one) for one, *_ in job.outputs()]
    assert len(shown) > 3 and shown[-1] == said(turns)
    assert all(later.startswith(earlier) for earlier, later in pairwise(shown))


def test_every_way_to_decode_and_the_system_prompt_change_the_answer(url: str) -> None:
    greedy, _ = ask(url, "Where?")
    assert ask(url, "Where?")[0] == greedy
    assert ask(url, "Where?", decoding="beam search", beams=4, penalty=1.5)[0] != greedy
    assert len({ask(url, "Where?", decoding="sampling", temperature=2.0)[0] for _ in range(3)}) > 1
    assert ask(url, "Where?", penalty=2.0)[0] != greedy
    assert int(ask(url, "Where?", system="Be kind.")[1].split()[0]) > int(ask(url, "Where?")[1].split()[0])


def test_what_no_longer_fits_is_said(lasting: Champions) -> None:
    from stages.common.serving.engine.requests import pieces

    history: list[Record] = [
        turn for n in range(20) for turn in (message("user", f"question {n}"), message("assistant", "answer"))
    ]
    page = Page("", 0.0, 64, (), Path("unused"))
    asked, found = pieces(lasting.ask, inputs.question(page, "last", history, *settings()))
    list(found)
    assert f"the oldest {asked.dropped} messages no longer fit and were not read" in conversation._counts(asked, 3)
    assert asked.dropped > 0


def test_no_setting_goes_beyond_its_slider() -> None:
    page = Page("", 0.0, 64, (), Path("unused"))
    wild = settings(decoding="sampling", temperature=1e9, top_p=-1, penalty=1e9, longest=1e9)
    question = inputs.question(page, "a", [], *wild)
    assert (question.sampling.temperature, question.sampling.top_p) == (2.0, 0.05)
    assert (question.sampling.repetition_penalty, question.max_new_tokens, question.beams) == (2.0, 64, 1)
    assert inputs.question(page, "a", [], *settings(decoding="beam search", beams=1e9)).beams == 8


def test_an_error_is_text_of_the_conversation_that_says_what_to_do(url: str) -> None:
    from gradio_client import Client

    history, *others = asks("long " * 1000)
    turns, *_ = Client(url, verbose=False).predict(history, *others, api_name="/chat")
    assert len(turns) == 2 and inputs.is_problem(turns[1])
    assert "there is room for 240; shorten it" in said(turns)
    page = Page("", 0.0, 64, (), Path("unused"))
    read = inputs.question(page, "And then?", turns, *settings()).messages
    assert [one["role"] for one in read] == ["user", "user"], "what the page said of it is nothing to answer"


def test_without_a_question_nothing_is_asked(lasting: Champions) -> None:
    page = Page("", 0.0, 64, (), Path("unused"))
    respond = conversation.responder(Observer(lasting), page, Answered(), lambda: "Version 1")

    async def found(turns: list[Record]) -> list[Any]:
        return [one async for one in respond(turns, *settings())]

    for turns in ([], [turn("user", "a"), turn("assistant", "b")]):
        assert asyncio.run(found(turns)) == [(turns, "", "Version 1")]


def test_generation_stops_when_the_reader_goes(url: str, lasting: Champions) -> None:
    engine = lasting.current.engine
    hook = engine.model.register_forward_hook(lambda *_: time.sleep(0.1))
    try:
        with httpx.Client(base_url=url, timeout=30) as client:
            data = asks("Where?", decoding="sampling", temperature=2.0, longest=64)
            event = client.post("/gradio_api/call/chat", json={"data": data}).json()["event_id"]
            with client.stream("GET", f"/gradio_api/call/chat/{event}") as stream:
                next(line for line in stream.iter_lines() if line.startswith("event: generating"))
        end = time.monotonic() + 4
        while engine.load() != (0, 0):
            assert time.monotonic() < end, "the model still answers a reader who is gone"
            time.sleep(0.02)
    finally:
        hook.remove()


def test_the_page_loads_and_fetches_nothing_from_elsewhere(url: str) -> None:
    page = httpx.get(url)
    assert page.status_code == 200
    assert "fonts.googleapis.com" not in page.text
    config = httpx.get(f"{url}/config").json()
    assert config["analytics_enabled"] is False
    assert "//fonts" not in httpx.get(f"{url}/theme.css").text


def test_a_page_nobody_uses_leaves_the_processor_to_the_model(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    naps, sleep = list[float](), asyncio.sleep

    async def counted(seconds: float, *rest: Any) -> Any:
        naps.append(seconds)
        return await sleep(seconds, *rest)

    monkeypatch.setattr(asyncio, "sleep", counted)
    time.sleep(1)
    assert 0 < len(naps) < 150


def test_the_page_s_history_becomes_messages() -> None:
    history: list[Record] = [
        {"role": "user", "content": [{"type": "text", "text": "hello"}], "metadata": None},
        {"role": "assistant", "content": "hi"},
    ]
    assert inputs.conversation("bye", history, "  ") == [
        message("user", "hello"),
        message("assistant", "hi"),
        message("user", "bye"),
    ]
    assert inputs.conversation("bye", [], "Be kind.")[0] == message("system", "Be kind.")


def test_more_answers_are_to_the_last_message_and_by_chance() -> None:
    page = Page("", 0.0, 64, (), Path("unused"))
    history: list[Record] = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "answer"},
        {"role": "user", "content": [{"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "another"},
    ]
    given = settings(system="Be kind.", decoding="greedy", temperature=0.5, longest=9)
    asked = inputs.of_last_message(page, history, given, 1.3)
    assert [turn["content"] for turn in asked.messages] == ["Be kind.", "one", "answer", "two"]
    assert (asked.sampling.temperature, asked.beams, asked.max_new_tokens) == (1.3, 1, 9), "a temperature of its own"
    with pytest.raises(DataError, match="there is no message yet"):
        inputs.of_last_message(page, [], given, 1.3)


def test_the_library_has_what_people_ask_for() -> None:
    assert {one.name for one in LIBRARY} >= {
        "SQL from a schema",
        "Commit message from a diff",
        "Role play",
        "Translation",
    }
