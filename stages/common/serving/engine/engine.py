"""Answers to many at once from one model: requests join and leave the batch between two steps.

Continuous batching (Yu et al. 2022, Orca, section 4.1) in one thread over the decoder's cache. A
beam search cannot share a step with others: it runs beside the batch, one at a time, and waits
apart: answers that take long take no place of the others.
"""

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

from stages.common.core import chat
from stages.common.generation import generator
from stages.common.generation.batch import survivors
from stages.common.generation.engines.structured import Grammars
from stages.common.runtime import process
from stages.common.runtime.logs import log
from stages.common.serving.engine import choosing, requests
from stages.common.serving.engine.requests import BusyError, ClosedError, Deliver, Piece, Request, Ticket
from stages.common.serving.engine.text import Text

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SCORED_AT_ONCE = 4
"""Prompts that are scored between two steps of the batch."""


class Engine:
    """One model answering; `submit` from any thread, events come from the engine's thread.

    At most `rows` answers are under way, fewer where their keys and values would be more than
    `tokens` tokens (None: what the memory that is free now has room for).
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        rows: int = 32,
        waiting_at_most: int = 64,
        tokens: int | None = None,
    ) -> None:
        self.model, self.tokenizer, self.rows_at_most = model.eval(), tokenizer, rows
        self.waiting_at_most, self.tokens = waiting_at_most, tokens
        self._ends = frozenset(chat.stops(tokenizer))
        self._waiting: deque[Ticket] = deque()
        self._rows: list[Ticket] = []
        self._beams: set[Ticket] = set()
        self._changed, self._closed = threading.Condition(), False
        self._beam_thread = ThreadPoolExecutor(1, "beam")
        process.threads()  # as they are before any engine works
        self._new_cache()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @cached_property
    def grammars(self) -> Grammars:
        """Return what follows grammars over this model's tokens. Raises DataError."""
        return Grammars(self.tokenizer, self.vocabulary, sorted(self._ends))

    @property
    def vocabulary(self) -> int:
        """Return how many tokens the model has."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def context(self) -> int | None:
        """Return the most tokens a prompt and its answer may have together; None: no limit."""
        return generator.context(self.model)

    def submit(self, request: Request, deliver: Deliver) -> Ticket:
        """Queue a request; `deliver` gets its pieces, or the exception that ended it.

        Raises DataError for a prompt without room for an answer, ParamsError for a grammar that
        cannot be kept, BusyError, and ClosedError after `close`.
        """
        limit, text = requests.room(self.context, request), Text(self.tokenizer, request.stop, marks=request.marks)
        matcher = self.grammars.follower(request.grammar) if request.grammar else None
        ticket = Ticket(request, deliver, text, limit, matcher)
        with self._changed:
            if self._closed:
                raise ClosedError("this model takes no more requests")
            before = len(self._beams if request.beams > 1 else self._waiting)
            if before >= self.waiting_at_most:
                raise BusyError(f"{before} requests are waiting", remedy="try again in a few seconds")
            if request.beams > 1:
                self._beams.add(ticket)
                self._beam_thread.submit(self._search, ticket)
            else:
                self._waiting.append(ticket)
                self._changed.notify_all()
        return ticket

    def load(self) -> tuple[int, int]:
        """Return how many requests wait, and how many are being answered."""
        with self._changed:
            return len(self._waiting), len(self._rows) + len(self._beams)

    def close(self) -> None:
        """Take no more requests; those under way and waiting are still answered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._beam_thread.shutdown(wait=False)

    def join(self, seconds: float) -> bool:
        """Wait until a closed engine has answered all; return whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._waiting or self._rows or self._beams), seconds)

    def cancel_all(self) -> None:
        """End every answer at its next step."""
        with self._changed:
            for ticket in (*self._waiting, *self._rows, *self._beams):
                ticket.cancel()

    def _new_cache(self) -> None:
        from stages.common.generation import kv_cache

        if self.tokens is None:
            self.tokens = kv_cache.most_tokens(self.model)
        self._cache = kv_cache.for_model(self.model, self.rows_at_most, self.tokens)

    def _work(self) -> None:
        import torch

        every = process.threads()
        with torch.inference_mode():
            while self._wait():
                try:
                    torch.set_num_threads(every)
                    self._admit()
                    if self._rows:
                        torch.set_num_threads(max(1, every - 1))  # a core for the event loop, which sends the tokens
                        self._step()
                except Exception as error:  # the thread's boundary: readers get it, and the engine goes on
                    self._fail(error)

    def _wait(self) -> bool:
        """Wait for work; return False when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._rows or self._closed)
            return bool(self._waiting or self._rows)

    def _admit(self) -> None:
        """Read the prompts of the requests for which there are free rows."""
        with self._changed:
            for ticket in [one for one in self._waiting if one.cancelled]:
                self._drop(ticket)
                ticket.deliver(Piece("", 0, "cancelled"))
            unscored = [one for one in self._waiting if one.is_unscored]
        for ticket in unscored[:SCORED_AT_ONCE]:
            self._score(ticket)
        with self._changed:
            if self._rows and not self._cache.refills:
                return
            taken = choosing.next_in(self._waiting, self._rows, self.rows_at_most, self.tokens)
            self._rows += taken
        if not taken:
            return
        prefixes = [ticket.request.prompt[:-1] for ticket in taken]
        # Room for whole answers at once: the cache would else be copied as they grow.
        self._cache.admit(prefixes, [1] * len(taken), max(row.end for row in self._rows))
        for ticket in taken:
            choosing.prepare(ticket, self.model)

    def _drop(self, ticket: Ticket) -> None:
        """Take from the queue what needs no row any more."""
        with self._changed:
            self._waiting.remove(ticket)
            self._changed.notify_all()

    def _score(self, ticket: Ticket) -> None:
        """Work out the log-probabilities of a prompt; an answer of no more than a token is then
        known too, and takes no row.
        """
        try:
            only = choosing.score_prompt(self.model, ticket, self._ends)
            if only:
                choosing.advance(ticket, *only, self._ends)
            elif not ticket.limit:
                ticket.say("", "length")
        except Exception as error:  # its own failure, not the batch's
            log.error("a prompt was not scored: %s: %s", type(error).__name__, error)
            ticket.deliver(error)
            ticket.limit = 0
        if ticket.limit <= 1:
            self._drop(ticket)

    def _step(self) -> None:
        """Give every row its next token; rows that are over leave."""
        import torch

        rows, device = self._rows, self.model.device
        last = torch.tensor([row.token for row in rows], device=device)
        positions = torch.tensor([row.position for row in rows], device=device)
        logits = self._cache.step(last, positions, max(row.position for row in rows)).float()
        choice = self._choose(logits)
        choosing.note(rows, logits, choice, self._ends)
        tokens = choice.tolist()
        whole = logits.amax(-1).isfinite().tolist()
        over = [
            choosing.advance(row, token, ok, self._ends) for row, token, ok in zip(rows, tokens, whole, strict=True)
        ]
        if any(over):
            self._leave(torch.tensor(over))

    def _choose(self, logits: "torch.Tensor") -> "torch.Tensor":
        """Return the next tokens [B] for logits [B, V], each row's by its own sampling."""
        return choosing.chosen(self._rows, logits)

    def _leave(self, over: "torch.Tensor") -> None:
        order = survivors(over.to(self.model.device))
        self._cache.keep(order)
        with self._changed:
            self._rows = [self._rows[place] for place in order.tolist()]
            self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        """End all rows with the error and begin with an empty cache: what the old one holds is not
        known.
        """
        log.error("the batch failed: %s: %s", type(error).__name__, error)
        log.debug("traceback", exc_info=error)
        with self._changed:
            failed, self._rows = self._rows, []
            self._changed.notify_all()
        for row in failed:
            row.deliver(error)
        self._new_cache()

    def _search(self, ticket: Ticket) -> None:
        """Answer by beam search, beside the batch."""
        try:
            over = Piece("", 0, "cancelled")  # who left while others were searched for
            ticket.deliver(over if ticket.cancelled else choosing.searched(self.model, ticket, sorted(self._ends)))
        except Exception as error:  # the thread's boundary, as in `_work`
            log.error("a beam search failed: %s: %s", type(error).__name__, error)
            ticket.deliver(error)
        finally:
            with self._changed:
                self._beams.discard(ticket)
                self._changed.notify_all()
