"""Prefect's server behind a door: itself it checks neither Host nor Origin, and who reaches its API
can run commands.

A page elsewhere reaches a server on loopback by a name of its own that points here (DNS rebinding:
the Host gives it away), or by a websocket, to which browsers let every page connect (the Origin
does). On SQLite it works at 100 requests at once, and one whose body never ends is one of them: so
a body is read before it counts. uvicorn calls `app`.
"""

import asyncio
from typing import Any

from flows.local import server
from stages.common.runtime import environment
from stages.common.serving import origins

BODY_BYTES = 16 * 2**20
"""A batch of logs may have 4 MB, parameters 0.5 MB."""
BODY_SECONDS = 10.0
REQUEST_SECONDS = 60.0
"""Longest time with one request: a reader who does not read leaves then."""


def app() -> Any:
    """Return the app; it answers only to this machine's names and to its own page."""
    from prefect.server.api.server import create_app
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    hosts = [*environment.LOOPBACK, server.address(server.api_url())[0]]
    return TrustedHostMiddleware(door(create_app(final=True)), hosts, www_redirect=False)


def door(inner: Any) -> Any:
    """Return `inner` as its own page and programs may use it: no other site, no endless request."""
    from starlette.responses import PlainTextResponse

    foreign = PlainTextResponse("requests from other sites are refused", 403)
    too_much = PlainTextResponse("the request is too large, or came too slowly", 413, {"Connection": "close"})

    async def checked(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket") and origins.asked_elsewhere(scope):
            await foreign(scope, receive, send)
        elif scope["type"] != "http":
            await inner(scope, receive, send)
        elif (parts := await _body(receive)) is None:
            await too_much(scope, receive, send)
        else:
            async with asyncio.timeout(REQUEST_SECONDS):
                await inner(scope, _replay(parts, receive), send)

    return checked


async def _body(receive: Any) -> list[Any] | None:
    """Return the parts of a request's body; None when it is too large or comes too slowly."""
    parts: list[Any] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while not parts or parts[-1].get("more_body", False):
                parts.append(await receive())
                size += len(parts[-1].get("body", b""))
                if size > BODY_BYTES:
                    return None
    except TimeoutError:
        return None
    return parts


def _replay(parts: list[Any], receive: Any) -> Any:
    async def replayed() -> Any:
        return parts.pop(0) if parts else await receive()

    return replayed
