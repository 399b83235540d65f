"""What attackers' tests share: a request as raw bytes, and the question that must still be answered
afterwards.
"""

import json
import socket

CHAT = "/v1/chat/completions"
ASK = {"messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 4}
BODY = json.dumps(ASK).encode()
REFUSED = (400, 401, 403, 404, 405, 413, 422, 429, 431)


def raw(url: str, request: bytes, seconds: float = 10.0) -> bytes:
    """Send bytes as they are, which httpx would tidy, and return what comes back."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=seconds) as connection:
        connection.sendall(request)
        try:
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except (TimeoutError, ConnectionError):
            return b""


def status(reply: bytes) -> int:
    return int(reply.split(b" ")[1]) if reply else 0


def post(headers: str = "", body: bytes = BODY, path: str = CHAT, host: str = "Host: localhost\r\n") -> bytes:
    length = "" if "ength" in headers or "ncoding" in headers else f"Content-Length: {len(body)}\r\n"
    return f"POST {path} HTTP/1.1\r\n{host}{headers}{length}Connection: close\r\n\r\n".encode("latin-1") + body
