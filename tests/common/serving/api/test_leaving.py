"""Who leaves before the first token frees what he took; who takes long takes no place of others."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from stages.common.serving.engine.champions import Champions
from stages.common.serving.engine.engine import Engine
from tests.support.answering import slow
from tests.support.attacks import ASK, CHAT, post


@pytest.fixture
def engine(lasting: Champions) -> Iterator[Engine]:
    """The engine behind `url`, slow."""
    found = lasting.current.engine
    assert isinstance(found, Engine)
    hook = slow(found.model, 0.02)
    yield found
    found.cancel_all()
    hook.remove()


def sent(url: str, body: dict[str, Any]) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5)
    connection.sendall(post("", json.dumps(body).encode()))
    return connection


def until(engine: Engine, under_way: int) -> float:
    """Wait until so many are under way or waiting; return the seconds that took."""
    began = time.monotonic()
    while sum(engine.load()) != under_way:
        assert time.monotonic() < began + 20, engine.load()
        time.sleep(0.01)
    return time.monotonic() - began


@pytest.mark.parametrize("stream", [False, True])
def test_searches_nobody_waits_for_end(url: str, engine: Engine, stream: bool) -> None:
    gone = [sent(url, ASK | {"beams": 8, "max_tokens": 64, "stream": stream}) for _ in range(6)]
    until(engine, 6)
    for connection in gone:
        connection.close()
    assert until(engine, 0) < 1.5, "one search alone takes 64 steps of 20 ms"


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_while_all_rows_are_taken_waits_no_more(url: str, engine: Engine, stream: bool) -> None:
    long = ASK | {"max_tokens": 64, "temperature": 1.5}
    others = [sent(url, long | {"seed": seed}) for seed in range(8)]
    until(engine, 8)
    gone = [sent(url, long | {"stream": stream}) for _ in range(4)]
    until(engine, 12)
    for connection in gone:
        connection.close()
    end = time.monotonic() + 1
    while engine.load()[0]:
        assert time.monotonic() < end, "they wait for a row that nobody wants"
        time.sleep(0.01)
    for connection in others:
        connection.close()
    until(engine, 0)


def test_searches_wait_apart_from_the_others(url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "waiting_at_most", 2)
    long = [sent(url, ASK | {"beams": 4, "max_tokens": 64}) for _ in range(2)]
    until(engine, 2)
    assert httpx.post(url + CHAT, json=ASK | {"beams": 4}).status_code == 429
    assert httpx.post(url + CHAT, json=ASK, timeout=30).status_code == 200
    for connection in long:
        connection.close()
    until(engine, 0)
