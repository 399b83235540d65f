"""The champion on a server elsewhere (vLLM, or any with OpenAI's completions): prompts go there as
tokens.

That it holds the champion's weights nobody here can see. So it must serve them under a name that
says which they are, `version-3-1a2b3c4d5e6f`, and a version that it does not name does not take
over.
"""

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.generation import generator
from stages.common.runtime.errors import ParamsError, TryAgainError
from stages.common.runtime.logs import log
from stages.common.serving.engine.requests import (
    BusyError,
    ClosedError,
    Deliver,
    Request,
    Ticket,
    UnansweredError,
    room,
)
from stages.common.serving.engine.text import Text

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

KEY = "LATHE_BACKEND_KEY"
CONNECT_SECONDS, READ_SECONDS = 5.0, 120.0


class BackendError(TryAgainError):
    """The backend does not answer, or not as it should."""


class RemoteEngine:
    """What `Engine` is, with the model elsewhere; a thread for each answer under way."""

    model: Any = None
    """There is none here."""

    def __init__(
        self,
        url: str,
        named: str,
        folder: Path,
        tokenizer: "PreTrainedTokenizerBase",
        config: "PretrainedConfig",
        rows: int = 32,
        waiting_at_most: int = 64,
    ) -> None:
        """Raise BackendError when the server at `url` does not serve a model `named` so; `folder`
        is what it is to.
        """
        import httpx

        key = os.environ.get(KEY, "")
        timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        base = url.rstrip("/") + "/"
        try:
            self._client = httpx.Client(base_url=base, headers=headers, timeout=timeout, trust_env=False)
        except httpx.InvalidURL as error:
            raise ParamsError(f"'deploy.backend' is no URL: {error}", where="params.yaml") from error
        self._url, self._named, self.tokenizer = url, named, tokenizer
        self.context = generator.context_of(config)
        self.vocabulary = int(config.get_text_config(decoder=True).vocab_size)
        self._at_once, self._waiting_at_most = rows, waiting_at_most
        self._check(folder)
        self._threads = ThreadPoolExecutor(rows, "backend")
        self._open: set[Ticket] = set()
        self._changed = threading.Condition()
        self._closed = False

    def submit(self, request: Request, deliver: Deliver) -> Ticket:
        """Send a request; `deliver` gets its pieces, or the exception that ended it.

        Raises DataError for a prompt without room for an answer and for beams, BusyError, and
        ClosedError after `close`.
        """
        for field, asked, what in (
            ("beams", request.beams > 1, "no beam search"),
            ("logprobs", request.alternatives is not None or request.scores_prompt, "no log-probabilities for us"),
            ("response_format", request.grammar is not None, "no grammar to keep an answer on"),
        ):
            if asked:
                raise UnansweredError(f"the backend has {what}", field=field)
        ticket = Ticket(request, deliver, Text(self.tokenizer), room(self.context, request))
        with self._changed:
            if self._closed:
                raise ClosedError("this model takes no more requests")
            waiting = len(self._open) - self._at_once
            if waiting >= self._waiting_at_most:
                raise BusyError(f"{waiting} requests are waiting", remedy="try again in a few seconds")
            self._open.add(ticket)
            self._threads.submit(self._answer, ticket)
        return ticket

    def load(self) -> tuple[int, int]:
        """Return how many requests wait, and how many are being answered."""
        with self._changed:
            under_way = min(len(self._open), self._at_once)
            return len(self._open) - under_way, under_way

    def close(self) -> None:
        """Take no more requests; those under way and waiting are still answered."""
        with self._changed:
            self._closed = True
        self._threads.shutdown(wait=False)

    def join(self, seconds: float) -> bool:
        """Wait until a closed engine has answered all; return whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, seconds)

    def cancel_all(self) -> None:
        """End every answer at its next piece."""
        with self._changed:
            for ticket in self._open:
                ticket.cancel()

    def _check(self, folder: Path) -> None:
        import httpx

        remedy = f"serve {folder} there under that name (vLLM: --served-model-name {self._named})"
        try:
            reply = self._client.get("models")
            reply.raise_for_status()
            names = [str(one["id"]) for one in reply.json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise BackendError(f"the backend does not list its models ({error})", where=self._url) from error
        if self._named not in names:
            what = f"the backend serves {', '.join(names) or 'nothing'}, not {self._named}"
            raise BackendError(what, where=self._url, remedy=remedy)

    def _answer(self, ticket: Ticket) -> None:
        import httpx

        try:
            if ticket.cancelled:
                ticket.say("", "cancelled")
            else:
                self._read(ticket)
        except (httpx.HTTPError, ValueError, KeyError, TypeError, IndexError) as error:
            log.error("the backend failed: %s: %s", type(error).__name__, error)
            ticket.deliver(BackendError("the model's backend does not answer", where=self._url))
        except Exception as error:  # the thread's boundary: readers get it
            log.error("an answer of the backend failed: %s: %s", type(error).__name__, error)
            ticket.deliver(error)
        finally:
            with self._changed:
                self._open.discard(ticket)
                self._changed.notify_all()

    def _read(self, ticket: Ticket) -> None:
        """Hand on what the backend streams; hanging up ends the answer there."""
        with self._client.stream("POST", "completions", json=self._body(ticket)) as reply:
            reply.raise_for_status()
            finish = None
            for event in _events(reply.iter_lines()):
                if usage := event.get("usage"):
                    ticket.count = int(usage["completion_tokens"])
                if ticket.cancelled:
                    ticket.say("", "cancelled")
                    return
                for choice in event["choices"]:
                    finish = finish or choice.get("finish_reason")
                    ticket.count += 0 if usage else 1
                    ticket.say(str(choice["text"]), None)
        if finish not in ("stop", "length"):
            raise ValueError(f"the stream ended without an end ({finish})")
        ticket.say("", finish)

    def _body(self, ticket: Ticket) -> dict[str, Any]:
        """Return the request; what goes beyond OpenAI's parameters (vLLM knows it) is there only
        where asked for.
        """
        sampling, asked = ticket.request.sampling, ticket.request
        body: dict[str, Any] = {
            "model": self._named,
            "prompt": asked.prompt,
            "max_tokens": ticket.limit,
            "temperature": sampling.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if sampling.temperature:
            body |= {"top_p": sampling.top_p, "seed": sampling.seed % 2**31}
            body |= {"top_k": sampling.top_k} if sampling.top_k else {}
        body |= {"stop": list(asked.stop)} if asked.stop else {}
        body |= {"skip_special_tokens": False} if asked.marks else {}
        if sampling.repetition_penalty != 1:
            body["repetition_penalty"] = sampling.repetition_penalty
        return body


def _events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("data:") and (content := line[5:].strip()) != "[DONE]":
            yield json.loads(content)
