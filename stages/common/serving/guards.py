"""Who may ask, how often and how much: checks in front of page and API, for every request and
websocket.

Gradio checks neither Host nor Origin, so a page elsewhere could talk to a chat on loopback: both
are checked here.
"""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from stages.common.serving import origins

BODY_BYTES = 262_144
BODY_SECONDS = 20.0
CLIENTS_REMEMBERED = 10_000
OPEN_PATHS = ("/healthz", "/readyz")
FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")
"""Headers of a proxy, behind which all clients have its address."""
# What Gradio offers and this page does not use: files in and out, other servers, remote calls.
CLOSED = re.compile(
    r"/+(gradio_api/+)?(upload|file|proxy|stream|component_server|deep_link|monitoring|login|logout|vibe|reload|mcp|docs"
    r"|redoc|openapi|process_recording|custom_component)",
    re.IGNORECASE,
)
HEADERS = {
    # An answer may hold Markdown: no picture, frame or script of it may come from or tell another
    # place.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self'"
    " 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none';"
    " frame-src 'none'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


class Limiter:
    """A bucket of `per_minute` requests for each client, refilled evenly."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str, now: float | None = None) -> float:
        """Take one request; return 0, or the seconds until there is one again."""
        now = time.monotonic() if now is None else now
        left, then = self._buckets.pop(client, (float(self._per_minute), now))
        left = min(self._per_minute, left + (now - then) * self._per_minute / 60)
        self._buckets[client] = (left - 1 if left >= 1 else left, now)
        while len(self._buckets) > CLIENTS_REMEMBERED:
            self._buckets.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) * 60 / self._per_minute


class Guard:
    """Middleware that refuses what other sites ask but those `let_in`, who has no token, who
    asks too often, and what is too large.
    """

    def __init__(self, app: Any, token: str, per_minute: int, let_in: Sequence[str] = ()) -> None:
        self._app, self._token, self._origins = app, token, frozenset(let_in)
        self._limiter = Limiter(per_minute)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Refuse the request, or pass it on within its bounds."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        method = scope.get("method", "GET")
        origin = origins.let_in(scope, self._origins)
        if origin:
            send = _with_headers(send, origins.SHARED | {"Access-Control-Allow-Origin": origin})
            if method == "OPTIONS":
                await origins.preflight(scope, receive, send)
                return
        refusal = self._refusal(scope, scope["headers"], method, origin)
        if refusal:
            await _refuse(scope, receive, send, *refusal)
            return
        body = Body(receive, scope)
        if body.too_large():
            await _refuse(scope, receive, send, 413, f"a request may have {BODY_BYTES} bytes", {"Connection": "close"})
            return
        await self._app(scope, body.receive if scope["type"] == "http" else receive, _with_headers(send, HEADERS))

    def _refusal(
        self, scope: Any, headers: list[tuple[bytes, bytes]], method: str, origin: str
    ) -> tuple[int, str, dict[str, str]] | None:
        if not origin and origins.asked_elsewhere(scope):
            return 403, f"requests from other sites are refused{origins.remedy(scope)}", {}
        if CLOSED.match(scope["path"]):
            return 404, "there is no such page", {}
        knows = not self._token or scope["path"] in OPEN_PATHS or knows_token(headers, self._token)
        if knows and method in ("GET", "HEAD", "OPTIONS"):
            return None
        if not self._token and is_here(scope):
            return None  # the queue bounds what the people of this machine ask
        seconds = self._limiter.wait(client(scope))  # a wrong token counts too: nobody can try many
        if seconds:
            return 429, "too many requests", {"Retry-After": str(int(seconds) + 1)}
        if not knows:
            return 401, "a token is needed", {"WWW-Authenticate": 'Basic realm="lathe", Bearer'}
        return None


class Body:
    """A request's body, cut off when it is too large or comes too slowly."""

    def __init__(self, receive: Any, scope: Any) -> None:
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        self._said = int(lengths[0]) if lengths and lengths[0].isdigit() else 0
        self._receive, self._read, self._whole = receive, 0, False
        self._until = time.monotonic() + BODY_SECONDS

    def too_large(self) -> bool:
        """Whether the request says so itself."""
        return self._said > BODY_BYTES

    async def receive(self) -> Any:
        """Return the next part; to the app a client that breaks a bound has hung up."""
        if self._whole:
            return await self._receive()
        try:
            part = await asyncio.wait_for(self._receive(), max(0.0, self._until - time.monotonic()))
        except TimeoutError:
            return {"type": "http.disconnect"}
        self._read += len(part.get("body", b""))
        self._whole = not part.get("more_body", False)
        return part if self._read <= BODY_BYTES else {"type": "http.disconnect"}


def client(scope: Any) -> str:
    """Return the address a request comes from, of IPv6 its network; no header is believed."""
    host = (scope.get("client") or ("unknown", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return str(host)
    return str(ipaddress.ip_network(f"{host}/64", strict=False)) if address.version == 6 else host


def is_here(scope: Any) -> bool:
    """Whether a request comes from this machine, and not through a proxy of it."""
    try:
        address = ipaddress.ip_address((scope.get("client") or ("", 0))[0])
    except ValueError:
        return False
    return address.is_loopback and not any(name in FORWARDED for name, _ in scope["headers"])


def knows_token(headers: list[tuple[bytes, bytes]], token: str) -> bool:
    """Whether the one Authorization header is `Bearer <token>`, or `Basic` with the token as
    password, as browsers do.

    Compared in constant time.
    """
    given = [value for name, value in headers if name == b"authorization"]
    if len(given) != 1:
        return False
    scheme, _, value = given[0].partition(b" ")
    if scheme.lower() == b"basic":
        try:
            value = base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return False
    elif scheme.lower() != b"bearer":
        return False
    return hmac.compare_digest(value.strip(), token.encode())


def _with_headers(send: Any, headers: dict[str, str]) -> Any:
    async def sending(part: Any) -> None:
        if part["type"] == "http.response.start":
            own = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
            part = part | {"headers": [*part.get("headers", []), *own]}
        await send(part)

    return sending


async def _refuse(scope: Any, receive: Any, send: Any, status: int, what: str, headers: dict[str, str]) -> None:
    from starlette.responses import JSONResponse

    known = {401: ("authentication_error", "invalid_api_key"), 429: ("rate_limit_error", "rate_limit_exceeded")}
    kind, code = known.get(status, ("invalid_request_error", None))
    body = {"error": {"message": what, "type": kind, "param": None, "code": code}}
    await JSONResponse(body, status, headers)(scope, receive, send)
