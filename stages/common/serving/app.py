"""One app: the chat page at `/`, the API under /v1, /healthz, /readyz, /metrics, behind its guards;
and its server.
"""

import errno
import logging
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stages.common.runtime.errors import ParamsError, TryAgainError
from stages.common.runtime.logs import log
from stages.common.serving.api import routes
from stages.common.serving.api.bounds import Bounds
from stages.common.serving.api.metrics import Observer
from stages.common.serving.drift.watch import Watch
from stages.common.serving.engine.champions import Champions
from stages.common.serving.guards import Guard
from stages.common.serving.pages import chat
from stages.common.serving.pages.inputs import Page

if TYPE_CHECKING:
    from fastapi import FastAPI

LOOPBACK = ("127.0.0.1", "localhost", "::1")
DRAIN_SECONDS = 20.0
SWITCH_SECONDS = 0.0001  # the engine must not wait 5 ms, more than a step, each time the event loop has Python
REQUESTS_PER_MINUTE = 120


def build(
    champions: Champions,
    page: Page,
    hosts: list[str],
    token: str = "",
    per_minute: int = REQUESTS_PER_MINUTE,
    origins: Sequence[str] = (),
    drift: Watch | None = None,
) -> "FastAPI":
    """Return the app; it answers only requests whose Host is in `hosts`, with the token if there is
    one. Pages of `origins` may use the API. `drift` looks at what is said.
    """
    from fastapi import FastAPI
    from fastapi.responses import JSONResponse
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(title=champions.name, docs_url=None, redoc_url=None, openapi_url=None)
    observer = Observer(champions, drift)

    def ready() -> JSONResponse:
        status, code = ("ending", 503) if champions.is_ending else ("ready", 200)
        return JSONResponse({"status": status} | champions.current.facts(), code)

    for path, answer in (("/healthz", lambda: {"status": "ok"}), ("/readyz", ready), ("/metrics", observer.exposition)):
        app.add_api_route(path, answer, methods=["GET", "HEAD"])
    bounds = Bounds(page.max_new_tokens, page.temperature, page.tools, page.tool_rounds)
    routes.add_routes(app, observer, bounds)
    chat.mount(app, observer, page)
    app.add_middleware(Guard, token=token, per_minute=per_minute, let_in=origins)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    return app


def listening(host: str, port: int, elsewhere: str) -> socket.socket:
    """Return a socket bound to the address. Raises TryAgainError when the port is in use, before a
    model is loaded; `elsewhere` is the command for another port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Only of a socket that says it is TCP does asyncio send small writes at once: else each waits
    # for 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise ParamsError(f"cannot listen there: {error.strerror or error}", where=f"{host}:{port}") from error
        remedy = f"end what uses it, or: {elsewhere}"
        raise TryAgainError("the port is in use", where=f"{host}:{port}", remedy=remedy) from error
    return listener


def server(app: "FastAPI", champions: Champions) -> Any:
    """Return a uvicorn server that on a signal answers what it has begun, and says meanwhile that
    it is not ready.
    """
    import uvicorn

    from stages.common.serving.connections import KEEP_ALIVE_SECONDS, Patient

    class Draining(uvicorn.Server):
        """A server whose first signal closes the door, and whose second ends it at once."""

        def handle_exit(self, sig: int, frame: Any) -> None:
            if self._captured_signals or sig not in (signal.SIGTERM, signal.SIGINT):
                super().handle_exit(sig, frame)
                return
            self._captured_signals.append(sig)
            threading.Thread(target=self.drain, name="drain", daemon=True).start()

        def drain(self) -> None:
            if not champions.close(DRAIN_SECONDS):
                log.warning("some answers took longer than %.0f seconds and were cut", DRAIN_SECONDS)
            self.should_exit = True

    return Draining(
        uvicorn.Config(
            app,
            http=Patient,
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # X-Forwarded-For is what anybody says
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=2,
        )
    )


def run(app: "FastAPI", champions: Champions, listener: socket.socket) -> None:
    """Serve until a signal. The server's own messages go to the log file."""
    server_log = logging.getLogger("uvicorn")
    server_log.handlers = [handler for handler in log.handlers if isinstance(handler, logging.FileHandler)]
    server_log.propagate = False
    sys.setswitchinterval(SWITCH_SECONDS)
    server(app, champions).run(sockets=[listener])
