"""The chat as a Gradio page: streaming, every way to decode, token counts, a library of prompts; and /annotate."""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.errors import DataError
from stages.common.records import Record
from stages.common.sampling import Sampling
from stages.common.serving import calling
from stages.common.serving.answered import Answered
from stages.common.serving.api_types import BEAMS_AT_MOST, CHARACTERS_AT_MOST
from stages.common.serving.calling import Ran, Step, Talk
from stages.common.serving.champions import Asked, Question
from stages.common.serving.library import LIBRARY
from stages.common.serving.observing import Observer
from stages.common.serving.pages import AT_ONCE, LOOK_SECONDS, annotate, failures, form, improve
from stages.common.serving.pages.turns import conversation, turns
from stages.common.serving.tools import Tools
from stages.common.worth import Wanted

if TYPE_CHECKING:
    from fastapi import FastAPI

SAMPLING, GREEDY, BEAM = "sampling", "greedy", "beam search"


@dataclass(frozen=True)
class Page:
    """What the page offers."""

    system_prompt: str
    temperature: float
    max_new_tokens: int
    examples: tuple[str, ...]
    feedback: Path
    """The store of what people say of answers."""
    samples: Path = Path("data/samples")
    """The answers of each round, for people to rank, as dvc.yaml lays them out; below, where their ranks go."""
    annotations: Path = Path("data/annotations")
    wanted: Wanted = field(default_factory=Wanted)
    """Which of the samples are to be ranked."""
    tools: Tools = field(default_factory=lambda: Tools((), Path()))
    """What the model may have done for it, where one asks for that."""
    tool_rounds: int = 4
    """How often, for one answer."""


def mount(app: "FastAPI", observer: Observer, page: Page) -> None:
    """Add the page to `app` at `/`."""
    import warnings

    import gradio

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "SSR mode")  # said of every app of two pages, also of one without it
        gradio.mount_gradio_app(
            app,
            _blocks(observer, page),
            path="/",
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=False,
            show_error=True,
            max_file_size="1kb",
            app_kwargs={"openapi_url": None},
            # its default theme fetches fonts from another site
            theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=form.CSS,
            js=form.KEYS.read_text(encoding="utf-8"),
        )


def _blocks(observer: Observer, page: Page) -> Any:
    import gradio

    name, answered = observer.champions.name, Answered()

    async def respond(text: str, history: list[Record], *settings: Any) -> AsyncIterator[tuple[str, str]]:
        """Answer the last message of a conversation; beside it, what it took."""
        said, asked = "", None
        ran: list[Ran] = []
        with failures.shown("an answer"):
            question, run = _question(page, text, history, *settings), partial(page.tools.run, allowed=settings[-1])
            try:
                asked, pieces = await calling.ask(observer, question, "page", run, page.tool_rounds)
                async with aclosing(pieces) as open_pieces:  # type: ignore[type-var]  # a generator
                    async for piece in open_pieces:
                        said += piece.text
                        ran += piece.ran if isinstance(piece, Step) else ()
                        yield said, _counts(asked, piece.tokens, ran)
            finally:
                if asked:
                    answered.note(question.messages, said, asked.champion.facts())

    def like(data: gradio.LikeData, history: list[Record], request: gradio.Request) -> str:
        """Keep a like or dislike of an answer that was given here."""
        who = improve.visit(request.session_hash)
        with failures.noted("keeping a like") as failed:
            improve.opinion(page.feedback, answered, turns(history), data.index, data.liked, who)
        return failed.text

    def champion() -> str:
        facts = observer.champions.current.facts()
        return f"Version {facts['version']} of {facts['model']}, weights {facts['weights_sha256'][:12]}"

    with gradio.Blocks(title=name, analytics_enabled=False, fill_height=True) as blocks:
        gradio.Markdown(f"# {name}")
        version = gradio.Markdown(champion(), elem_id="version")
        system, *others = _settings(page)
        counts = gradio.Markdown("", elem_id="counts", render=False)
        chat = gradio.ChatInterface(
            respond,
            chatbot=gradio.Chatbot(
                label=name,
                scale=1,
                allow_tags=False,
                sanitize_html=True,
                feedback_options=("Like", "Dislike"),
                buttons=["copy"],
            ),
            textbox=gradio.Textbox(
                label="Message",
                show_label=False,
                placeholder="Type a message...",
                container=False,
                elem_id="message",
                max_length=CHARACTERS_AT_MOST,
                submit_btn=True,
                stop_btn=True,
            ),
            additional_inputs=[system, *others],
            additional_inputs_accordion=gradio.Accordion("Settings", open=False, render=False),
            additional_outputs=[counts],
            examples=[[text] for text in page.examples],
            cache_examples=False,
            flagging_mode="never",
            analytics_enabled=False,
            api_name="chat",
        )
        counts.render()
        problem = gradio.Markdown("", elem_id="problem")
        improve.add(
            observer,
            page.feedback,
            answered,
            chat.chatbot,
            [system, *others],
            turns,
            lambda history, settings: _of_last_message(page, history, settings),
        )
        library = gradio.Dropdown([one.name for one in LIBRARY], value=None, label="Prompt library")
        library.input(_from_library, library, [chat.textbox, system], **AT_ONCE)
        chat.chatbot.like(like, chat.chatbot, problem, **AT_ONCE)
        blocks.load(champion, None, version, **AT_ONCE)
    with blocks.route("Annotate", "/annotate"):
        annotate.add(blocks, annotate.Desk(page.samples, page.annotations, page.feedback, page.wanted))
    champions = observer.champions
    queue = blocks.queue(max_size=champions.waiting, default_concurrency_limit=champions.rows)._queue
    queue.sleep_when_free, queue.progress_update_sleep_when_free = LOOK_SECONDS
    return blocks


def _settings(page: Page) -> list[Any]:
    """Return the inputs beside the message, system prompt first, in the order `_question` takes them."""
    import gradio

    first = SAMPLING if page.temperature else GREEDY
    return [
        gradio.Textbox(page.system_prompt, label="System prompt", lines=2, max_length=2000, render=False),
        gradio.Radio([SAMPLING, GREEDY, BEAM], value=first, label="Decoding", render=False),
        gradio.Slider(0.05, 2, value=page.temperature or 1, step=0.05, label="Temperature (sampling)", render=False),
        gradio.Slider(0.05, 1, value=1, step=0.05, label="Top-p (sampling)", render=False),
        gradio.Slider(2, BEAMS_AT_MOST, value=4, step=1, label="Beams (beam search)", render=False),
        gradio.Slider(1, 2, value=1, step=0.05, label="Repetition penalty", render=False),
        gradio.Slider(
            1, page.max_new_tokens, value=page.max_new_tokens, step=1, label="Longest answer (tokens)", render=False
        ),
        gradio.CheckboxGroup(
            list(page.tools.names), value=[], label="Tools", visible=bool(page.tools.names), render=False
        ),
    ]


def _question(
    page: Page,
    text: str,
    history: list[Record],
    system: str,
    decoding: str,
    temperature: float,
    top_p: float,
    beams: float,
    penalty: float,
    longest: float,
    tools: Sequence[str] = (),
) -> Question:
    """Return what the page asks; no setting goes beyond its slider, whatever a client sends."""
    is_sampled = decoding == SAMPLING
    sampling = Sampling(
        temperature=_within(temperature, 0.05, 2.0) if is_sampled else 0.0,
        top_p=_within(top_p, 0.05, 1.0) if is_sampled else 1.0,
        repetition_penalty=_within(penalty, 1.0, 2.0),
        seed=secrets.randbits(62),
    )
    return Question(
        conversation(text[:CHARACTERS_AT_MOST], history, system),
        int(_within(longest, 1, page.max_new_tokens)),
        sampling,
        beams=int(_within(beams, 2, BEAMS_AT_MOST)) if decoding == BEAM else 1,
        tools=page.tools.schemas(tools) if tools else None,
    )


def _within(value: float, low: float, high: float) -> float:
    return min(max(float(value), low), high)


def _counts(asked: Asked | Talk, tokens: int, ran: Sequence[Ran] = ()) -> str:
    parts = [calling.shown(one) for one in ran]
    parts += [f"{asked.prompt_tokens} tokens read, {tokens} written, version {asked.champion.version.number}"]
    if asked.dropped:
        parts.append(f"the oldest {asked.dropped} messages no longer fit and were not read")
    return "; ".join(parts)


def _from_library(name: str) -> tuple[str, str]:
    found = next(one for one in LIBRARY if one.name == name)
    return found.text, found.system


def _of_last_message(page: Page, history: list[Record], settings: Sequence[Any]) -> Question:
    """Return the last message of the page, to be answered by chance whatever the settings. Raises DataError."""
    last = next((at for at in reversed(range(len(history))) if history[at]["role"] == "user"), None)
    if last is None:
        raise DataError("there is no message yet", remedy="ask something first")
    system, _, *others, _ = settings
    text = conversation("", history, "")[last]["content"]
    return _question(page, text, history[:last], system, SAMPLING, *others)
