"""A request to the engine, the pieces of its answer, and how a reader gets them: in a thread or in
an event loop.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from stages.common.generation.generator import GREEDY, fitting
from stages.common.generation.sampling import Sampling
from stages.common.runtime.errors import DataError, StageError
from stages.common.serving.engine.scores import Score, certain
from stages.common.serving.engine.text import Text

if TYPE_CHECKING:
    import numpy as np
    import torch
    from llguidance import LLMatcher

Finish = Literal["stop", "length", "cancelled", "tool_calls"]


class BusyError(StageError):
    """More requests wait than may."""


class ClosedError(StageError):
    """The engine takes no more requests: another model answers, or the server ends."""


class UnansweredError(DataError):
    """What is asked cannot be answered, because of the `field` of the request; `kind` is OpenAI's
    word for why.
    """

    def __init__(self, what: str, *, field: str, kind: str = "unsupported_value", remedy: str = "") -> None:
        super().__init__(what, remedy=remedy)
        self.field, self.kind = field, kind


@dataclass(frozen=True)
class Request:
    """The prompt's tokens, and how to answer. With `beams` above 1 only the penalty of `sampling`
    counts; with `marks` special tokens stay in the answer's text. `max_new_tokens` may be 0 where
    the prompt is scored.
    """

    prompt: list[int]
    max_new_tokens: int
    sampling: Sampling = GREEDY
    stop: tuple[str, ...] = ()
    beams: int = 1
    grammar: str | None = None
    """What the answer keeps to, as llguidance writes grammars."""
    alternatives: int | None = None
    """How many tokens are told at each place with their log-probabilities, beside the chosen one's;
    None: no log-probabilities.
    """
    scores_prompt: bool = False
    """Whether the prompt's tokens get theirs too."""
    marks: bool = False


@dataclass(frozen=True)
class Piece:
    """A piece of an answer, `tokens` made so far (the end of turn counts), on the last piece why it
    ended, and the log-probabilities of the tokens that are new in it, where they are asked for.
    """

    text: str
    tokens: int
    finish: Finish | None = None
    scores: tuple[Score, ...] = ()

    def with_next(self, following: "Piece") -> "Piece":
        """Return both as one."""
        return Piece(self.text + following.text, following.tokens, following.finish, self.scores + following.scores)


Deliver = Callable[[Piece | Exception], None]
APART = 0.03
"""Seconds between two pieces of an answer: handing out each token of a fast model takes longer than
making it.
"""


def room(context: int | None, request: Request) -> int:
    """Return how long the answer may be. Raises DataError for a prompt without room for one."""
    if not request.max_new_tokens and len(request.prompt) <= (context or len(request.prompt)):
        return 0
    fitting(context, [request.prompt])
    left = context - len(request.prompt) if context else request.max_new_tokens
    return max(1, min(left, request.max_new_tokens))


class Ticket:
    """A request under way: its row of the batch. `cancel` makes it leave at the next step."""

    def __init__(
        self, request: Request, deliver: Deliver, text: Text, limit: int, matcher: "LLMatcher | None" = None
    ) -> None:
        self.request, self.text, self.limit, self.matcher = request, text, limit, matcher
        self.cancelled, self._deliver = False, deliver
        self.token, self.position, self.count = request.prompt[-1], len(request.prompt) - 1, 0
        self.end = self.position + limit  # of its row
        self.kind = replace(request.sampling, seed=0)  # rows of one kind are chosen for together
        self._held, self._given = "", float("-inf")
        self.failed: Exception | None = None
        """What keeps it from going on."""
        self.scores: list[Score] = []
        self.prompt_scores: list[Score] | None = None
        self._unscored = ""  # text that was handed out while the scores of its tokens were held back
        self.uniform: np.ndarray[Any, Any] | None = None
        self.seen: torch.Tensor | None = None

    @property
    def is_unscored(self) -> bool:
        """Whether the prompt is to be scored yet."""
        return self.request.scores_prompt and self.prompt_scores is None

    def cancel(self) -> None:
        """Ask the engine to end this answer."""
        self.cancelled = True

    def hear(self, token: int) -> None:
        """Take a token; its text is worked out where it may end the answer, else with the piece it
        goes into.
        """
        self.text.add(token)
        if self.text.is_urgent:
            self._held += self.text.take()

    def tell(self, finish: Finish | None) -> None:
        """Hand the reader what was heard, where a piece is due."""
        if finish:
            self.say(self.text.end(), finish)
        elif time.monotonic() - self._given >= APART:
            self.say(self.text.take(), None)

    def say(self, text: str, finish: Finish | None) -> None:
        """Hand the reader a piece: the first text and the end at once, what is between with what
        soon follows it.
        """
        self._held += text
        now = time.monotonic()
        if finish or (self._held and now - self._given >= APART):
            self.deliver(Piece(self._held, self.count, finish, self._scored(finish)))
            self._held, self._given = "", now

    def _scored(self, finish: Finish | None) -> tuple[Score, ...]:
        """Return the scores of the tokens whose text is certain."""
        if self.request.alternatives is None:
            return ()
        self._unscored += self._held
        if self.text.is_holding and not finish:
            return ()
        told = certain(self.scores, self._unscored, self.text.decode) if self.text.ended else self.scores
        self.scores, self._unscored = [], ""
        return tuple(told)

    def deliver(self, event: Piece | Exception) -> None:
        """Hand an event to the reader; one whose event loop is gone does not stop the others."""
        try:
            self._deliver(event)
        except RuntimeError:
            self.cancelled = True


class Cancellable(Protocol):
    """What answers a request: the engine's ticket, or what wraps it."""

    def cancel(self) -> None:
        """End the answer."""


Q = TypeVar("Q")
A = TypeVar("A", bound=Cancellable)


def pieces(ask: Callable[[Q, Deliver], A], asked: Q) -> tuple[A, Iterator[Piece]]:
    """Ask, and return what answers with its pieces; closing the iterator ends the answer. It raises
    what ended it.
    """
    events: SimpleQueue[Piece | Exception] = SimpleQueue()
    answer = ask(asked, events.put)

    def read() -> Iterator[Piece]:
        try:
            finish = None
            while finish is None:
                piece = _piece(events.get())
                finish = piece.finish
                yield piece
        finally:
            answer.cancel()

    return answer, read()


async def arriving(ask: Callable[[Q, Deliver], A], asked: Q) -> tuple[A, AsyncIterator[Piece]]:
    """As `pieces` in an event loop, which does not wait while the question is read."""
    loop, events = asyncio.get_running_loop(), asyncio.Queue[Piece | Exception]()

    def deliver(event: Piece | Exception) -> None:
        loop.call_soon_threadsafe(events.put_nowait, event)

    answer = await asyncio.to_thread(ask, asked, deliver)

    async def read() -> AsyncIterator[Piece]:
        try:
            finish = None
            while finish is None:
                piece = _piece(await events.get())
                waiting = events.qsize()  # a reader slower than the model gets several at once
                for event in [events.get_nowait() for _ in range(waiting)]:
                    piece = piece.with_next(_piece(event))
                finish = piece.finish
                yield piece
        finally:
            answer.cancel()

    return answer, read()


def _piece(event: Piece | Exception) -> Piece:
    if isinstance(event, Exception):
        raise event
    return event
