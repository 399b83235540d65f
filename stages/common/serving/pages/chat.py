"""The chat as a Gradio page: streaming, every way to decode, token counts, a library of prompts;
and /annotate.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from stages.common.annotation.feedback import CHARACTERS_AT_MOST
from stages.common.core.records import Record
from stages.common.serving.api import tool_calls
from stages.common.serving.api.metrics import Observer
from stages.common.serving.api.tool_calls import Ran, Step, Talk
from stages.common.serving.engine.champions import Asked
from stages.common.serving.pages import AT_ONCE, LOOK_SECONDS, annotate, check_records, failures, form, improve, inputs
from stages.common.serving.pages.answered import Answered
from stages.common.serving.pages.inputs import Page, turns

if TYPE_CHECKING:
    from fastapi import FastAPI


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

    def champion() -> str:
        facts = observer.champions.current.facts()
        return f"Version {facts['version']} of {facts['model']}, weights {facts['weights_sha256'][:12]}"

    with gradio.Blocks(title=name, analytics_enabled=False, fill_height=True) as blocks:
        gradio.Markdown(f"# {name}")
        version = gradio.Markdown(champion(), elem_id="version")
        system, *others = inputs.components(page)
        counts = gradio.Markdown("", elem_id="counts", render=False)
        chat = _conversation(name, _responder(observer, page, answered), [system, *others], counts, page.examples)
        counts.render()
        problem = gradio.Markdown("", elem_id="problem")
        improve.add(
            observer,
            page.feedback,
            answered,
            chat.chatbot,
            [system, *others],
            turns,
            lambda history, settings: inputs.of_last_message(page, history, settings),
        )
        library = gradio.Dropdown([one.name for one in inputs.LIBRARY], value=None, label="Prompt library")
        library.input(inputs.from_library, library, [chat.textbox, system], **AT_ONCE)
        chat.chatbot.like(_liker(page, answered), chat.chatbot, problem, **AT_ONCE)
        blocks.load(champion, None, version, **AT_ONCE)
    with blocks.route("Annotate", "/annotate"):
        annotate.add(blocks, annotate.Desk(page.samples, page.annotations, page.feedback, page.wanted))
        check_records.add(check_records.Desk(page.extracted, page.reviews))
    champions = observer.champions
    queue = blocks.queue(max_size=champions.waiting, default_concurrency_limit=champions.rows)._queue
    queue.sleep_when_free, queue.progress_update_sleep_when_free = LOOK_SECONDS
    return blocks


def _responder(observer: Observer, page: Page, answered: Answered) -> Callable[..., AsyncIterator[tuple[str, str]]]:
    async def respond(text: str, history: list[Record], *settings: Any) -> AsyncIterator[tuple[str, str]]:
        """Answer the last message of a conversation; beside it, what it took."""
        said, asked = "", None
        ran: list[Ran] = []
        with failures.shown("an answer"):
            question = inputs.question(page, text, history, *settings)
            run = partial(page.tools.run, allowed=settings[-1])
            try:
                asked, pieces = await tool_calls.ask(observer, question, "page", run, page.tool_rounds)
                async with aclosing(pieces) as open_pieces:  # type: ignore[type-var]  # a generator
                    async for piece in open_pieces:
                        said += piece.text
                        ran += piece.ran if isinstance(piece, Step) else ()
                        yield said, _counts(asked, piece.tokens, ran)
            finally:
                if asked:
                    answered.note(question.messages, said, asked.champion.facts())

    return respond


def _liker(page: Page, answered: Answered) -> Callable[..., str]:
    import gradio

    def like(data: gradio.LikeData, history: list[Record], request: gradio.Request) -> str:
        """Keep a like or dislike of an answer that was given here."""
        who = improve.visit(request.session_hash)
        with failures.noted("keeping a like") as failed:
            improve.opinion(page.feedback, answered, turns(history), data.index, data.liked, who)
        return failed.text

    return like


def _conversation(
    name: str, respond: Callable[..., Any], settings: Sequence[Any], counts: Any, examples: Sequence[str]
) -> Any:
    import gradio

    return gradio.ChatInterface(
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
        additional_inputs=list(settings),
        additional_inputs_accordion=gradio.Accordion("Settings", open=False, render=False),
        additional_outputs=[counts],
        examples=[[text] for text in examples],
        cache_examples=False,
        flagging_mode="never",
        analytics_enabled=False,
        api_name="chat",
    )


def _counts(asked: Asked | Talk, tokens: int, ran: Sequence[Ran] = ()) -> str:
    parts = [tool_calls.shown(one) for one in ran]
    parts += [f"{asked.prompt_tokens} tokens read, {tokens} written, version {asked.champion.version.number}"]
    if asked.dropped:
        parts.append(f"the oldest {asked.dropped} messages no longer fit and were not read")
    return "; ".join(parts)
