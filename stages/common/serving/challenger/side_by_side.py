"""Champion and challenger side by side, for a reviewer who does not know which is which: what each
answers, the vote, and where it goes.
"""

import asyncio
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from stages.common.annotation import feedback
from stages.common.annotation.feedback import CHARACTERS_AT_MOST, Choice, Side, Vote
from stages.common.core.records import Record, message
from stages.common.generation.sampling import Sampling
from stages.common.release import registry
from stages.common.release.traffic import votes
from stages.common.release.traffic.votes import Cast, Outcome
from stages.common.runtime.errors import DataError, StageError
from stages.common.runtime.logs import log
from stages.common.serving.api.metrics import Observer
from stages.common.serving.challenger.both import Both, Pair
from stages.common.serving.engine.champions import Champion, Question
from stages.common.serving.engine.requests import BusyError

VIA = "side by side"
TALKS_AT_MOST, MESSAGES_AT_MOST = 200, 20


class Asking(NamedTuple):
    """How both are asked, alike, and where votes go."""

    system_prompt: str
    temperature: float
    max_new_tokens: int
    store: Path


@dataclass
class Talk:
    """A conversation with both, on the server's side."""

    who: str
    facts: tuple[dict[str, str], dict[str, str]]
    """Of the champion and the challenger."""
    messages: list[Record]
    """The system prompt and what the person said."""
    challenger: int = field(default_factory=lambda: secrets.randbelow(2))
    """Its side, 0 the left one: drawn for each conversation."""
    answers: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))
    """Of the left and the right one, to each message of the person."""
    is_answering: bool = False

    def history(self, side: int) -> list[Record]:
        """Return a side's conversation as a page shows it."""
        said = self.answers[side]
        turns = [*feedback.before_last(self.messages, said), {"role": "assistant", "content": said[-1]}]
        return [one for one in turns if one["role"] != "system"]


class Desk:
    """Where reviewers ask and vote; it holds their conversations until they have voted."""

    def __init__(self, observer: Observer, asking: Asking, both: Both | None = None) -> None:
        self.observer, self.asking, self.both = observer, asking, both or Both(observer.champions)
        self._talks: OrderedDict[str, Talk] = OrderedDict()
        self._lock, self._publishing = threading.Lock(), threading.Lock()

    async def say(self, who: str, conversation: str, text: str) -> tuple[str, Talk]:
        """Ask both; return the conversation with its id, which is drawn where it has none yet.
        Raises StageError.

        Neither answer is given before both are there, and an error does not tell whose it is.
        """
        if not text.strip() or len(text) > CHARACTERS_AT_MOST:
            raise DataError(f"a message has 1 to {CHARACTERS_AT_MOST:,} characters")
        pair = await asyncio.to_thread(self.both.pair)
        with self._answering(who, conversation, pair) as (known, talk):
            asked = [*talk.messages, message("user", text.strip())]
            sides = (pair.champion, pair.challenger) if talk.challenger else (pair.challenger, pair.champion)
            given = await self._answers(sides, [feedback.before_last(asked, said) for said in talk.answers])
            talk.messages = asked
            for said, answer in zip(talk.answers, given, strict=True):
                said.append(answer)
        return known, talk

    def vote(self, conversation: str, choice: Choice) -> Vote:
        """Keep a vote, which ends the conversation. Raises DataError where there is nothing to vote
        on, and for a choice between answers that are the same.
        """
        with self._lock:
            talk = self._known(conversation)
            if choice in ("left", "right") and talk.answers[0] == talk.answers[1]:
                raise DataError("both have said the same", remedy="vote for a tie, or say that both are bad")
            del self._talks[conversation]
        try:
            line = self._line(conversation, talk, choice)
            feedback.append(self.asking.store, line)
        except BaseException:  # it can be voted on again
            with self._lock:
                self._talks[conversation] = talk
            raise
        counts = self.both.counting(*(facts["version"] for facts in talk.facts))
        if line.counted and counts:
            counts.ranked({"won": 1.0, "lost": -1.0}.get(outcome(line), 0.0))
        self._publish(line.sides[1])
        return line

    def _known(self, conversation: str) -> Talk:
        talk = self._talks.get(conversation)
        if talk is None:
            raise DataError("there is nothing to vote on", remedy="type a message first")
        if talk.is_answering:
            raise DataError("the answers are under way")
        return talk

    @contextmanager
    def _answering(self, who: str, conversation: str, pair: Pair) -> Iterator[tuple[str, Talk]]:
        """Hold a conversation, or a new one, while both are asked."""
        with self._lock:
            if conversation:
                talk = self._known(conversation)
                if talk.facts != pair.facts():
                    raise DataError("other models are compared by now", remedy="vote, or begin a new conversation")
                if len(talk.answers[0]) >= MESSAGES_AT_MOST:
                    raise DataError(f"a conversation has {MESSAGES_AT_MOST} messages at most", remedy="vote")
            else:
                system = self.asking.system_prompt
                conversation = secrets.token_hex(8)
                talk = Talk(who, pair.facts(), [message("system", system)] if system.strip() else [])
                self._talks[conversation] = talk
            talk.is_answering = True
            while len(self._talks) > TALKS_AT_MOST:
                self._talks.popitem(last=False)
        try:
            yield conversation, talk
        finally:
            with self._lock:
                talk.is_answering = False
                if not talk.answers[0]:
                    self._talks.pop(conversation, None)

    async def _answers(self, sides: tuple[Champion, Champion], histories: list[list[dict[str, str]]]) -> list[str]:
        async def one(champion: Champion, messages: list[dict[str, str]]) -> str:
            sampling = Sampling(temperature=self.asking.temperature, seed=secrets.randbits(62))
            question = Question(messages, self.asking.max_new_tokens, sampling)
            _, pieces = await self.observer.ask(question, VIA, champion)
            async with aclosing(pieces) as open_pieces:  # type: ignore[type-var]  # a generator
                return "".join([piece.text async for piece in open_pieces])

        given = await asyncio.gather(*map(one, sides, histories), return_exceptions=True)
        failed = [one for one in given if isinstance(one, BaseException)]
        for champion, found in zip(sides, given, strict=True):
            if isinstance(found, BaseException):
                log.warning("version %s gave no answer side by side: %s", champion.version.number, found)
        if len(failed) == len(given) and isinstance(failed[0], StageError):
            raise failed[0]  # the message's own fault, most often
        if any(isinstance(one, BusyError) for one in failed):
            raise DataError("too many questions wait", remedy="try again in a few seconds")
        if failed:
            raise DataError("one of the two gave no answer", remedy="ask another way, or begin a new conversation")
        return [one for one in given if isinstance(one, str)]

    def _line(self, conversation: str, talk: Talk, choice: Choice) -> Vote:
        champion, challenger = talk.facts
        facts = (champion, challenger) if talk.challenger else (challenger, champion)
        left, right = (Side(answers=said, **which) for said, which in zip(talk.answers, facts, strict=True))
        return Vote(
            messages=feedback.turns(talk.messages),
            annotator=talk.who,
            conversation=conversation,
            left=left,
            right=right,
            challenger="right" if talk.challenger else "left",
            vote=choice,
            counted=self.both.counting(champion["version"], challenger["version"]) is not None,
        )

    def _publish(self, side: Side) -> None:
        """Write all votes on a version into the registry. Where that fails the vote is kept all the
        same, and the next one writes them.
        """
        client, name = self.both.champions.client, self.both.champions.name
        try:
            with self._publishing:
                found = votes.tallies(cast(self.asking.store, side.weights_sha256))
                votes.keep(client, registry.numbered(client, name, side.version), found)
        except Exception as error:  # the boundary: the store has it
            log.warning("the votes on version %s are not in the registry yet: %s", side.version, error)
            log.debug("traceback", exc_info=True)


def outcome(line: Vote) -> Outcome:
    """Return how a vote ended for the challenger."""
    if line.vote in ("tie", "both bad"):
        return line.vote
    return "won" if line.vote == line.challenger else "lost"


def cast(store: Path, weights_sha256: str) -> Iterator[Cast]:
    """Yield the votes on a version, known by its weights; lines that are none are passed over."""
    for _, line in feedback.entries(store):
        if isinstance(line, Vote) and line.sides[1].weights_sha256 == weights_sha256:
            yield Cast(line.annotator, line.sides[0].version, outcome(line), line.counted)
