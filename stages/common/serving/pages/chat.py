"""The chat page: the conversation, and beside it what people say of answers, a library of prompts
and every way to decode; and /annotate.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.serving.api.metrics import Observer
from stages.common.serving.challenger.contested import Contested
from stages.common.serving.pages import (
    AT_ONCE,
    LOOK_SECONDS,
    compare,
    conversation,
    form,
    improve,
    inputs,
    sign_in,
)
from stages.common.serving.pages.answered import Answered
from stages.common.serving.pages.conversation import Parts
from stages.common.serving.pages.inputs import Page

if TYPE_CHECKING:
    from fastapi import FastAPI

SCRIPT, STYLE = Path(__file__).with_name("chat.js"), Path(__file__).with_name("chat.css")
PANEL_WIDTH = 380


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
            theme=gradio.themes.Default(
                primary_hue="indigo",
                neutral_hue="slate",
                font=["system-ui", "sans-serif"],
                font_mono=["ui-monospace", "monospace"],
            ),
            css=form.CSS + sign_in.STYLE + compare.STYLE + STYLE.read_text(encoding="utf-8"),
            js=form.KEYS.read_text(encoding="utf-8"),
            head=f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>",
        )


def _blocks(observer: Observer, page: Page) -> Any:
    import gradio
    from gradio.components.navbar import Navbar

    champions = observer.champions
    answered = Answered(champions.told if isinstance(champions, Contested) else None)

    def version() -> str:
        facts = champions.current.facts()
        return f"Version {facts['version']} of {facts['model']}, weights {facts['weights_sha256'][:12]}"

    with gradio.Blocks(title=champions.name, analytics_enabled=False, fill_height=True, fill_width=True) as blocks:
        Navbar(main_page_name="Chat")
        parts = conversation.build(champions.name, page, version())
        with gradio.Sidebar(position="right", width=PANEL_WIDTH, elem_id="panel") as panel, gradio.Tabs():
            improve.add(observer, page, answered, parts.turns, parts.settings)
            _add_library(parts)
            with gradio.Tab("Settings"):
                for one in parts.settings:
                    one.render()
        conversation.wire(blocks, parts, panel, conversation.responder(observer, page, answered, version))
        conversation.wire_likes(parts, page, answered)
        blocks.load(version, None, parts.version, **AT_ONCE)
    with blocks.route("Annotate", "/annotate"):
        sign_in.add(blocks, observer, page)
    queue = blocks.queue(max_size=champions.waiting, default_concurrency_limit=champions.rows)._queue
    queue.sleep_when_free, queue.progress_update_sleep_when_free = LOOK_SECONDS
    return blocks


def _add_library(parts: Parts) -> None:
    import gradio

    with gradio.Tab("Library"):
        gradio.Markdown("A prompt fills the message and the system prompt.")
        for one in inputs.LIBRARY:
            button = gradio.Button(one.name, size="sm", elem_classes="entry")
            js = f"() => lathe.fill({json.dumps([one.text, one.system])})"
            button.click(None, None, [parts.message, parts.settings[0]], js=js, show_progress="hidden")
