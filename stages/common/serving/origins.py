"""Pages of other sites: which requests are theirs, which of them may use the API (CORS), and what
browsers are told of that.
"""

import re
from collections.abc import Set as AbstractSet
from typing import Any
from urllib.parse import urlsplit

API = re.compile(r"/v1/.*|/healthz|/readyz|/metrics", re.DOTALL)
"""What pages of the origins that are let in may ask for; not the chat page."""
PREFLIGHT_SECONDS = "600"
SHARED = {"Vary": "Origin", "Access-Control-Expose-Headers": "Retry-After"}
ORIGIN = re.compile(r"https?://(\[[0-9a-f:]+\]|[\w.-]+)(:\d{1,5})?", re.IGNORECASE)


def let_in(scope: Any, known: AbstractSet[str]) -> str:
    """Return the origin of the page that asks, where it is one of those `known`, which may use the
    API; else "".
    """
    named = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
    is_known = scope["type"] == "http" and API.fullmatch(scope["path"]) and set(named) <= known
    return named[0] if named and is_known else ""


def asked_elsewhere(scope: Any) -> bool:
    """Whether a page of another site asks: `is_foreign` for a request or websocket, with each
    Origin that it names.
    """
    return any(is_foreign(one, scope.get("method", "GET")) for one in _readings(scope["headers"]))


def _readings(headers: list[tuple[bytes, bytes]]) -> list[dict[str, str]]:
    """Return the headers as they read with each Origin: a second one hides nothing."""
    one = {key.decode("latin-1"): value.decode("latin-1") for key, value in headers}
    return [one | {"origin": value.decode("latin-1")} for key, value in headers if key == b"origin"] or [one]


def is_foreign(headers: dict[str, str], method: str) -> bool:
    """Whether a browser says that the request comes from another site; following a link here is not
    foreign.
    """
    if "origin" in headers:
        try:
            return urlsplit(headers["origin"]).netloc != headers.get("host")
        except ValueError:  # not a URL
            return True
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return False
    return method != "GET" or headers.get("sec-fetch-mode") != "navigate"


def remedy(scope: Any) -> str:
    """Return how to let the page in that asks, where it may be."""
    named = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
    if not (len(named) == 1 and ORIGIN.fullmatch(named[0]) and API.fullmatch(scope["path"])):
        return ""
    return f"; to let pages of {named[0]} in: serve --allow-origin {named[0]}"


async def preflight(scope: Any, receive: Any, send: Any) -> None:
    """Tell a browser what pages of an origin that is let in may send."""
    from starlette.responses import Response

    asked = {name: value.decode("latin-1") for name, value in scope["headers"]}
    allowed = {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
        "Access-Control-Allow-Headers": asked.get(b"access-control-request-headers", "authorization, content-type"),
        "Access-Control-Max-Age": PREFLIGHT_SECONDS,
    }
    if b"access-control-request-private-network" in asked:  # from a page of the internet to this machine
        allowed["Access-Control-Allow-Private-Network"] = "true"
    await Response(status_code=204, headers=allowed)(scope, receive, send)
