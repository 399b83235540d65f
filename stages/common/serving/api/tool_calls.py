"""Answers that call tools: the calls a model writes are found in its text, run or handed on, and
their results read.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import NamedTuple

from stages.common.core.records import Record, message
from stages.common.serving.api import moss_commands
from stages.common.serving.api.metrics import Observer
from stages.common.serving.engine.champions import Asked, Champion, Question
from stages.common.serving.engine.grammar import CALLS_AT_MOST, CLOSE, OPEN
from stages.common.serving.engine.requests import Finish, Piece
from stages.common.serving.engine.scores import Score
from stages.common.serving.engine.text import overlap

CALL = re.compile(r"<tool_call>\s*(?:([\w.-]{1,64})\s+)?(\{.*?\})\s*</tool_call>", re.DOTALL)
"""As the project's ChatML writes them, name and arguments, or as Qwen's and Hermes' templates do:
one object of both.
"""
NAME = re.compile(r"[\w.-]{1,64}")


class Call(NamedTuple):
    """A call as the model wrote it, `arguments` as JSON."""

    name: str
    arguments: str


class Ran(NamedTuple):
    """A call, and what the tool said."""

    call: Call
    result: str


@dataclass(frozen=True)
class Step(Piece):
    """A piece beside which tools were run, or whose calls the client is to run (finish
    `tool_calls`).
    """

    ran: tuple[Ran, ...] = ()
    calls: tuple[Call, ...] = ()


@dataclass
class Talk:
    """An answer of several rounds; as `champions.Asked`, with the tokens read in all of them."""

    asked: Asked
    prompt_tokens: int
    cancelled: bool = False

    @property
    def champion(self) -> Champion:
        """Who answers."""
        return self.asked.champion

    @property
    def dropped(self) -> int:
        """How many of the oldest messages are not read."""
        return self.asked.dropped

    def cancel(self) -> None:
        """End the answer at its next token."""
        self.cancelled = True
        self.asked.cancel()

    def follow(self, asked: Asked) -> None:
        """Go on with the next round."""
        self.asked, self.prompt_tokens = asked, self.prompt_tokens + asked.prompt_tokens
        if self.cancelled:  # while the tools were run
            asked.cancel()


Run = Callable[[str, str], str]


async def ask(
    observer: Observer, question: Question, via: str, run: Run | None = None, rounds: int = 0
) -> tuple[Asked | Talk, AsyncIterator[Piece]]:
    """Ask as `Observer.ask`; with `question.tools` the calls are run by `run` in up to `rounds`, or
    without it found.

    `run` takes a tool's name and arguments and returns its result.
    """
    commands = moss_commands.are_asked(question, observer.champions.current.engine.tokenizer)
    asked, pieces = await observer.ask(moss_commands.asking(question) if commands else question, via)
    if question.tools is None:
        return asked, pieces
    talk = Talk(asked, asked.prompt_tokens)
    if commands:
        return talk, _commands_first(observer, question, via, run if rounds else None, talk, pieces)
    return talk, _rounds(observer, question, via, run, rounds, talk, pieces)


async def _commands_first(
    observer: Observer, question: Question, via: str, run: Run | None, talk: Talk, pieces: AsyncIterator[Piece]
) -> AsyncIterator[Piece]:
    """Yield an answer of MOSS: a thought and commands, which are not shown, and with their results
    what it says.
    """
    text, last = "", Piece("", 0)
    async with aclosing(pieces) as open_pieces:  # type: ignore[type-var]  # a generator
        async for last in open_pieces:
            text += last.text
    written = moss_commands.written(text, question.tools or "[]")
    if written is None or last.finish != "stop":
        yield Piece(moss_commands.without_marks(text) if written is None else "", last.tokens, last.finish)
        return
    calls = tuple(Call(*call) for call in written.calls[:CALLS_AT_MOST])
    if calls and run is None:
        yield Step("", last.tokens, "tool_calls", calls=calls)
        return
    ran = tuple([Ran(call, await asyncio.to_thread(run, *call)) for call in calls]) if run else ()
    yield Step("", last.tokens, ran=ran)
    more = turns("", ran, written.thought) if ran else moss_commands.no_results(written.thought)
    asked, pieces = await observer.ask(replace(question, messages=[*question.messages, *more]), via)
    talk.follow(asked)
    async with aclosing(pieces) as open_pieces:  # type: ignore[type-var]  # a generator
        async for piece in open_pieces:
            yield replace(piece, tokens=last.tokens + piece.tokens)


async def _rounds(
    observer: Observer,
    question: Question,
    via: str,
    run: Run | None,
    rounds: int,
    talk: Talk,
    pieces: AsyncIterator[Piece],
) -> AsyncIterator[Piece]:
    before = 0
    for left in range(rounds, -1, -1):
        said, text, last = Said(), "", Piece("", 0)
        scores: tuple[Score, ...] = ()
        async with aclosing(pieces) as open_pieces:  # type: ignore[type-var]  # a generator
            async for last in open_pieces:
                text, scores = said.push(last.text), scores + last.scores
                if text and last.finish is None:
                    yield Piece(text, before + last.tokens, None, scores)
                    scores = ()
        before += last.tokens
        calls = said.calls() if last.finish in ("stop", "length") else ()
        if not calls or talk.cancelled:
            yield Piece(text + said.rest(last.finish), before, last.finish, scores)
            return
        if run is None:
            finish: Finish = "tool_calls" if last.finish == "stop" else "length"
            yield Step(text, before, finish, scores, calls=calls)
            return
        if not left or last.finish == "length":  # as long as may be, and no answer yet
            yield Piece(text, before, "length", scores)
            return
        ran = tuple([Ran(call, await asyncio.to_thread(run, *call)) for call in calls])
        yield Step(text, before, None, scores, ran=ran)
        form = question.form.after_a_call() if question.form else None
        question = replace(question, messages=[*question.messages, *turns(said.shown, ran)], form=form)
        asked, pieces = await observer.ask(question, via)
        talk.follow(asked)


def turns(text: str, ran: tuple[Ran, ...], thought: str | None = None) -> list[Record]:
    """Return the turns that a model reads after its calls were run."""
    calls = [{"name": call.name, "arguments": call.arguments} for call, _ in ran]
    return [message("assistant", text, thought, calls), *(message("tool", result) for _, result in ran)]


def shown(ran: Ran) -> str:
    """Return a call and its result as Markdown that shows them as they are."""
    text = f"{ran.call.name} {ran.call.arguments} -> {ran.result}".replace("`", " ")
    return f"`{' '.join(text.split())}`"


class Said:
    """What a model has said: `shown` before its first call, `held` from there on, for a call is no
    text to read.
    """

    def __init__(self) -> None:
        self.shown, self.held = "", ""

    def push(self, text: str) -> str:
        """Return what of the new text can be shown."""
        self.held += text
        start = self.held.find(OPEN)
        keep = len(self.held) - start if start >= 0 else overlap(self.held, OPEN)
        new, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        self.shown += new
        return new

    def calls(self) -> tuple[Call, ...]:
        """Return the whole calls that were said."""
        found = (_call(name, given) for name, given in CALL.findall(self.held))
        return tuple(call for call in found if call)[:CALLS_AT_MOST]

    def rest(self, finish: Finish | None) -> str:
        """Return what of the held text is to be shown when no call was read in it: what cannot be
        read, but nothing of a call that was not finished.
        """
        if finish != "stop":
            return ""
        closed = self.held.rpartition(CLOSE)
        unfinished = closed[2].find(OPEN)
        return self.held if unfinished < 0 else closed[0] + closed[1] + closed[2][:unfinished]


def _call(name: str, given: str) -> Call | None:
    """Return the call of `name`, or without one the call that the object `given` names itself."""
    if name:
        return Call(name, given)
    try:
        whole = json.loads(given)
    except (ValueError, RecursionError):
        return None
    named, arguments = whole.get("name"), whole.get("arguments", {})
    if not (isinstance(named, str) and NAME.fullmatch(named) and isinstance(arguments, dict)):
        return None
    return Call(named, json.dumps(arguments, ensure_ascii=False))
