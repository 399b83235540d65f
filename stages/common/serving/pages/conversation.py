"""The conversation on the chat page: its components, how a message is answered, and what failed as
text of it.

The page's state is the browser's: chat.js keeps conversations and drafts, so that a reload, a
refusal and a lost server lose nothing that was typed.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple

from stages.common.annotation.feedback import CHARACTERS_AT_MOST
from stages.common.core.records import Record
from stages.common.serving.api import tool_calls
from stages.common.serving.api.metrics import Observer
from stages.common.serving.api.tool_calls import Ran, Step, Talk
from stages.common.serving.engine.champions import Asked
from stages.common.serving.pages import AT_ONCE, failures, improve, inputs
from stages.common.serving.pages.answered import Answered
from stages.common.serving.pages.improve import THANKS
from stages.common.serving.pages.inputs import Page

GONE = "This answer was given before the server began: what you say of it cannot be kept."
Respond = Callable[..., AsyncIterator[tuple[list[Record], str, str]]]


class Parts(NamedTuple):
    """The page's components; `settings` in the order `inputs.question` takes them."""

    chats: Any
    conversations: Any
    fresh: Any
    remove: Any
    version: Any
    turns: Any
    message: Any
    counts: Any
    settings: Sequence[Any]

    @property
    def place(self) -> list[Any]:
        """What chat.js reads."""
        return [self.turns, self.message]

    @property
    def shown(self) -> list[Any]:
        """What chat.js changes."""
        return [self.turns, self.message, self.conversations]


def build(name: str, page: Page, version: str) -> Parts:
    """Add the conversations at the left and the open one in the middle; the settings are rendered
    elsewhere.
    """
    import gradio

    with gradio.Sidebar(width=260, elem_id="chats") as chats:
        fresh = gradio.Button("＋ New chat", elem_id="fresh", size="md")
        conversations = gradio.Radio(
            [], label="Kept in this browser alone", elem_id="conversations", elem_classes="entries"
        )
        remove = gradio.Button("Delete this chat", size="sm", elem_id="remove")
        gradio.Markdown("[Annotate a round](annotate)", elem_id="annotate")
    with gradio.Column(elem_id="middle", scale=1):
        shown = gradio.Markdown(version, elem_id="version")
        turns = gradio.Chatbot(
            label=name,
            show_label=False,
            scale=1,
            elem_id="turns",
            allow_tags=False,
            sanitize_html=True,
            editable="user",
            feedback_options=("Like", "Dislike"),
            buttons=["copy"],
            placeholder=f"### Ask {name} something",
            examples=[{"text": text} for text in page.examples],
        )
        message = gradio.Textbox(
            label="Message",
            show_label=False,
            placeholder="Type a message; Enter sends it, Shift+Enter begins a line",
            container=False,
            elem_id="message",
            max_lines=6,
            max_length=CHARACTERS_AT_MOST,
            submit_btn=True,
            autofocus=True,
        )
        counts = gradio.Markdown("", elem_id="counts")
    return Parts(chats, conversations, fresh, remove, shown, turns, message, counts, inputs.components(page))


def wire(blocks: Any, parts: Parts, panel: Any, respond: Respond) -> None:
    """Connect what a person does with the answer to it."""
    hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def in_browser(event: Callable[..., Any], call: str, given: Sequence[Any] = (), **more: Any) -> Any:
        """Let chat.js handle it: no server is asked."""
        names = ", ".join(f"v{at}" for at in range(2 + len(given)))
        js = f"({names}) => lathe.{call.replace('…', names)}"
        return event(None, [*parts.place, *given], parts.shown, js=js, **hidden, **more)

    answers = []

    def answering(begun: Any, **api: Any) -> None:
        outputs = [parts.turns, parts.counts, parts.version]
        settings = hidden | {"show_progress_on": parts.counts} | api
        answer = begun.success(respond, [parts.turns, *parts.settings], outputs, **settings)
        in_browser(answer.success, "end(…, false)")
        in_browser(answer.failure, "end(…, true)")
        answers.append(answer)

    def through_server(event: Callable[..., Any], fn: Callable[..., Any]) -> None:
        """What only the server is told: which example, or which message was edited and how."""
        told = event(fn, parts.turns, parts.turns, show_progress="hidden", **AT_ONCE)
        in_browser(told.failure, "refused(…)")
        answering(in_browser(told.success, "begin(…)"))

    answering(in_browser(parts.message.submit, "send(…)"), api_name="chat", api_visibility="public")
    answering(in_browser(parts.turns.retry, "again(…)"))
    edited, example = _told()
    through_server(parts.turns.edit, edited)
    through_server(parts.turns.example_select, example)
    parts.message.stop(None, None, None, cancels=answers, **hidden)
    in_browser(parts.fresh.click, "fresh(…)", cancels=answers)
    in_browser(parts.conversations.input, "open(…)", [parts.conversations], cancels=answers)
    in_browser(parts.remove.click, "remove(…)", cancels=answers)
    blocks.load(None, None, [*parts.shown, parts.chats, panel], js="() => lathe.load()", **hidden)


def responder(observer: Observer, page: Page, answered: Answered, version: Callable[[], str]) -> Respond:
    """Return what answers the last message of a page's turns."""

    async def respond(turns: list[Record], *settings: Any) -> AsyncIterator[tuple[list[Record], str, str]]:
        """Answer the last message of a conversation; beside it, what it took and who answers. What
        fails is the last turn.
        """
        if not turns or turns[-1]["role"] != "user":
            yield turns, "", version()
            return
        said, counts, asked = "", "", None
        ran: list[Ran] = []
        with failures.noted("an answer") as failed:
            question = inputs.question(page, inputs.last(turns), turns[:-1], *settings)
            run = partial(page.tools.run, allowed=settings[-1])
            try:
                asked, pieces = await tool_calls.ask(observer, question, "page", run, page.tool_rounds)
                async with aclosing(pieces) as open_pieces:  # type: ignore[type-var]  # a generator
                    async for piece in open_pieces:
                        said += piece.text
                        ran += piece.ran if isinstance(piece, Step) else ()
                        counts = _counts(asked, piece.tokens, ran)
                        yield [*turns, inputs.turn("assistant", said)], counts, version()
            finally:
                if asked:
                    answered.note(question.messages, said, asked.champion.facts())
        if failed.text:
            partly = [inputs.turn("assistant", said)] if said else []
            yield [*turns, *partly, inputs.problem(failed.text)], counts, version()

    return respond


def wire_likes(parts: Parts, page: Page, answered: Answered) -> None:
    """Connect the thumbs with the store."""
    import gradio

    def like(data: gradio.LikeData, history: list[Record], request: gradio.Request) -> str:
        """Keep a like or dislike of an answer that was given here."""
        who = improve.visit(request.session_hash)
        with failures.noted("keeping a like") as failed:
            kept = improve.opinion(page.feedback, answered, inputs.turns(history), data.index, data.liked, who)
            return THANKS if kept else GONE
        return failed.text

    parts.turns.like(like, parts.turns, parts.counts, show_progress="hidden", **AT_ONCE)


def _told() -> tuple[Callable[..., list[Record]], Callable[..., list[Record]]]:
    import gradio

    def edited(turns: list[Record], data: gradio.EditData) -> list[Record]:
        """Return the turns up to a message that was edited, and that as it is now."""
        at = data.index[0] if isinstance(data.index, list | tuple) else data.index
        if not isinstance(at, int) or not 0 <= at < len(turns) or not str(data.value).strip():
            return turns
        return [*turns[:at], inputs.turn("user", str(data.value).strip())]

    def example(turns: list[Record], data: gradio.SelectData) -> list[Record]:
        """Return the turns with an example asked."""
        asked = data.value.get("text", "") if isinstance(data.value, dict) else ""
        return [*turns, inputs.turn("user", str(asked))] if asked else turns

    return edited, example


def _counts(asked: Asked | Talk, tokens: int, ran: Sequence[Ran] = ()) -> str:
    parts = [tool_calls.shown(one) for one in ran]
    parts += [f"{asked.prompt_tokens} tokens read, {tokens} written, version {asked.champion.version.number}"]
    if asked.dropped:
        parts.append(f"the oldest {asked.dropped} messages no longer fit and were not read")
    return "; ".join(parts)
