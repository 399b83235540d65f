"""Those who are told, on loopback: a web address and a mail server, both real."""

import json
import socketserver
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Webhook(ThreadingHTTPServer):
    """Takes JSON; `seen` are the bodies, `answer` is what it says to them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.seen: list[dict[str, Any]] = []
        self.answer = 200

    @property
    def url(self) -> str:
        """An address with a secret in it."""
        return f"http://127.0.0.1:{self.server_address[1]}/hooks/s3cret?token=t0ken"


class _Hook(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/hooks/s3cret?token=t0ken" and self.server.answer == 200:
            self.server.seen.append(json.loads(body))
        self.send_response(self.server.answer)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Mail(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as takes a mail; `seen` are recipients and text of each."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Smtp)
        self.seen: list[tuple[list[str], str]] = []

    @property
    def url(self) -> str:
        """Its address as LATHE_NOTIFY has it."""
        return f"mailto://127.0.0.1:{self.server_address[1]}?from=lathe@example.org&to=ann@example.org&mode=insecure"


class _Smtp(socketserver.StreamRequestHandler):
    server: Mail

    def handle(self) -> None:
        recipients: list[str] = []
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            word = line.split()[0].upper() if line.split() else b""
            if word == b"RCPT":
                recipients.append(line.decode().partition("<")[2].partition(">")[0])
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                text = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.seen.append((recipients, text.decode()))
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 yes\r\n")
            if word == b"QUIT":
                return
