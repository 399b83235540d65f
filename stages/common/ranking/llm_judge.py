"""A language model behind any OpenAI-compatible endpoint as annotator: every pair of answers is
asked in both orders.

A pair whose two verdicts do not agree is a tie, which takes out the judge's liking for the first
answer (Zheng et al. 2023). Replies are kept on disk, so nothing is asked, or paid, twice and a
stopped stage goes on where it was.
"""

import hashlib
import json
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from itertools import combinations
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from stages.common.core.params import PARAMS_FILE, StageParams
from stages.common.ranking.samples import Sample
from stages.common.runtime.errors import ParamsError, TryAgainError
from stages.common.text.rule_grader import ranks
from stages.common.text.thoughts import without_thoughts

CACHE = Path(".lathe/judge.sqlite")
AGAIN = frozenset({408, 409, 429})
"""With everything from 500 on, what the client tries again."""
STOP_SECONDS = 10.0
INSTRUCTION = """You compare two answers of an assistant to the same conversation. The better one is correct, answers \
in the language of the question, refuses what is harmful and only that, admits what it does not know, is polite, \
complete and no longer than needed. Reply with A, B or TIE and nothing else."""
VERDICT = re.compile(r"\b(A|B|TIE)\b")
T = TypeVar("T")


class JudgeParams(StageParams):
    """The endpoint and what it costs."""

    url: str = "http://127.0.0.1:8000/v1"
    """Base URL of an OpenAI-compatible API."""
    model: str = ""
    """The judge's name there."""
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
    max_tokens: PositiveInt = 8
    """Longest reply; raise it for a judge that thinks aloud first."""
    prompt_price: NonNegativeFloat = 0.0
    """Price of a million tokens read."""
    completion_price: NonNegativeFloat = 0.0
    """Price of a million tokens written."""


class Reply(NamedTuple):
    """What came back, and what it cost in tokens."""

    text: str
    prompt_tokens: int
    completion_tokens: int


class Judge:
    """Asks, retries, keeps replies and counts; a context manager. `key` is where in params.yaml its
    settings are.
    """

    def __init__(self, settings: JudgeParams, cache: Path | None = None, key: str = "rank.judge") -> None:
        import openai

        if not settings.model:
            raise ParamsError(f"'{key}.model' is missing", where=PARAMS_FILE, remedy="name the judge's model")
        self.settings, self.key = settings, key
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
        file = CACHE if cache is None else cache
        file.parent.mkdir(parents=True, exist_ok=True)
        self.cache = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self.cache.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
        self.lock = threading.Lock()
        self.asked = self.unreadable = 0
        self.replies: list[Reply] = []

    def __enter__(self) -> "Judge":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        with self.lock:
            self.cache.close()

    def rank(self, samples: Sequence[Sample]) -> list[list[int]]:
        """Return the ranks of each sample's responses by their number of wins, a tie counting half.

        Raises TryAgainError when the endpoint stays away, ParamsError when it refuses the request
        or the key.
        """
        pairs = [
            (sample, one, other) for sample in samples for one, other in combinations(range(len(sample.responses)), 2)
        ]
        won = self.each(self.compare, pairs)
        wins = {id(sample): [0.0] * len(sample.responses) for sample in samples}
        for (sample, one, other), points in zip(pairs, won, strict=True):
            wins[id(sample)][one] += points
            wins[id(sample)][other] += 1 - points
        return [ranks(wins[id(sample)]) for sample in samples]

    def each(self, ask: Callable[..., T], jobs: Sequence[tuple[Any, ...]]) -> list[T]:
        """Return what `ask` makes of every job, in order, some at a time. Raises as `rank` does."""
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

    def compare(self, sample: Sample, one: int, other: int) -> float:
        """Return 1 when response `one` beats `other` in both orders, 0 when it loses in both, else
        1/2.
        """
        first = self.verdict(sample, one, other)
        second = self.verdict(sample, other, one)
        return {("A", "B"): 1.0, ("B", "A"): 0.0}.get((first, second), 0.5)

    def verdict(self, sample: Sample, shown_first: int, shown_second: int) -> str:
        """Return A, B or TIE: the last of these words in the reply, or TIE (and counted) for a
        reply without one.
        """
        return self.word(VERDICT, question(sample, shown_first, shown_second)) or "TIE"

    def word(self, verdict: re.Pattern[str], messages: list[dict[str, str]]) -> str:
        """Return the last verdict in what the judge says behind its thoughts, or "", counted as
        unreadable.
        """
        words = verdict.findall(without_thoughts(self.reply(messages).text))
        with self.lock:
            self.unreadable += not words
        return str(words[-1]) if words else ""

    def reply(self, messages: list[dict[str, str]]) -> Reply:
        """Return the judge's reply to `messages`, from the cache when it was asked before."""
        body = {
            "model": self.settings.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": self.settings.max_tokens,
        }
        key = hashlib.sha256(json.dumps([self.settings.url, body], sort_keys=True).encode()).hexdigest()
        with self.lock:
            kept = self.cache.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        reply = Reply(*json.loads(kept[0])) if kept else self._ask(body)
        with self.lock:
            self.replies.append(reply)
            if not kept:
                self.asked += 1
                self.cache.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, json.dumps(reply)))
        return reply

    def summary(self) -> dict[str, float]:
        """Return what judging these samples takes, cached replies included, so that a report does
        not change.
        """
        read = sum(reply.prompt_tokens for reply in self.replies)
        written = sum(reply.completion_tokens for reply in self.replies)
        cost = (read * self.settings.prompt_price + written * self.settings.completion_price) / 1e6
        return {
            "requests": len(self.replies),
            "unreadable": self.unreadable,
            "prompt_tokens": read,
            "completion_tokens": written,
            "cost": cost,
        }

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
                what = f"the judge refuses: {reason}"
                raise ParamsError(what, where=url, remedy=f"see {self.key} in params.yaml") from error
        except openai.APIConnectionError as error:
            reason = f"{type(error.__cause__).__name__}: {error.__cause__}"
        raise TryAgainError(f"the judge does not answer ({reason})", where=url, remedy="replies so far are kept")


def question(sample: Sample, shown_first: int, shown_second: int) -> list[dict[str, str]]:
    """Return the messages that ask which of two responses is better, without their thoughts."""
    first, second = (without_thoughts(sample.responses[at]) for at in (shown_first, shown_second))
    talk = "\n".join(f"{turn['role']}: {turn['content']}" for turn in sample.record["messages"])
    parts = [f"Conversation:\n{talk}"]
    if sample.record["reference"]:
        parts.append(f"A correct answer: {sample.record['reference']}")
    parts += [f"Answer A:\n{first}", f"Answer B:\n{second}"]
    return [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": "\n\n".join(parts)}]


def _parse(text: str, url: str, key: str) -> Reply:
    try:
        body = json.loads(text)
        usage = body.get("usage") or {}
        said = body["choices"][0]["message"]["content"] or ""
        return Reply(str(said), int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0)))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        what = f"not an OpenAI-compatible reply: {text[:200]!r}"
        raise ParamsError(what, where=url, remedy=f"see {key}.url in params.yaml") from error
