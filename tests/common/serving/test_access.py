"""Who gets in: no other site, nobody without the token, nobody too often; and nobody to the
server's files.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from stages.common.runtime import logs
from stages.common.serving.engine.champions import Champions
from tests.common.serving.conftest import served
from tests.support.attacks import ASK, CHAT, REFUSED, post, raw, status

TOKEN = "a-token-of-many-characters"
HOSTS = ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost.evil.example", "169.254.169.254"]


@pytest.fixture(scope="module")
def guarded(lasting: Champions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a token."""
    with served(lasting, tmp_path_factory.mktemp("guarded") / "page.jsonl", TOKEN) as address:
        yield address


@pytest.fixture(autouse=True)
def lives_on(url: str) -> Iterator[None]:
    """Whatever was sent, the next one is answered."""
    yield
    assert httpx.post(url + CHAT, json=ASK, timeout=30).status_code == 200


@pytest.mark.parametrize("path", ["/", CHAT, "/config", "/metrics"])
@pytest.mark.parametrize("host", HOSTS)
def test_a_foreign_host_is_refused(url: str, host: str, path: str) -> None:
    assert httpx.get(url + path, headers={"Host": host}).status_code == 400


def test_two_hosts_and_none_are_refused(url: str) -> None:
    assert status(raw(url, post(host="Host: localhost\r\nHost: evil.example\r\n"))) == 400
    assert status(raw(url, post(host=""))) == 400


@pytest.mark.parametrize("path", [CHAT, "/gradio_api/call/chat", "/gradio_api/queue/join"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "https://127.0.0.1.evil.example"},
        {"Origin": "http://[::1"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
    ids=str,
)
def test_another_site_s_page_cannot_ask(url: str, path: str, headers: dict[str, str]) -> None:
    assert httpx.post(url + path, json=ASK, headers=headers).status_code == 403


def test_a_second_origin_hides_nothing(url: str) -> None:
    own = "Origin: http://localhost\r\n"
    assert status(raw(url, post(f"Origin: http://evil.example\r\n{own}"))) == 403


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file=%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/file=params.yaml",
        "/gradio_api/file=mlflow.db",
        "/gradio_api/file/etc/passwd",
        "/GRADIO_API/FILE=/etc/passwd",
        "//gradio_api//file=/etc/passwd",
        "/file=/etc/passwd",
        "/file=C:%5Cwindows%5Cwin.ini",
        "/static/../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%2f..%2f..%2fetc/passwd",
        "/svelte/..%2f..%2f..%2fetc/passwd",
        "/custom_component/x/y/..%2f..%2fetc/passwd",
        "/gradio_api/proxy=http://169.254.169.254/latest",
        "/gradio_api/stream/x/y/z/playlist.m3u8",
        "/gradio_api/deep_link?session_hash=x",
        "/monitoring",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/v1/../../etc/passwd",
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/.env",
        "/.git/config",
    ],
)
def test_no_file_of_the_server_can_be_read(url: str, path: str) -> None:
    reply = raw(url, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert status(reply) in REFUSED, reply[:200]
    assert b"root:" not in reply and b"run:\n" not in reply


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/upload", "/gradio_api/component_server", "/login"])
def test_nothing_can_be_put_on_the_server(url: str, path: str) -> None:
    assert httpx.post(url + path, files={"files": ("a.pkl", b"x" * 100)}).status_code == 404


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN])
@pytest.mark.parametrize("path", ["/", CHAT, "/v1/models", "/metrics", "/config", "/gradio_api/info"])
def test_without_the_token_there_is_no_answer(guarded: str, path: str, authorization: str) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    method = "POST" if path == CHAT else "GET"
    reply = httpx.request(method, guarded + path, json=ASK if path == CHAT else None, headers=headers)
    assert reply.status_code == 401
    assert reply.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    "path", [f"/v1/models?token={TOKEN}", f"/v1/models?api_key={TOKEN}", "/healthz/../v1/models", "/healthz/"]
)
def test_the_token_is_taken_from_nowhere_else(guarded: str, path: str) -> None:
    reply = raw(
        guarded,
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: token={TOKEN}\r\nConnection: close\r\n\r\n".encode(),
    )
    assert status(reply) == 401


@pytest.mark.parametrize(
    "headers",
    [
        f"Authorization: Bearer wrong\r\nAuthorization: Bearer {TOKEN}\r\n",
        f"Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer {TOKEN}\r\n",
        f"Authorization: Bearer wrong, Bearer {TOKEN}\r\n",
        f"Proxy-Authorization: Bearer {TOKEN}\r\n",
        f"X-Api-Key: {TOKEN}\r\n",
        "X-Forwarded-For: 127.0.0.1\r\nX-Real-Ip: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n",
    ],
    ids=repr,
)
def test_no_trick_with_headers_stands_for_the_token(guarded: str, headers: str) -> None:
    reply = raw(guarded, f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n".encode())
    assert status(reply) in (400, 401), reply[:200]


@pytest.mark.parametrize("path", ["/v1/models/a%0d%0aSet-Cookie:%20a=b", "/a%0d%0a%0d%0aHTTP/1.1%20200", "/v1/%0aX:a"])
def test_a_line_break_in_an_address_is_no_header(url: str, path: str) -> None:
    reply = raw(url, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    head = reply.partition(b"\r\n\r\n")[0].lower()
    assert status(reply) == 404 and b"set-cookie" not in head and b"\nx:" not in head


def test_with_the_token_all_is_open_to_client_and_browser(guarded: str) -> None:
    assert httpx.get(f"{guarded}/v1/models", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert httpx.get(guarded, auth=("anybody", TOKEN)).status_code == 200
    assert httpx.get(f"{guarded}/healthz").status_code == httpx.get(f"{guarded}/readyz").status_code == 200


def test_tokens_cannot_be_tried_at_will_nor_behind_other_addresses(lasting: Champions, tmp_path: Path) -> None:
    with served(lasting, tmp_path / "page.jsonl", TOKEN, per_minute=5) as address:
        found = [
            httpx.get(
                f"{address}/v1/models",
                headers={"Authorization": f"Bearer {number}", "X-Forwarded-For": f"10.0.0.{number}"},
            ).status_code
            for number in range(8)
        ]
    assert found == [401] * 5 + [429] * 3


def test_who_asks_too_often_waits(lasting: Champions, tmp_path: Path) -> None:
    with served(lasting, tmp_path / "page.jsonl", TOKEN, per_minute=3) as address:
        known = {"Authorization": f"Bearer {TOKEN}"}
        replies = [httpx.post(address + CHAT, json=ASK, headers=known) for _ in range(5)]
        assert [reply.status_code for reply in replies] == [200, 200, 200, 429, 429]
        assert int(replies[-1].headers["retry-after"]) >= 1
        assert httpx.get(f"{address}/healthz").status_code == 200


def test_who_sits_at_this_machine_asks_as_often_as_he_likes_but_not_who_comes_through_a_proxy(
    lasting: Champions, tmp_path: Path
) -> None:
    with served(lasting, tmp_path / "page.jsonl", per_minute=2) as address, httpx.Client() as client:
        body = ASK | {"messages": []}
        here = [client.post(address + CHAT, json=body).status_code for _ in range(9)]
        forwarded = {"X-Forwarded-For": "192.0.2.7"}
        proxied = [client.post(address + CHAT, json=body, headers=forwarded).status_code for _ in range(4)]
    assert here == [400] * 9
    assert proxied == [400, 400, 429, 429]


def test_neither_token_nor_text_is_logged(guarded: str, caplog: pytest.LogCaptureFixture) -> None:
    secret = "the secret of the question"
    logs.log.propagate = True
    with caplog.at_level(logging.DEBUG):
        body = ASK | {"messages": [{"role": "user", "content": secret}]}
        for token in (TOKEN, TOKEN + "x"):
            httpx.post(guarded + CHAT, json=body, headers={"Authorization": f"Bearer {token}"})
    lines = [record.getMessage() for record in caplog.records if record.name == "lathe"]
    (line,) = [json.loads(one) for one in lines if one.startswith("{")]
    assert line["event"] == "answer" and line["completion_tokens"] > 0
    assert not [one for one in lines if secret in one or TOKEN in one]
