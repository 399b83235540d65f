"""A chat model behind any OpenAI-compatible endpoint: asks, tries again, keeps replies, counts.

Replies are kept on disk, so nothing is asked, or paid, twice and a stopped stage goes on where it
was.
"""

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from stages.common.core.params import PARAMS_FILE, StageParams
from stages.common.runtime.errors import ParamsError, TryAgainError

AGAIN = frozenset({408, 409, 429})
"""With everything from 500 on, what the client tries again."""
STOP_SECONDS = 10.0
T = TypeVar("T")


class EndpointParams(StageParams):
    """The endpoint and what it costs."""

    url: str = "http://127.0.0.1:8000/v1"
    """Base URL of an OpenAI-compatible API."""
    model: str = ""
    """The model's name there."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the key; without one no key is sent."""
    workers: PositiveInt = 8
    """Requests at a time."""
    attempts: PositiveInt = 12
    """Tries a request, half a second to eight apart; a `Retry-After` of up to two minutes
    is kept.
    """
    timeout_seconds: PositiveFloat = 60.0
    """Longest wait for one reply."""
    max_tokens: PositiveInt = 1024
    """Longest reply; raise it for a model that thinks aloud first."""
    prompt_price: NonNegativeFloat = 0.0
    """Price of a million tokens read."""
    completion_price: NonNegativeFloat = 0.0
    """Price of a million tokens written."""


class Reply(NamedTuple):
    """What came back, and what it cost in tokens."""

    text: str
    prompt_tokens: int
    completion_tokens: int


class Kept:
    """Replies on disk by the digest of what was asked; for several threads."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.store = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self.store.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
        self.lock = threading.Lock()

    @staticmethod
    def key(asked: Any) -> str:
        """Return the digest of what is asked."""
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def get(self, key: str) -> Reply | None:
        """Return the reply that was kept, if one was."""
        with self.lock:
            kept = self.store.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return Reply(*json.loads(kept[0])) if kept else None

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply."""
        with self.lock:
            self.store.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, json.dumps(reply)))

    def close(self) -> None:
        """Close the store."""
        with self.lock:
            self.store.close()


class Endpoint:
    """Asks, retries, keeps replies and counts; a context manager. `key` is where in params.yaml its
    settings are, `role` what it is called in messages.
    """

    def __init__(self, settings: EndpointParams, cache: Path, key: str, role: str) -> None:
        import openai

        if not settings.model:
            raise ParamsError(f"'{key}.model' is missing", where=PARAMS_FILE, remedy=f"name the {role}'s model")
        self.settings, self.key, self.role = settings, key, role
        key = os.environ.get(settings.key_variable, "")
        # the client would send what other variables of OpenAI's hold, and follow a redirect to
        # another host
        self.headers: dict[str, str | openai.Omit] = {
            "Authorization": f"Bearer {key}" if key else openai.omit,
            "OpenAI-Organization": openai.omit,
            "OpenAI-Project": openai.omit,
        }
        self.client = openai.OpenAI(
            api_key=key or "none",
            base_url=settings.url,
            timeout=settings.timeout_seconds,
            max_retries=settings.attempts - 1,
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )
        self.cache = Kept(cache)
        self.lock = threading.Lock()
        self.asked = 0
        self.replies: list[Reply] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and the kept replies."""
        self.client.close()
        self.cache.close()

    def each(self, ask: Callable[..., T], jobs: Sequence[tuple[Any, ...]]) -> list[T]:
        """Return what `ask` makes of every job, in order, some at a time.

        Raises TryAgainError when the endpoint stays away, ParamsError when it refuses the request
        or the key.
        """
        pool = ThreadPoolExecutor(self.settings.workers)
        asking = [pool.submit(ask, *job) for job in jobs]
        try:
            for done in wait(asking, return_when=FIRST_EXCEPTION).done:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            wait([one for one in asking if one.running()], STOP_SECONDS)  # replies on their way are paid for
            raise
        pool.shutdown()
        return [one.result() for one in asking]

    def reply(self, messages: list[dict[str, str]], **more: Any) -> Reply:
        """Return the reply to `messages`, from the cache when it was asked before; `more` are
        further keys of the request.
        """
        body = {
            "model": self.settings.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": self.settings.max_tokens,
        } | more
        key = Kept.key([self.settings.url, body])
        kept = self.cache.get(key)
        reply = kept or self._ask(body)
        if not kept:
            self.cache.put(key, reply)
        with self.lock:
            self.replies.append(reply)
            self.asked += not kept
        return reply

    def summary(self) -> dict[str, float]:
        """Return what all of this takes, cached replies included, so that a report does not
        change.
        """
        read = sum(reply.prompt_tokens for reply in self.replies)
        written = sum(reply.completion_tokens for reply in self.replies)
        cost = (read * self.settings.prompt_price + written * self.settings.completion_price) / 1e6
        return {"requests": len(self.replies), "prompt_tokens": read, "completion_tokens": written, "cost": cost}

    def _ask(self, body: dict[str, Any]) -> Reply:
        import openai

        url = f"{self.settings.url.rstrip('/')}/chat/completions"
        try:
            asked = self.client.chat.completions.with_raw_response.create(**body, extra_headers=self.headers)
            return _parse(asked.text, url, self.key)
        except openai.APIStatusError as error:
            code = error.status_code
            reason = f"HTTP {code}: {error.response.text[:200]}"
            if code < 500 and code not in AGAIN:
                what = f"the {self.role} refuses: {reason}"
                raise ParamsError(what, where=url, remedy=f"see {self.key} in params.yaml") from error
        except openai.APIConnectionError as error:
            reason = f"{type(error.__cause__).__name__}: {error.__cause__}"
        raise TryAgainError(f"the {self.role} does not answer ({reason})", where=url, remedy="replies so far are kept")


def _parse(text: str, url: str, key: str) -> Reply:
    try:
        body = json.loads(text)
        usage = body.get("usage") or {}
        said = body["choices"][0]["message"]["content"] or ""
        return Reply(str(said), int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0)))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        what = f"not an OpenAI-compatible reply: {text[:200]!r}"
        raise ParamsError(what, where=url, remedy=f"see {key}.url in params.yaml") from error
