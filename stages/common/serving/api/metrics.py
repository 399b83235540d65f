"""What is known of the answers: Prometheus metrics, and a line of JSON in the log for each; never
what was said.
"""

import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from stages.common.runtime.errors import StageError
from stages.common.runtime.logs import log
from stages.common.serving.challenger.contested import Contested
from stages.common.serving.drift.watch import Watch
from stages.common.serving.engine.champions import Asked, Champion, Champions, Question
from stages.common.serving.engine.requests import BusyError, ClosedError, Piece, arriving

if TYPE_CHECKING:
    from fastapi import Response

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Observer:
    """Counts questions, tokens and seconds of one app; `drift` compares what was said with the
    champion's own data.
    """

    def __init__(self, champions: Champions, drift: Watch | None = None) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.champions, self._registry, self._drift = champions, CollectorRegistry(), drift
        if drift:
            drift.register(self._registry)
        self._requests = Counter(
            "lathe_requests", "Questions by surface and how they ended", ["via", "outcome"], registry=self._registry
        )
        self._tokens = Counter("lathe_tokens", "Tokens read and written", ["kind"], registry=self._registry)
        self._first = Histogram(
            "lathe_first_token_seconds", "Until an answer began", buckets=SECONDS, registry=self._registry
        )
        self._whole = Histogram("lathe_answer_seconds", "Until it ended", buckets=SECONDS, registry=self._registry)
        for name, about, read in (
            ("lathe_waiting", "Questions that wait", lambda: champions.current.engine.load()[0]),
            ("lathe_answering", "Answers under way", lambda: champions.current.engine.load()[1]),
            ("lathe_swaps", "Champions that took over since the start", lambda: champions.swaps),
        ):
            Gauge(name, about, registry=self._registry).set_function(read)
        self._challenger = Gauge(
            "lathe_challenger", "Its release by traffic", ["version", "figure"], registry=self._registry
        )
        self._version = Gauge("lathe_champion", "The champion", ["model", "version"], registry=self._registry)

    def exposition(self) -> "Response":
        """Return all metrics in Prometheus' text format."""
        from fastapi import Response
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        facts = self.champions.current.facts()
        self._version.clear()
        self._version.labels(facts["model"], facts["version"]).set(1)
        self._challenger.clear()
        if isinstance(self.champions, Contested):
            for name, value in self.champions.figures().items():
                self._challenger.labels(self.champions.challenger, name).set(value)
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def ask(
        self, question: Question, via: str, of: Champion | None = None
    ) -> "tuple[Asked, AsyncIterator[Piece]]":
        """Ask the champion, or a version beside it, which drift does not look at; return who
        answers and the pieces. Raises what keeps it from being asked.
        """
        started = time.monotonic()
        try:
            asked, found = await arriving(of.ask if of else self.champions.ask, question)
        except BaseException as error:
            self._record(via, _outcome(error), None, None, started, None)
            raise
        self._tokens.labels("prompt").inc(asked.prompt_tokens)
        return asked, self._watched(asked, found, question, via, started, None if of else self._drift)

    async def _watched(
        self,
        asked: Asked,
        found: AsyncIterator[Piece],
        question: Question,
        via: str,
        started: float,
        drift: Watch | None,
    ) -> AsyncIterator[Piece]:
        first, last, outcome, said = None, None, "cancelled", list[str]()
        try:
            async with aclosing(found) as pieces:  # type: ignore[type-var]  # a generator
                async for piece in pieces:
                    first, last = first or time.monotonic() - started, piece
                    outcome = piece.finish or outcome
                    said.append(piece.text)
                    yield piece
        except Exception as error:
            outcome = _outcome(error)
            raise
        finally:
            self._record(via, outcome, asked, last, started, first)
            if drift and last and last.finish in ("stop", "length"):
                drift.note(asked.champion, question, "".join(said), last.tokens, last.finish == "length")

    def _record(
        self, via: str, outcome: str, asked: Asked | None, last: Piece | None, started: float, first: float | None
    ) -> None:
        seconds = time.monotonic() - started
        self._requests.labels(via, outcome).inc()
        if last:
            self._tokens.labels("completion").inc(last.tokens)
        if first is not None:
            self._first.observe(first)
            self._whole.observe(seconds)
        facts = {
            "event": "answer",
            "id": secrets.token_hex(8),
            "via": via,
            "outcome": outcome,
            "version": asked.champion.version.number if asked else None,
            "prompt_tokens": asked.prompt_tokens if asked else 0,
            "completion_tokens": last.tokens if last else 0,
            "dropped_messages": asked.dropped if asked else 0,
            "first_token_seconds": round(first, 4) if first is not None else None,
            "seconds": round(seconds, 4),
        }
        log.debug(json.dumps(facts))


def _outcome(error: BaseException) -> str:
    if isinstance(error, BusyError):
        return "busy"
    if isinstance(error, ClosedError):
        return "closed"
    return "refused" if isinstance(error, StageError) else "error"
