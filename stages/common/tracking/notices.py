"""Notices to people: a version waits for a review, a champion was rolled back. That a flow run
failed the Prefect server says itself, through the same address (`python -m
flows.local.deployments`).

The environment's LATHE_NOTIFY is the address: `https://hooks.slack.com/services/…`, `mailto://…`
and whatever else Apprise knows, or any other http(s) address, which gets JSON of `event`, `title`
and `text`. Whether it works: python -m stages.common.tracking.notices
"""

import json
import logging
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stages.common.runtime import environment, locks
from stages.common.runtime.errors import ParamsError, StageError, TryAgainError
from stages.common.runtime.logs import log

KEY = "LATHE_NOTIFY"
SENT = Path(".lathe/notices.jsonl")
"""One line a notice that went out, so that none goes out twice."""
SECONDS = 10.0


def address() -> str | None:
    """Return where notices go, or None where nobody asked for any. Raises ParamsError for an
    address that nothing understands; the address itself, which is a secret, is not in it.
    """
    url = os.environ.get(KEY, "").strip()
    if not url:
        return None
    if not is_webhook(url) and _apprise(url) is None:
        remedy = "https://hooks.slack.com/services/…, mailto://user:password@host?to=you@host, or https://…"
        raise ParamsError(f"nothing sends to an address that begins with '{_scheme(url)}'", where=KEY, remedy=remedy)
    return url


def is_webhook(url: str) -> bool:
    """Whether the address is one of the web that Apprise has no sender of its own for."""
    return _scheme(url) in ("http", "https") and bool(urlsplit(url).hostname) and _apprise(url) is None


def waits(name: str, number: str, weights_sha256: str, reason: str) -> None:
    """Say that a version waits for a person; said once, and never a reason to fail."""
    text = f"{reason}\nAnswer: make review, make approve VERSION={number}, make reject VERSION={number}"
    event = f"version {number} of {name} ({weights_sha256[:12]}) waits"
    send(event, f"version {number} of {name} waits for a review", text)


def send(event: str, title: str, text: str) -> bool:
    """Send a notice unless that event's has gone out from this checkout; return whether it did. One
    that cannot go out is a warning, and goes out when the same event comes again.
    """
    try:
        url = address()
        if url is None:
            return False
        SENT.parent.mkdir(parents=True, exist_ok=True)
        with SENT.open("a+", encoding="utf-8") as handle, locks.writing(handle.fileno()):
            handle.seek(0)
            if any(_event(line) == event for line in handle):
                return False
            deliver(url, event, title, text)
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            handle.write(json.dumps({"time": now, "event": event}, ensure_ascii=False) + "\n")
            handle.flush()
    except (StageError, OSError, ValueError) as error:
        log.warning("no notice that %s: %s", event, error)
        return False
    return True


def deliver(url: str, event: str, title: str, text: str) -> None:
    """Send a notice to an address. Raises TryAgainError when it is not taken."""
    text = f"{text}\n{socket.gethostname()}: {Path.cwd()}"
    if is_webhook(url):
        _post(url, {"event": event, "title": title, "text": f"{title}\n{text}"})
        return
    if not _apprise(url).notify(body=text, title=title):
        raise TryAgainError(f"the address of {KEY} ({_scheme(url)}://…) did not take it")


def _post(url: str, body: dict[str, str]) -> None:
    import httpx

    logging.getLogger("httpx").setLevel(logging.WARNING)  # its lines of each request hold the address
    try:
        answer = httpx.post(url, json=body, timeout=SECONDS, headers={"User-Agent": "lathe"})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        what = f"the address of {KEY} ({_scheme(url)}://…) does not answer: {type(error).__name__}"
        raise TryAgainError(what) from None  # its text may hold the address
    if not answer.is_success:
        raise TryAgainError(f"the address of {KEY} ({_scheme(url)}://…) answers {answer.status_code}")


def _apprise(url: str) -> Any:
    """Return Apprise's sender for the address, or None when it has none."""
    from apprise import Apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # its lines may hold the address
    return Apprise.instantiate(url, suppress_exceptions=True)


def _scheme(url: str) -> str:
    return urlsplit(url).scheme if "://" in url else "…"


def _event(line: str) -> str:
    """Return the event of a line; of one torn by a crash nothing."""
    try:
        return str(json.loads(line)["event"])
    except (ValueError, KeyError, TypeError):
        return ""


def main() -> None:
    """Send a notice to see whether it comes."""
    environment.complete()
    try:
        url = address()
        if url is None:
            raise ParamsError("it is not set, so nobody is told anything", where=KEY)
        deliver(url, "trial", "Lathe's notices come here", "sent by hand to see whether they do")
        print("lathe: sent")
    except StageError as error:
        print(f"lathe: notices failed ({error.code}): {error}", file=sys.stderr)
        raise SystemExit(error.code) from error


if __name__ == "__main__":
    main()
