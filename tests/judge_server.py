"""A real HTTP server that answers like an OpenAI-compatible judge, and fails as it is told to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[str, str], str]


class JudgeServer(ThreadingHTTPServer):
    """Replies with `reply(answer A, answer B)`; `failures` are (status, headers) given before the first reply."""

    daemon_threads = True

    def __init__(self, reply: Reply) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply = reply
        self.failures: list[tuple[int, dict[str, str]]] = []
        self.seen: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    """POST /v1/chat/completions."""

    server: JudgeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            return self._send(404, {"error": "no such path"})
        self.server.seen.append(body)
        self.server.keys.add(self.headers.get("Authorization"))
        if self.server.failures:
            status, headers = self.server.failures.pop()
            return self._send(status, {"error": "not now"}, headers)
        shown = body["messages"][-1]["content"].split("Answer A:\n")[1].split("\n\nAnswer B:\n")
        choice = {"message": {"role": "assistant", "content": self.server.reply(*shown)}}
        return self._send(200, {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 1}})

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(reply: Reply) -> Iterator[JudgeServer]:
    """Run a judge while the block does."""
    server = JudgeServer(reply)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
