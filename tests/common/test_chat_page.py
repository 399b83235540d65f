"""The chat page over real HTTP: it streams, stops when the reader goes, and answers nobody else's page."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from stages.common import chat_page
from stages.common.errors import DataError, ParamsError, TryAgainError
from stages.common.records import Record, message

PAGE = chat_page.Page("lathe", "Version 3", "Be brief.", 0.7, 64, ("Hello?",), {"model": "lathe", "version": "3"})


class Model:
    """Stands where the model does: repeats the question word by word, endlessly if told to, and notes what happens."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[Record], float, int]] = []
        self.words = 0
        self.closed = threading.Event()

    def __call__(self, messages: list[Record], temperature: float, max_new_tokens: int) -> Iterator[str]:
        self.asked.append((messages, temperature, max_new_tokens))
        last = messages[-1]["content"]
        if last == "too long":
            raise DataError("the message has 900 tokens, and there is room for 10", remedy="shorten it")
        try:
            for word in last.split():
                self.words += 1
                yield word + " "
            while last == "for ever":
                self.words += 1
                yield "again "
                time.sleep(0.02)
        finally:
            self.closed.set()


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture(scope="module")
def url(model: Model) -> Iterator[str]:
    import uvicorn

    listener = chat_page.listening("127.0.0.1", 0, "serve")
    port = listener.getsockname()[1]
    app = chat_page.build(model, PAGE, [*chat_page.LOOPBACK, "chat.example.org"])
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
        assert thread.is_alive()
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def test_the_answer_streams(url: str, model: Model) -> None:
    from gradio_client import Client  # type: ignore[import-untyped]  # ships no annotations

    job = Client(url, verbose=False).submit("one two three", "Be kind.", 0.5, 8, api_name="/chat")
    assert job.result(timeout=30).strip() == "one two three"
    assert [text.strip() for text in job.outputs()] == ["one", "one two", "one two three"]
    messages, temperature, max_new_tokens = model.asked[-1]
    assert [(turn["role"], turn["content"]) for turn in messages] == [("system", "Be kind."), ("user", "one two three")]
    assert (temperature, max_new_tokens) == (0.5, 8)


def test_limits_hold_against_a_client_that_ignores_the_sliders(url: str, model: Model) -> None:
    call = {"data": ["hello", "", 1e9, 1e9]}
    with httpx.Client(base_url=url, timeout=30) as client:
        event = client.post("/gradio_api/call/chat", json=call).json()["event_id"]
        body = client.get(f"/gradio_api/call/chat/{event}").text
    if "event: error" not in body:
        assert model.asked[-1][1:] == (2.0, 64)


def test_an_error_says_what_to_do(url: str) -> None:
    from gradio_client import Client

    with pytest.raises(Exception, match="room for 10; shorten it"):
        Client(url, verbose=False).predict("too long", "", 0.0, 8, api_name="/chat")


def test_generation_stops_when_the_reader_goes(url: str, model: Model) -> None:
    model.closed.clear()
    with httpx.Client(base_url=url, timeout=30) as client:
        event = client.post("/gradio_api/call/chat", json={"data": ["for ever", "", 0.0, 8]}).json()["event_id"]
        with client.stream("GET", f"/gradio_api/call/chat/{event}") as stream:
            for line in stream.iter_lines():
                if "again again" in line:
                    break
    assert model.closed.wait(10), "the model still answers a reader who is gone"
    words = model.words
    time.sleep(0.3)
    assert model.words == words


def test_health_and_readiness(url: str) -> None:
    assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{url}/readyz").json() == {"status": "ready", "model": "lathe", "version": "3"}


def test_the_page_loads_and_fetches_nothing_from_elsewhere(url: str) -> None:
    page = httpx.get(url)
    assert page.status_code == 200
    assert "fonts.googleapis.com" not in page.text
    config = httpx.get(f"{url}/config").json()
    assert config["analytics_enabled"] is False
    theme = httpx.get(f"{url}/theme.css").text
    assert "//fonts" not in theme


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
@pytest.mark.parametrize("path", ["/", "/readyz", "/config", "/gradio_api/info"])
def test_a_foreign_host_is_refused(url: str, host: str, path: str) -> None:
    assert httpx.get(url + path, headers={"Host": host}).status_code == 400


def test_a_host_that_was_allowed_is_served(url: str) -> None:
    assert httpx.get(f"{url}/healthz", headers={"Host": "chat.example.org"}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1.evil.example"]
)
def test_a_foreign_origin_is_refused(url: str, model: Model, origin: str) -> None:
    asked = len(model.asked)
    reply = httpx.post(f"{url}/gradio_api/call/chat", json={"data": ["hi", "", 0.0, 8]}, headers={"Origin": origin})
    assert reply.status_code == 403
    assert httpx.get(f"{url}/gradio_api/queue/data?session_hash=x", headers={"Origin": origin}).status_code == 403
    assert len(model.asked) == asked


@pytest.mark.parametrize(
    ("headers", "method", "foreign"),
    [
        ({"host": "127.0.0.1:7860"}, "GET", False),
        ({"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860"}, "POST", False),
        ({"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7861"}, "POST", True),
        ({"host": "127.0.0.1:7860", "origin": "null"}, "GET", True),
        ({"host": "a", "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, "POST", False),
        ({"host": "a", "sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, "GET", False),
        ({"host": "a", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, "GET", False),
        ({"host": "a", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, "POST", True),
        ({"host": "a", "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, "GET", True),
        ({"host": "a", "sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, "GET", True),
    ],
)
def test_which_requests_count_as_foreign(headers: dict[str, str], method: str, foreign: bool) -> None:
    assert chat_page.is_foreign(headers, method) is foreign


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file=%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/file=params.yaml",
        "/gradio_api/file=mlflow.db",
        "/file=/etc/passwd",
        "/static/../../../../etc/passwd",
        "/assets/..%2f..%2f..%2fetc/passwd",
        "/gradio_api/proxy=http://169.254.169.254/latest",
        "/docs",
        "/openapi.json",
    ],
)
def test_no_file_of_the_server_can_be_read(url: str, path: str) -> None:
    with socket.create_connection(
        ("127.0.0.1", int(url.rpartition(":")[2]))
    ) as connection:  # httpx would tidy the path
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    assert reply.split(b" ")[1] in (b"400", b"401", b"403", b"404", b"405", b"422"), reply[:200]
    assert b"root:" not in reply


def test_a_large_upload_is_refused(url: str) -> None:
    files = {"files": ("big.txt", b"x" * 100_000)}
    assert httpx.post(f"{url}/gradio_api/upload", files=files).status_code in (400, 404, 413)


def test_the_page_s_history_becomes_messages() -> None:
    history: list[Record] = [
        {"role": "user", "content": [{"type": "text", "text": "hello"}], "metadata": None},
        {"role": "assistant", "content": "hi"},
    ]
    assert chat_page.conversation("bye", history, "  ") == [
        message("user", "hello"),
        message("assistant", "hi"),
        message("user", "bye"),
    ]
    assert chat_page.conversation("bye", [], "Be kind.")[0] == message("system", "Be kind.")


def test_a_port_in_use_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TryAgainError) as caught:
            chat_page.listening("127.0.0.1", port, "python -m stages.deploy serve")
    assert caught.value.code == 75
    assert str(caught.value) == (
        f"127.0.0.1:{port}: the port is in use; end what uses it, or: python -m stages.deploy serve --port {port + 1}"
    )


def test_an_address_that_is_not_ours_is_a_wrong_option() -> None:
    with pytest.raises(ParamsError, match="cannot listen there"):
        chat_page.listening("203.0.113.1", 7860, "serve")
