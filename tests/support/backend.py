"""A real HTTP server with OpenAI's completions over a real model, one token an event; it fails as
it is told to.
"""

import json
import time
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from typing import Any

from stages.common.generation import generator
from stages.common.generation.sampling import Sampling
from tests.support.loopback import Loopback, running


class Backend(Loopback):
    """Serves `model` under `names`; `breaks` is how an answer goes wrong: "", "status", "cut",
    "nonsense".
    """

    def __init__(self, model: Any, tokenizer: Any, stops: list[int], names: list[str]) -> None:
        super().__init__(Handler)
        self.model, self.tokenizer, self.stops, self.names = model, tokenizer, stops, names
        self.breaks, self.seconds, self.hung_up = "", 0.0, 0


class Handler(BaseHTTPRequestHandler):
    """GET /v1/models, POST /v1/completions."""

    server: Backend

    def do_GET(self) -> None:
        self._head(200, "application/json")
        self.wfile.write(json.dumps({"data": [{"id": name} for name in self.server.names]}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(body)
        self.server.keys.add(self.headers.get("Authorization"))
        if self.server.breaks == "status" or self.path != "/v1/completions" or body["model"] not in self.server.names:
            return self._head(404, "application/json")
        ((answer,),) = generator.decode(
            self.server.model,
            [body["prompt"]],
            max_new_tokens=body["max_tokens"],
            stop=self.server.stops,
            sampling=Sampling(body["temperature"], body.get("top_p", 1.0), seed=body.get("seed", 0)),
        )
        tokens, shown = answer.tokens, ""
        self._head(200, "text/event-stream")
        try:
            for count in range(1, len(tokens) + 1):
                text = self.server.tokenizer.decode(tokens[:count], skip_special_tokens=True)
                if self.server.breaks == "cut" and count == 3:
                    return None
                self._event({"choices": [{"index": 0, "text": text[len(shown) :], "finish_reason": None}]})
                shown = text
                time.sleep(self.server.seconds)
            if self.server.breaks == "nonsense":
                self.wfile.write(b"data: {nonsense\n\n")
            finish = "stop" if len(tokens) < body["max_tokens"] else "length"
            self._event({"choices": [{"index": 0, "text": "", "finish_reason": finish}]})
            self._event({"choices": [], "usage": {"completion_tokens": len(tokens) + (finish == "stop")}})
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            self.server.hung_up += 1
        return None

    def _head(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        self.end_headers()

    def _event(self, content: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(content)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serving(model: Any, tokenizer: Any, stops: list[int], names: list[str]) -> AbstractContextManager[Backend]:
    """Run a backend while the block does."""
    return running(Backend(model, tokenizer, stops, names))
