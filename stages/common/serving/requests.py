"""A request to the engine, the pieces of its answer, and how a reader gets them: in a thread or in an event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from stages.common.errors import StageError
from stages.common.generation import GREEDY
from stages.common.sampling import Sampling
from stages.common.serving.text import Text

if TYPE_CHECKING:
    import numpy as np
    import torch

Finish = Literal["stop", "length", "cancelled"]


class BusyError(StageError):
    """More requests wait than may."""


class ClosedError(StageError):
    """The engine takes no more requests: another model answers, or the server ends."""


@dataclass(frozen=True)
class Request:
    """The prompt's tokens, and how to answer. With `beams` above 1 only the penalty of `sampling` counts."""

    prompt: list[int]
    max_new_tokens: int
    sampling: Sampling = GREEDY
    stop: tuple[str, ...] = ()
    beams: int = 1


@dataclass(frozen=True)
class Piece:
    """A piece of an answer, `tokens` made so far (the end of turn counts), and on the last piece why it ended."""

    text: str
    tokens: int
    finish: Finish | None = None


Deliver = Callable[[Piece | Exception], None]


class Ticket:
    """A request under way: its row of the batch. `cancel` makes it leave at the next step."""

    def __init__(self, request: Request, deliver: Deliver, text: Text, limit: int) -> None:
        self.request, self.text, self.limit = request, text, limit
        self.cancelled, self._deliver = False, deliver
        self.token, self.position, self.count = request.prompt[-1], len(request.prompt) - 1, 0
        self.kind = replace(request.sampling, seed=0)  # rows of one kind are chosen for together
        self.uniform: np.ndarray[Any, Any] | None = None
        self.seen: torch.Tensor | None = None

    def cancel(self) -> None:
        """Ask the engine to end this answer."""
        self.cancelled = True

    def deliver(self, event: Piece | Exception) -> None:
        """Hand an event to the reader; one whose event loop is gone does not stop the others."""
        try:
            self._deliver(event)
        except RuntimeError:
            self.cancelled = True


Submit = Callable[[Request, Deliver], Ticket]


def pieces(submit: Submit, request: Request) -> Iterator[Piece]:
    """Yield the pieces of an answer; closing the iterator ends the answer. Raises what ended it."""
    events: SimpleQueue[Piece | Exception] = SimpleQueue()
    ticket = submit(request, events.put)
    try:
        while True:
            event = events.get()
            yield _piece(event)
            if isinstance(event, Piece) and event.finish:
                return
    finally:
        ticket.cancel()


async def arriving(submit: Submit, request: Request) -> AsyncIterator[Piece]:
    """Yield the pieces of an answer in an event loop, as `pieces` does in a thread."""
    loop, events = asyncio.get_running_loop(), asyncio.Queue[Piece | Exception]()
    ticket = submit(request, lambda event: _later(loop, events, event))
    try:
        while True:
            event = await events.get()
            yield _piece(event)
            if isinstance(event, Piece) and event.finish:
                return
    finally:
        ticket.cancel()


def _piece(event: Piece | Exception) -> Piece:
    if isinstance(event, Exception):
        raise event
    return event


def _later(
    loop: asyncio.AbstractEventLoop, events: "asyncio.Queue[Piece | Exception]", event: Piece | Exception
) -> None:
    loop.call_soon_threadsafe(events.put_nowait, event)
