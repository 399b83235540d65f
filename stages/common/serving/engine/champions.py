"""The champion in memory, and its successor: a new one is loaded beside the old, which ends what it
has begun.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stages.common.core import models
from stages.common.core.records import Record
from stages.common.generation.generator import GREEDY
from stages.common.generation.sampling import Sampling
from stages.common.release import manual_promotion, registry
from stages.common.runtime.errors import DataError, StageError
from stages.common.runtime.logs import log
from stages.common.serving.engine import context, grammar
from stages.common.serving.engine.engine import Engine
from stages.common.serving.engine.grammar import Form
from stages.common.serving.engine.remote import RemoteEngine
from stages.common.serving.engine.requests import ClosedError, Deliver, Request, Ticket
from stages.common.tracking import mlflow_store

if TYPE_CHECKING:
    from stages.common.tracking.mlflow_store import MlflowClient

AGAIN_AFTER_POLLS = 20
"""A version that could not be loaded is tried again after so many looks at the registry."""


@dataclass(frozen=True)
class Question:
    """A conversation to be answered, and how; see `requests.Request`."""

    messages: Sequence[Record]
    max_new_tokens: int
    sampling: Sampling = GREEDY
    stop: tuple[str, ...] = ()
    beams: int = 1
    tools: str | None = None
    """The tools that the model may call, as JSON; see `chat.encode_prompt`."""
    form: Form | None = None
    alternatives: int | None = None
    scores_prompt: bool = False
    plain: str | tuple[int, ...] | None = None
    """A text without turns, or its tokens, to go on with in place of messages."""
    marks: bool = False
    """Whether special tokens stay in the answer's text."""


@dataclass(frozen=True)
class Champion:
    """A version in memory, answering."""

    version: registry.Version
    engine: Engine | RemoteEngine

    def facts(self) -> dict[str, str]:
        """Return which model this is."""
        return facts(self.version)

    def ask(self, question: Question, deliver: Deliver) -> "Asked":
        """Ask this one. Raises as `asked` and `Engine.submit` do."""
        prompt, request = asked(self.engine, question)
        return Asked(self, len(prompt.tokens), prompt.dropped, self.engine.submit(request, deliver))


def facts(version: registry.Version) -> dict[str, str]:
    """Return which model a version is."""
    sha256 = version.tags.get("weights_sha256", "")
    return {"model": version.name, "version": version.number, "weights_sha256": sha256}


def fingerprint(facts: dict[str, str]) -> str:
    """Return which weights answer: the version's number and the beginning of their hash."""
    return f"version-{facts['version']}-{facts['weights_sha256'][:12]}"


@dataclass(frozen=True)
class Asked:
    """A question under way: who answers, how many tokens it reads, and how many of the oldest
    messages it does not.
    """

    champion: Champion
    prompt_tokens: int
    dropped: int
    ticket: Ticket

    def cancel(self) -> None:
        """End the answer at its next token."""
        self.ticket.cancel()


def asked(engine: Engine | RemoteEngine, question: Question) -> tuple[context.Fitted, Request]:
    """Return the prompt that a question is to an engine's model, and the request. Raises as
    `context.fitted`, `context.raw` and `grammar.text_of` do.
    """
    tokenizer, most = engine.tokenizer, engine.context
    if question.plain is not None:
        # As in OpenAI's completions a long prompt shortens the answer, to a token at the least.
        room = most - min(1, question.max_new_tokens) if most else None
        prompt = context.raw(tokenizer, question.plain, room, engine.vocabulary)
    else:
        room = most - question.max_new_tokens if most else None
        prompt = context.fitted(tokenizer, question.messages, room, question.tools)
    if question.alternatives is not None and isinstance(engine, Engine):
        with suppress(DataError):  # of a tokenizer that is not the fast kind
            engine.grammars  # noqa: B018  # spells the tokens: made here, where no event loop waits for it
    request = Request(
        prompt.tokens,
        question.max_new_tokens,
        question.sampling,
        question.stop,
        question.beams,
        grammar.text_of(tokenizer, question.form, question.tools) if question.form else None,
        question.alternatives,
        question.scores_prompt,
        question.marks,
    )
    return prompt, request


@dataclass
class Champions:
    """The champion of `name`, followed through the registry; `rows` and `waiting` bound what it
    answers at once.

    With a `backend`, the URL of an OpenAI-compatible server, the weights are there and only tokens
    are here.
    """

    name: str
    rows: int = 32
    waiting: int = 64
    client: "MlflowClient" = field(default_factory=mlflow_store.client)
    backend: str = ""

    def __post_init__(self) -> None:
        version = registry.with_alias(self.client, self.name, registry.CHAMPION)
        if version is None:
            raise registry.no_champion(self.client, self.name)
        self.current = self.load(version)
        self.swaps = 0
        self._warned = ""
        self._ended = threading.Event()
        self._tried, self._tries = "", 0
        self._leaving: list[Engine | RemoteEngine] = []
        self._warn(version)
        self._note()

    def ask(self, question: Question, deliver: Deliver) -> Asked:
        """Ask whoever is champion now. Raises as `asked` and `Engine.submit` do."""
        while True:
            champion = self.current
            try:
                return champion.ask(question, deliver)
            except ClosedError:
                if self._ended.is_set() or champion is self.current:
                    raise  # else a successor has come since

    def look(self) -> bool:
        """Swap if the alias points elsewhere; return whether it did. What keeps a version from
        serving is logged.
        """
        try:
            version = registry.with_alias(self.client, self.name, registry.CHAMPION)
            self._warn(version)
            if version is None or version.number == self.current.version.number or not self._may_try(version.number):
                return False
            new = self.load(version)
        except Exception as error:  # the thread's boundary: whatever a new version does, the old one goes on
            what = str(error) if isinstance(error, StageError) else f"{type(error).__name__}: {error}"
            log.warning("version %s goes on answering: %s", self.current.version.number, what)
            log.debug("traceback", exc_info=True)
            return False
        old, self.current = self.current, new
        self.swaps += 1
        self._leaving = [engine for engine in self._leaving if not engine.join(0)]
        self._leaving.append(old.engine)
        old.engine.close()
        log.info("version %s answers now, version %s ends what it has begun", version.number, old.version.number)
        self._note()
        return True

    def _note(self) -> None:
        """Write a move down that was made by hand; the model answers all the same if that fails."""
        try:
            manual_promotion.note(self.client, self.name)
        except Exception as error:  # the thread's boundary, as in `look`
            log.warning("the move of alias champion is not written down: %s", error)
            log.debug("traceback", exc_info=True)

    def _warn(self, version: registry.Version | None) -> None:
        """Say once what is wrong with who has the alias."""
        what = manual_promotion.oddity(self.client, self.name, version, self.current.version.number)
        if what and what != self._warned:
            log.warning(what)
        self._warned = what

    def _may_try(self, number: str) -> bool:
        """Whether to load a version now; one that failed waits some looks."""
        self._tried, self._tries = number, self._tries + 1 if number == self._tried else 0
        return self._tries % AGAIN_AFTER_POLLS == 0

    def follow(self, seconds: float) -> threading.Thread:
        """Look at the registry every `seconds` in a thread, until `close`."""

        def look_again() -> None:
            while not self._ended.wait(seconds):
                self.look()

        thread = threading.Thread(target=look_again, name="champions", daemon=True)
        thread.start()
        return thread

    @property
    def is_ending(self) -> bool:
        """Whether `close` was called."""
        return self._ended.is_set()

    def close(self, seconds: float = 0.0) -> bool:
        """Take no more questions; return whether all under way were answered within `seconds`, the
        rest is ended.
        """
        self._ended.set()
        engines, end = [*self._leaving, self.current.engine], time.monotonic() + seconds
        for engine in engines:
            engine.close()
        done = [engine.join(max(0.0, end - time.monotonic())) for engine in engines]
        for engine in engines:
            engine.cancel_all()
        return all(done)

    def load(self, version: registry.Version) -> Champion:
        """Return a version in memory, its files verified before a byte of them is used."""
        folder = registry.fetch(self.client, version)
        if self.backend:
            parts = models.load_tokenizer(folder), models.load_config(folder)
            named = fingerprint(facts(version))
            return Champion(version, RemoteEngine(self.backend, named, folder, *parts, self.rows, self.waiting))
        engine = Engine(models.load_frozen(folder), models.load_tokenizer(folder), self.rows, self.waiting)
        return Champion(version, engine)
