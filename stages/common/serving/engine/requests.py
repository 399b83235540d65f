"""A request to the engine, the pieces of its answer, and how a reader gets them: in a thread or in
an event loop.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from stages.common.generation.generator import GREEDY, beam, fitting
from stages.common.generation.sampling import Sampling
from stages.common.runtime.errors import StageError
from stages.common.serving.engine.text import Text

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel

Finish = Literal["stop", "length", "cancelled", "tool_calls"]


class BusyError(StageError):
    """More requests wait than may."""


class ClosedError(StageError):
    """The engine takes no more requests: another model answers, or the server ends."""


@dataclass(frozen=True)
class Request:
    """The prompt's tokens, and how to answer. With `beams` above 1 only the penalty of `sampling`
    counts; with `marks` special tokens stay in the answer's text.
    """

    prompt: list[int]
    max_new_tokens: int
    sampling: Sampling = GREEDY
    stop: tuple[str, ...] = ()
    beams: int = 1
    marks: bool = False


@dataclass(frozen=True)
class Piece:
    """A piece of an answer, `tokens` made so far (the end of turn counts), and on the last piece
    why it ended.
    """

    text: str
    tokens: int
    finish: Finish | None = None


Deliver = Callable[[Piece | Exception], None]
APART = 0.03
"""Seconds between two pieces of an answer: handing out each token of a fast model takes longer than
making it.
"""


def room(context: int | None, request: Request) -> int:
    """Return how long the answer may be. Raises DataError for a prompt without room for one."""
    fitting(context, [request.prompt])
    left = context - len(request.prompt) if context else request.max_new_tokens
    return max(1, min(left, request.max_new_tokens))


class Ticket:
    """A request under way: its row of the batch. `cancel` makes it leave at the next step."""

    def __init__(self, request: Request, deliver: Deliver, text: Text, limit: int) -> None:
        self.request, self.text, self.limit = request, text, limit
        self.cancelled, self._deliver = False, deliver
        self.token, self.position, self.count = request.prompt[-1], len(request.prompt) - 1, 0
        self.end = self.position + limit  # of its row
        self.kind = replace(request.sampling, seed=0)  # rows of one kind are chosen for together
        self._held, self._given = "", float("-inf")
        self.uniform: np.ndarray[Any, Any] | None = None
        self.seen: torch.Tensor | None = None

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
            self.deliver(Piece(self._held, self.count, finish))
            self._held, self._given = "", now

    def deliver(self, event: Piece | Exception) -> None:
        """Hand an event to the reader; one whose event loop is gone does not stop the others."""
        try:
            self._deliver(event)
        except RuntimeError:
            self.cancelled = True


def next_in(waiting: "deque[Ticket]", rows: Sequence[Ticket], most: int, tokens: int | None) -> list[Ticket]:
    """Take from the queue, in order, what there is room for beside `rows`: `most` rows in all, and
    `tokens` of keys and values, which rows take alike. A row alone is always taken.
    """
    from stages.common.generation import kv_cache

    taken: list[Ticket] = []
    longest = max((row.end for row in rows), default=0)
    while waiting:
        longest = max(longest, waiting[0].end)
        if len(rows) + len(taken) >= kv_cache.rows_within(tokens, longest + 1, most):
            break
        taken.append(waiting.popleft())
    return taken


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
                    following = _piece(event)
                    piece = Piece(piece.text + following.text, following.tokens, following.finish)
                finish = piece.finish
                yield piece
        finally:
            answer.cancel()

    return answer, read()


def _piece(event: Piece | Exception) -> Piece:
    if isinstance(event, Exception):
        raise event
    return event


def searched(model: "PreTrainedModel", ticket: Ticket, stop: Sequence[int]) -> Piece:
    """Return an answer by beam search in one piece, for what is best is known only at the end."""
    asked = ticket.request
    (tokens,) = beam(
        model,
        [asked.prompt],
        beams=asked.beams,
        max_new_tokens=ticket.limit,
        stop=stop,
        repetition_penalty=asked.sampling.repetition_penalty,
        is_stopped=lambda: ticket.cancelled,
    )
    for token in tokens:
        ticket.text.add(token)
    text = ticket.text.take() + ticket.text.end()
    cut = len(tokens) >= ticket.limit and not ticket.text.ended
    return Piece(text, len(tokens), "cancelled" if ticket.cancelled else "length" if cut else "stop")
