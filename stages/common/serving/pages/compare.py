"""The tab of /annotate where people ask champion and challenger the same and say which is better,
before they are told which was which.
"""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from stages.common.annotation.feedback import CHARACTERS_AT_MOST, Choice, Vote
from stages.common.core.records import Record
from stages.common.runtime.errors import DataError, StageError
from stages.common.serving.api.metrics import Observer
from stages.common.serving.challenger import both
from stages.common.serving.challenger.side_by_side import Asking, Desk
from stages.common.serving.pages import AT_ONCE, Room, failures
from stages.common.serving.pages.inputs import Page

STORE = "votes.jsonl"
STYLE = """
.side { height: 40vh; overflow-y: auto; }
.side p { white-space: pre-wrap; overflow-wrap: anywhere; padding: 8px 12px; border-radius: 8px; }
.side .user { margin-left: 20%; background: var(--background-fill-secondary); }
"""
HELP = (
    "Two models answer what you ask, each in a conversation of its own. Say which is better, after one answer or "
    "several: then you are told which was which, and the next message begins anew. A vote after one answer is kept "
    "for training too."
)
NOBODY = f"No version waits beside the champion. {both.HOW} (not with `deploy.backend` set to another server)."
BUTTONS: dict[Choice, str] = {
    "left": "Left is better",
    "right": "Right is better",
    "tie": "Both are equally good",
    "both bad": "Both are bad",
}


@dataclass(frozen=True)
class Seat:
    """Who sits here, and at which conversation; kept on the server's side."""

    who: str
    conversation: str = ""


class _Parts(NamedTuple):
    """The tab's components."""

    seat: Any
    said: Any
    left: Any
    right: Any
    message: Any
    send: Any
    fresh: Any
    votes: dict[Choice, Any]

    @property
    def outputs(self) -> list[Any]:
        """What an action may change."""
        return [self.seat, self.said, self.left, self.right, self.message, self.send, self.fresh, *self.votes.values()]

    def showing(self, seat: Seat, said: str, turns: tuple[list[Record], list[Record]]) -> dict[Any, Any]:
        """Return what there is to see of a conversation that goes on, or of a new one."""
        import gradio

        left, right = map(written, turns)
        shown = {self.seat: seat, self.said: said, self.left: left, self.right: right}
        return shown | self.pressed(bool(turns[0])) | {self.message: gradio.update(value="", interactive=True)}

    def pressed(self, votes: bool) -> dict[Any, Any]:
        """Return the buttons, those for votes only where there is something to vote on."""
        import gradio

        always = {one: gradio.update(interactive=True) for one in (self.message, self.send, self.fresh)}
        return always | {one: gradio.update(interactive=votes) for one in self.votes.values()}


def _parts() -> _Parts:
    import gradio

    def side(name: str) -> Any:
        return gradio.HTML("", label=name, show_label=True, container=True, elem_id=f"side-{name.lower()}")

    with gradio.Tab("Side by side"):
        seat = gradio.State(None)
        gradio.Markdown(HELP)
        with gradio.Row():
            left, right = side("Left"), side("Right")
        said = gradio.Markdown("", elem_id="side-said")
        with gradio.Row():
            votes = {
                choice: gradio.Button(name, interactive=False, elem_classes="vote") for choice, name in BUTTONS.items()
            }
        message = gradio.Textbox(
            label="Message to both", lines=2, max_lines=10, max_length=CHARACTERS_AT_MOST, interactive=False
        )
        with gradio.Row():
            send = gradio.Button("Ask both", variant="primary", interactive=False)
            fresh = gradio.Button("New conversation without a vote", size="md", interactive=False)
    return _Parts(seat, said, left, right, message, send, fresh, votes)


def add(observer: Observer, page: Page) -> Room:
    """Add the tab to the page that is open."""
    import gradio

    store = page.feedback.with_name(STORE)
    desk = Desk(observer, Asking(page.system_prompt, page.temperature, page.max_new_tokens, store))
    parts = _parts()

    def enter(person: str, _: Any) -> dict[Any, Any] | None:
        try:
            desk.both.version()
        except StageError:
            return None
        return parts.showing(Seat(person), "", ([], []))

    async def ask(seat: Seat | None, text: str) -> dict[Any, Any]:
        with failures.noted("answering side by side") as failed:
            sits = _seated(seat)
            conversation, talk = await desk.say(sits.who, sits.conversation, str(text or ""))
            turns = talk.history(0), talk.history(1)
            return parts.showing(replace(sits, conversation=conversation), "", turns)
        return {parts.said: f"**{failed.text}**"}

    def vote(choice: Choice, seat: Seat | None) -> dict[Any, Any]:
        with failures.noted("keeping a vote") as failed:
            sits = _seated(seat)
            line = desk.vote(sits.conversation, choice)
            return {parts.seat: Seat(sits.who), parts.said: revealed(line)} | parts.pressed(False)
        return {parts.said: f"**{failed.text}**"}

    def begin(seat: Seat | None) -> dict[Any, Any]:
        with failures.noted("beginning a conversation") as failed:
            return parts.showing(Seat(_seated(seat).who), "", ([], []))
        return {parts.said: f"**{failed.text}**"}

    outputs = parts.outputs
    asks: list[Callable[..., Any]] = [parts.send.click, parts.message.submit]
    gradio.on(asks, ask, [parts.seat, parts.message], outputs, **AT_ONCE)
    for choice, button in parts.votes.items():
        button.click(partial(vote, choice), parts.seat, outputs, **AT_ONCE)
    parts.fresh.click(begin, parts.seat, outputs, **AT_ONCE)
    return Room(outputs, enter, {parts.said: NOBODY})


def written(turns: Sequence[Record]) -> str:
    """Return a side's conversation as HTML: plain text, in which no model is preferred for bold
    letters.
    """
    said = ((one["role"], html.escape(one["content"]) or "<i>(no word)</i>") for one in turns)
    return f'<div class="side">{"".join(f"""<p class="{role}">{text}</p>""" for role, text in said)}</div>'


def revealed(line: Vote) -> str:
    """Return which was which."""
    other = "right" if line.challenger == "left" else "left"
    champion, challenger = line.sides
    return (
        f"Kept, thank you. **{line.challenger.capitalize()}** was version {challenger.version}, the challenger; "
        f"**{other}** was version {champion.version}, the champion. Your next message begins a new conversation."
    )


def _seated(seat: Seat | None) -> Seat:
    if seat is None:
        raise DataError("type your name first", remedy="load the page again, and begin")
    return seat
