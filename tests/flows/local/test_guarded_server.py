"""The door before Prefect's server, without the server."""

import asyncio
from typing import Any

import pytest

from flows.local import guarded_server

SCOPE = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"127.0.0.1:4200")]}


def through(inner: Any, *parts: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()) -> tuple[int, bytes]:
    """Send the parts of a body through the door; after them the client is silent. Return status and
    text.
    """
    waiting = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    sent: list[Any] = []

    async def receive() -> Any:
        if waiting:
            return waiting.pop(0)
        await asyncio.sleep(60)

    async def send(part: Any) -> None:
        sent.append(part)

    scope = SCOPE | {"headers": [*SCOPE["headers"], *headers]}
    asyncio.run(guarded_server.door(inner)(scope, receive, send))
    return sent[0]["status"], b"".join(part.get("body", b"") for part in sent)


async def unreached(*_: Any) -> None:
    raise AssertionError("the app was reached")


def test_a_body_comes_through_whole() -> None:
    async def read(scope: Any, receive: Any, send: Any) -> None:
        body = [await receive() for _ in range(2)]
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"".join(part["body"] for part in body)})

    parts = [{"type": "http.request", "body": text, "more_body": text == b"a"} for text in (b"a", b"b")]
    sent: list[Any] = []

    async def receive() -> Any:
        return parts.pop(0)

    async def send(part: Any) -> None:
        sent.append(part)

    asyncio.run(guarded_server.door(read)(SCOPE, receive, send))
    assert sent[1]["body"] == b"ab"


def test_a_body_that_never_ends_is_never_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded_server, "BODY_SECONDS", 0.1)
    assert through(unreached, b"a")[0] == 413


def test_a_body_that_is_too_large_is_never_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded_server, "BODY_BYTES", 10)
    assert through(unreached, b"a" * 6, b"a" * 6)[0] == 413


def test_a_foreign_page_is_refused() -> None:
    assert through(unreached, b"a", headers=((b"origin", b"http://evil.example"),))[0] == 403


def test_a_request_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded_server, "REQUEST_SECONDS", 0.1)
    ended: list[bool] = []

    async def endless(*_: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(part: Any) -> None:
        raise AssertionError(part)

    with pytest.raises(TimeoutError):
        asyncio.run(guarded_server.door(endless)(SCOPE, receive, send))
    assert ended == [True]
