"""Pages of other sites that are let in, as browsers ask; health for those who only look; and
connections that are kept.
"""

import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import httpx
import pytest

from stages import deploy
from stages.common.runtime.errors import ParamsError
from stages.common.serving import app as serving
from stages.common.serving import connections
from stages.common.serving.engine.champions import Champions
from tests.common.serving.conftest import served
from tests.support.attacks import ASK, CHAT, post, raw, status
from tests.support.browser import needs_chromium, opened
from tests.support.loopback import Loopback, running

TOKEN = "a-token-of-many-characters"
PAGE = """<body>asked<script>
const answer = fetch("URL/v1/chat/completions", {
  method: "POST",
  headers: {"Content-Type": "application/json", "Authorization": "Bearer TOKEN", "X-Stainless-Lang": "js"},
  body: JSON.stringify({messages: [{role: "user", content: "Hello?"}], max_tokens: 4, stream: STREAM}),
});
answer.then(async reply => { document.body.append(" | " + reply.status + " " + await reply.text() + " | end"); })
  .catch(error => { document.body.append(" | failed | end"); });
</script></body>"""


class Site(BaseHTTPRequestHandler):
    """A page of another origin."""

    content = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(type(self).content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with running(Loopback(Site)) as server:
        yield server.url.removesuffix("/v1")


@pytest.fixture(scope="module")
def shared(lasting: Champions, site: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a token whose API pages of `site` may use."""
    with served(lasting, tmp_path_factory.mktemp("shared") / "page.jsonl", TOKEN, origins=[site]) as address:
        yield address


def test_a_browser_is_told_what_pages_of_an_origin_that_is_let_in_may_send(shared: str, site: str) -> None:
    asked = {
        "Origin": site,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
        "Access-Control-Request-Private-Network": "true",
    }
    reply = httpx.options(shared + CHAT, headers=asked)
    assert reply.status_code == 204 and reply.headers["access-control-allow-origin"] == site
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert reply.headers["access-control-allow-headers"] == asked["Access-Control-Request-Headers"]
    assert reply.headers["access-control-allow-private-network"] == "true" and reply.headers["vary"] == "Origin"
    known = {"Origin": site, "Authorization": f"Bearer {TOKEN}", "Sec-Fetch-Site": "cross-site"}
    answered = httpx.post(shared + CHAT, json=ASK, headers=known)
    assert (answered.status_code, answered.headers["access-control-allow-origin"]) == (200, site)
    unknown = httpx.post(shared + CHAT, json=ASK, headers={"Origin": site})
    assert (unknown.status_code, unknown.headers["access-control-allow-origin"]) == (401, site), "so the page can tell"


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/queue/join", "/v1/../config"])
def test_the_chat_page_itself_is_for_no_other_site(shared: str, site: str, path: str) -> None:
    known = f"Origin: {site}\r\nAuthorization: Bearer {TOKEN}\r\n"
    reply = raw(shared, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{known}Connection: close\r\n\r\n".encode())
    assert status(reply) == (404 if path.startswith("/v1") else 403)


def test_another_origin_is_refused_with_what_would_let_it_in(shared: str, site: str) -> None:
    for method in ("OPTIONS", "POST"):
        reply = httpx.request(method, shared + CHAT, headers={"Origin": "http://localhost:3000"})
        assert reply.status_code == 403 and "access-control-allow-origin" not in reply.headers
        assert reply.json()["error"]["message"].endswith("serve --allow-origin http://localhost:3000")
    both = f"Origin: {site}\r\nOrigin: http://evil.example\r\n"
    assert status(raw(shared, post(both))) == 403
    assert "allow-origin" not in httpx.get(f"{shared}/config", headers={"Origin": "http://localhost:3000"}).text


def test_an_origin_is_named_as_browsers_name_it() -> None:
    assert deploy.origins(["http://Localhost:3000", "https://[::1]"]) == ["http://localhost:3000", "https://[::1]"]
    for wrong in ("*", "localhost:3000", "http://a/b", "http://a b", "null"):
        with pytest.raises(ParamsError, match="--allow-origin"):
            deploy.origins([wrong])


@pytest.mark.ui
@needs_chromium
def test_a_page_of_another_origin_reads_the_answer_in_a_real_browser(shared: str, site: str) -> None:
    page = PAGE.replace("URL", shared).replace("TOKEN", TOKEN)
    Site.content = page.replace("STREAM", "true").encode()
    with opened(site, ready="| end") as browser:
        streamed = browser.locator("body").inner_text()
        Site.content = page.replace(TOKEN, "wrong").replace("STREAM", "false").encode()
        browser.goto(site)
        browser.get_by_text("| end").wait_for()
        wrong = browser.locator("body").inner_text()
    assert "200 data: {" in streamed and "[DONE]" in streamed
    assert "401" in wrong and "a token is needed" in wrong


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/models"])
def test_who_only_looks_gets_the_head(url: str, path: str) -> None:
    head, whole = httpx.head(url + path), httpx.get(url + path)
    assert (head.status_code, head.content) == (whole.status_code, b"") == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]


def test_a_connection_is_kept_for_a_minute(lasting: Champions) -> None:
    assert serving.server(lambda: None, lasting).config.timeout_keep_alive == 60  # type: ignore[arg-type]  # not run


def closed(connection: socket.socket) -> bool:
    """Whether the server has hung up; waits a little."""
    connection.settimeout(3)
    try:
        while data := connection.recv(65536):
            del data
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def test_the_headers_of_a_second_request_have_to_come_too(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5) as connection:
        for _ in range(2):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            said = b""
            while not said.endswith(b'{"status":"ok"}'):  # head and body may come one after the other
                said += connection.recv(65536)
            assert said.startswith(b"HTTP/1.1 200")
            time.sleep(0.4)  # idle longer than headers may take
        connection.sendall(b"GET /healthz HT")
        assert closed(connection)


def test_slow_clients_take_only_each_other_s_places(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SLOW_AT_MOST", 6)
    port = int(url.rpartition(":")[2])
    with httpx.stream("POST", url + CHAT, json=ASK | {"max_tokens": 64, "stream": True}) as reply:
        slow = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(14)]
        for number, connection in enumerate(slow):
            connection.sendall(b"GET / HTTP/1.1\r\nHo" if number % 2 else post("Content-Length: 100\r\n", b"{"))
        assert [line for line in reply.iter_lines() if line][-1] == "data: [DONE]"
    assert httpx.post(url + CHAT, json=ASK).status_code == 200
    assert all(closed(connection) for connection in slow[:8])
    for connection in slow:
        connection.close()


def test_a_reader_who_does_not_read_is_hung_up_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.3)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", int(url.rpartition(":")[2])))
    connection.settimeout(10)
    ask = b"GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with pytest.raises(ConnectionError):
        for _ in range(100_000):  # more than buffers hold, and none of it is read
            connection.sendall(ask)
    connection.close()
    assert httpx.post(url + CHAT, json=ASK).status_code == 200
