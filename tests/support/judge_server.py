"""A real HTTP server that answers like an OpenAI-compatible judge, and fails as it is told to."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.loopback import Loopback, running

Reply = Callable[[str, str], str]
Messages = list[dict[str, str]]


class JudgeServer(Loopback):
    """Replies with `reply(messages)`; `failures` are (status, headers) given before the first
    reply.
    """

    def __init__(self, reply: Callable[[Messages], str]) -> None:
        super().__init__(Handler)
        self.reply = reply
        self.failures: list[tuple[int, dict[str, str]]] = []
        self.headers: list[dict[str, str]] = []


class Handler(BaseHTTPRequestHandler):
    """POST /v1/chat/completions."""

    server: JudgeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            return self._send(404, {"error": "no such path"})
        self.server.seen.append(body)
        self.server.keys.add(self.headers.get("Authorization"))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        if self.server.failures:
            status, headers = self.server.failures.pop()
            return self._send(status, {"error": "not now"}, headers)
        choice = {"message": {"role": "assistant", "content": self.server.reply(body["messages"])}}
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


def comparing(reply: Reply) -> Callable[[Messages], str]:
    """Return a judge of two answers: what `reply(answer A, answer B)` says."""

    def of_messages(messages: Messages) -> str:
        return reply(*messages[-1]["content"].split("Answer A:\n")[1].split("\n\nAnswer B:\n"))

    return of_messages


def serving(reply: Reply) -> AbstractContextManager[JudgeServer]:
    """Run a judge of two answers while the block does."""
    return running(JudgeServer(comparing(reply)))


def grading(reply: Callable[[Messages], str]) -> AbstractContextManager[JudgeServer]:
    """Run a judge that is shown all messages while the block does."""
    return running(JudgeServer(reply))
