"""Beside the chat: an answer as it should have been, and four answers to the last message to be
ranked.
"""

import asyncio
import json
import secrets
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.common.annotation import feedback
from stages.common.annotation.feedback import CHARACTERS_AT_MOST, Edit, Opinion, Ordered
from stages.common.core.records import Record
from stages.common.runtime.errors import DataError
from stages.common.runtime.logs import log
from stages.common.serving.api.metrics import Observer
from stages.common.serving.engine.champions import Question
from stages.common.serving.pages import AT_ONCE, failures, form, inputs
from stages.common.serving.pages.answered import Answered
from stages.common.serving.pages.inputs import Page
from stages.common.text import content_hash, normalisation

ANSWERS = 4
TEMPERATURE = 1.0
"""Of the answers to rank, at first: they are to differ, whatever the chat's own temperature is."""
THANKS = "Kept, thank you."


@dataclass(frozen=True)
class Shown:
    """The answers that wait for their ranks, on the server's side."""

    messages: list[dict[str, str]]
    responses: list[str]
    facts: dict[str, Any]


def opinion(store: Path, answered: Answered, turns: Sequence[Record], index: Any, liked: Any, who: str) -> bool:
    """Keep a like or dislike, or that it was taken back (""); return whether it was answered here:
    else nothing is kept.
    """
    answer = answered.find(turns, index)
    if answer is None:
        log.warning("a like of an answer that was not given here is not kept")
        return False
    said = None if liked == "" else liked in (True, "Like")
    line = Opinion(messages=answer.messages, response=answer.text, liked=said, annotator=who, **answer.facts)
    feedback.append(store, line)
    if said is not None:
        answered.tell(answer.messages, "like" if said else "dislike")
    log.debug(json.dumps({"event": "feedback", "liked": said, "version": answer.facts["version"]}))
    return True


def edit(store: Path, answered: Answered, turns: Sequence[Record], better: str, who: str) -> None:
    """Keep the last answer with a better one. Raises DataError for none, the same, or an answer not
    given here.
    """
    answer = answered.find(turns, len(turns) - 1)
    if answer is None:
        raise DataError("the last turn is no answer that was given here", remedy="ask first")
    if (
        not better.strip()
        or len(better) > CHARACTERS_AT_MOST
        or normalisation.key(better) == normalisation.key(answer.text)
    ):
        raise DataError("that is no other answer", remedy="write how it should have been answered")
    line = Edit(messages=answer.messages, response=answer.text, better=better.strip(), annotator=who, **answer.facts)
    feedback.append(store, line)
    answered.tell(answer.messages, "edit")


def ranks(store: Path, shown: Shown | None, given: Sequence[Any], who: str) -> None:
    """Keep the ranks of the answers shown. Raises DataError when there are none, or one has no
    rank.
    """
    if shown is None:
        raise DataError("there is nothing to rank", remedy="ask for answers first")
    count = len(shown.responses)
    found = [rank for rank in given[:count] if type(rank) is int and 1 <= rank <= count]
    if len(found) < count:
        raise DataError(f"every answer needs a rank from 1 to {count}; ties are allowed")
    line = Ordered(messages=shown.messages, responses=shown.responses, ranks=found, annotator=who, **shown.facts)
    feedback.append(store, line)


async def answers(observer: Observer, question: Question) -> Shown:
    """Return different answers to a question, in chance's order; an empty one cannot be ranked and
    is left out. Raises DataError when fewer than two are left.
    """

    async def one() -> tuple[str, dict[str, Any]]:
        seeded = replace(question, sampling=replace(question.sampling, seed=secrets.randbits(62)))
        asked, pieces = await observer.ask(seeded, "page")
        async with aclosing(pieces) as open_pieces:  # type: ignore[type-var]  # a generator
            return "".join([piece.text async for piece in open_pieces]), asked.champion.facts()

    given = await asyncio.gather(*(one() for _ in range(ANSWERS)))
    different = list({normalisation.key(text): text for text, _ in given if text.strip()}.values())
    if len(different) < 2:
        raise DataError("all answers are the same, or empty", remedy="raise the temperature, or ask something else")
    return Shown(feedback.turns(question.messages), different, given[0][1])


def add(observer: Observer, page: Page, answered: Answered, chatbot: Any, settings: Sequence[Any]) -> None:
    """Add both tabs of the side panel."""
    import gradio

    with gradio.Tab("Improve"):
        _add_edit(page.feedback, answered, chatbot)
    with gradio.Tab("Rank"):
        _add_ranks(observer, page, chatbot, settings)


def _add_edit(store: Path, answered: Answered, chatbot: Any) -> None:
    import gradio

    gradio.Markdown("How should the last answer have been? What you write is kept for training.")
    take = gradio.Button("Begin with the answer", size="sm")
    better = gradio.Textbox(
        label="How it should have been answered", lines=6, max_lines=20, max_length=CHARACTERS_AT_MOST
    )
    save = gradio.Button("Keep the better answer", variant="primary", size="sm")
    kept = gradio.Markdown("", elem_id="edit-kept")

    def last(history: list[Record]) -> str:
        answer = answered.find(inputs.turns(history), len(history) - 1)
        return answer.text if answer else ""

    def keep(history: list[Record], text: str, request: gradio.Request) -> str:
        with failures.noted("keeping an edit") as failed:
            edit(store, answered, inputs.turns(history), text, visit(request.session_hash))
        return failed.text or THANKS

    take.click(last, chatbot, better, **AT_ONCE)
    save.click(keep, [chatbot, better], kept, **AT_ONCE)


def _add_ranks(observer: Observer, page: Page, chatbot: Any, settings: Sequence[Any]) -> None:
    import gradio

    gradio.Markdown("Four answers to the last message, drawn by chance: which is the best?")
    temperature = gradio.Slider(0.05, 2, value=TEMPERATURE, step=0.05, label="Temperature of the four answers")
    more = gradio.Button("Ask for four answers", variant="primary", size="sm")
    ranking, held = form.build(ANSWERS, False, "Keep the ranks"), gradio.State(None, time_to_live=3600)
    ranked = gradio.Markdown("", elem_id="ranks-kept")
    outputs = [held, ranked, *ranking.outputs]

    def after(shown: Shown | None, said: str) -> dict[Any, Any]:
        updates = form.showing(shown.responses if shown else [], ANSWERS, False)
        return dict(zip(outputs, [shown, said, *updates], strict=True))

    async def show(history: list[Record], temperature: float, *given: Any) -> dict[Any, Any]:
        with failures.noted("answering four times") as failed:
            return after(await answers(observer, inputs.of_last_message(page, history, given, temperature)), "")
        return {ranked: failed.text}

    def keep_ranks(shown: Shown | None, request: gradio.Request, *given: Any) -> dict[Any, Any]:
        with failures.noted("keeping ranks") as failed:
            ranks(page.feedback, shown, given, visit(request.session_hash))
            return after(None, THANKS)
        return {ranked: failed.text}

    more.click(show, [chatbot, temperature, *settings], outputs, **AT_ONCE)
    ranking.save.click(keep_ranks, [held, *ranking.ranks], outputs, **AT_ONCE)


def visit(session: str | None) -> str:
    """Return a name for one visit of the page that says nothing of the visitor."""
    return f"visit-{content_hash.digest(session).hex()[:12]}"
