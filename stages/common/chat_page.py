"""The chat as one web app: a Gradio page at `/`, /healthz and /readyz, closed to other sites.

Gradio checks neither Host nor Origin, so a page elsewhere could talk to a chat on loopback: both are checked here.
"""

import errno
import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stages.common.errors import ParamsError, StageError, TryAgainError
from stages.common.journal import log
from stages.common.records import Record, message

if TYPE_CHECKING:
    from fastapi import FastAPI

Answer = Callable[[list[Record], float, int], Iterator[str]]
LOOPBACK = ("127.0.0.1", "localhost")
ANSWERS_AT_ONCE = 2
WAITING_AT_MOST = 32


@dataclass(frozen=True)
class Page:
    """What the page says and offers."""

    title: str
    description: str
    system_prompt: str
    temperature: float
    max_new_tokens: int
    examples: tuple[str, ...]
    facts: dict[str, str]
    """What /readyz answers: which model this is."""


def build(answer: Answer, page: Page, hosts: list[str]) -> "FastAPI":
    """Return the app; it answers only requests whose Host is in `hosts` and that come from its own pages."""
    import gradio
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(title=page.title, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/healthz", lambda: {"status": "ok"})
    app.add_api_route("/readyz", lambda: {"status": "ready"} | page.facts)
    gradio.mount_gradio_app(
        app,
        _blocks(answer, page),
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
    )
    app.add_middleware(SameOrigin)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    return app


def _blocks(answer: Answer, page: Page) -> Any:
    import gradio

    def respond(
        text: str, history: list[Record], system_prompt: str, temperature: float, max_new_tokens: float
    ) -> Iterator[str]:
        """Answer the last message of a conversation."""
        limit = min(int(max_new_tokens), page.max_new_tokens)
        said = ""
        try:
            for piece in answer(conversation(text, history, system_prompt), min(max(temperature, 0.0), 2.0), limit):
                said += piece
                yield said
        except StageError as error:
            raise gradio.Error(str(error), print_exception=False) from error

    with gradio.Blocks(title=page.title, analytics_enabled=False, fill_height=True) as blocks:
        gradio.ChatInterface(
            respond,
            title=page.title,
            description=page.description,
            chatbot=gradio.Chatbot(
                label=page.title, scale=1, allow_tags=False, feedback_options=None, buttons=["copy"]
            ),
            additional_inputs=[
                gradio.Textbox(page.system_prompt, label="System prompt", lines=2, max_length=2000),
                gradio.Slider(0, 2, value=page.temperature, step=0.05, label="Temperature (0 = always the likeliest)"),
                gradio.Slider(
                    1, page.max_new_tokens, value=page.max_new_tokens, step=1, label="Longest answer (tokens)"
                ),
            ],
            additional_inputs_accordion="Settings",
            examples=[[text] for text in page.examples],
            cache_examples=False,
            flagging_mode="never",
            analytics_enabled=False,
            api_name="chat",
        )
    blocks.queue(max_size=WAITING_AT_MOST, default_concurrency_limit=ANSWERS_AT_ONCE)
    return blocks


def conversation(text: str, history: list[Record], system_prompt: str) -> list[Record]:
    """Return the page's history and the new text as messages; Gradio's parts of a message become one text."""
    turns = [message("system", system_prompt)] if system_prompt.strip() else []
    for turn in history:
        content = turn["content"]
        parts = content if isinstance(content, list) else [content]
        texts = [part if isinstance(part, str) else str(part.get("text", "")) for part in parts]
        turns.append(message(turn["role"], "\n".join(texts)))
    return [*turns, message("user", text)]


class SameOrigin:
    """Middleware that refuses what another site's page asks: any method, streams and websockets too."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 403, or pass the request on."""
        from starlette.responses import PlainTextResponse

        if scope["type"] in ("http", "websocket"):
            headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
            if is_foreign(headers, scope.get("method", "GET")):
                await PlainTextResponse("requests from other sites are refused", 403)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_foreign(headers: dict[str, str], method: str) -> bool:
    """Whether a browser says that the request comes from another site; following a link here is not foreign."""
    if "origin" in headers:
        return urlsplit(headers["origin"]).netloc != headers.get("host")
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return False
    return method != "GET" or headers.get("sec-fetch-mode") != "navigate"


def listening(host: str, port: int, command: str) -> socket.socket:
    """Return a socket bound to the address. Raises TryAgainError when the port is in use, before a model is loaded."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise ParamsError(f"cannot listen there: {error.strerror or error}", where=f"{host}:{port}") from error
        remedy = f"end what uses it, or: {command} --port {port + 1}"
        raise TryAgainError("the port is in use", where=f"{host}:{port}", remedy=remedy) from error
    return listener


def run_server(app: "FastAPI", listener: socket.socket) -> None:
    """Serve until a signal; open answers have five seconds to end. The server's own messages go to the log file."""
    import uvicorn

    server_log = logging.getLogger("uvicorn")
    server_log.handlers = [handler for handler in log.handlers if isinstance(handler, logging.FileHandler)]
    server_log.propagate = False
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5, server_header=False)
    uvicorn.Server(config).run(sockets=[listener])
