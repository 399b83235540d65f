"""What strangers send to MLflow and Prefect as we start them: none of it succeeds, and both live
on.

The chat and its API have tables of their own: tests/common/serving/test_access.py and
test_attacks.py.
"""

import socket
import time

import httpx
import pytest

from tests.support.attacked import ALIVE, MLFLOW, READ, SECRET, WRITE, call, get
from tests.support.attacks import post, raw, status

HOSTS = ["evil.example", "", "127.0.0.1.evil.example", "evil.example:{port}", "169.254.169.254", "0.0.0.0:{port}"]
HOSTS += ["10.evil.example", "localhost:{port}.evil.example", "192.168.evil.example", "172.16.0.1:{port}"]
ORIGINS = ["http://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example:5000"]
both = pytest.mark.parametrize("target", ["mlflow", "prefect"], indirect=True)
on_prefect = pytest.mark.parametrize("target", ["prefect"], indirect=True)


@both
@pytest.mark.parametrize("host", HOSTS)
def test_a_name_that_was_made_to_point_here_is_refused(target: tuple[str, str], host: str) -> None:
    name, url = target
    if name == "prefect" and host.startswith("localhost:"):
        host = "localhost.evil.example"  # a port that is none is not a name: Starlette compares what stands before it
    reply = call(url, READ[name], Host=host.format(port=url.rpartition(":")[2]))
    assert reply.status_code in (400, 403) and "experiment" not in reply.text and "token" not in reply.text


@both
@pytest.mark.parametrize("origin", ORIGINS)
def test_a_foreign_page_changes_and_reads_nothing(target: tuple[str, str], origin: str) -> None:
    name, url = target
    assert call(url, WRITE[name], {"name": "foreign"}, Origin=origin).status_code == 403
    reply = call(url, READ[name], Origin=origin)
    assert "access-control-allow-origin" not in reply.headers, "a browser shows the page nothing"
    preflight = httpx.options(url + WRITE[name], headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
    assert "access-control-allow-origin" not in preflight.headers


@on_prefect
@pytest.mark.parametrize("path", ["/api/events/in", "/api/events/out", "/api/logs/out"])
@pytest.mark.parametrize("protocol", ["", "Sec-WebSocket-Protocol: prefect\r\n"], ids=["old", "new"])
def test_a_foreign_page_opens_no_websocket(target: tuple[str, str], path: str, protocol: str) -> None:
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += f"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n{protocol}"
    asked = f"GET {path} HTTP/1.1\r\nHost: {target[1][7:]}\r\n{upgrade}"
    assert status(raw(target[1], f"{asked}Origin: http://evil.example\r\n\r\n".encode(), 3)) == 403
    assert status(raw(target[1], f"{asked}\r\n".replace(target[1][7:], "evil.example").encode(), 3)) in (400, 403)
    with socket.create_connection(("127.0.0.1", int(target[1].rpartition(":")[2])), timeout=5) as connection:
        connection.sendall(f"{asked}\r\n".encode())
        assert status(connection.recv(4096)) == 101, "a program of this machine does"


@on_prefect
@pytest.mark.parametrize("path", ["/../../../../etc/passwd", "/assets/..%2f..%2f..%2f..%2fetc%2fpasswd", "/%2e%2e/etc"])
@pytest.mark.parametrize("under", ["", "/api", "/api/static"])
def test_prefect_gives_no_file_of_the_machine(target: tuple[str, str], under: str, path: str) -> None:
    assert SECRET not in get(target[1], under + path)


@on_prefect
@pytest.mark.parametrize(
    "path", ["flows/", "deployments/", "block_documents/", "variables/", "work_pools/", "automations/"]
)
def test_prefect_takes_no_change_without_a_csrf_token(target: tuple[str, str], path: str) -> None:
    for headers in ({}, {"Prefect-Csrf-Token": "a", "Prefect-Csrf-Client": "b"}, {"X-HTTP-Method-Override": "GET"}):
        assert call(target[1], f"/api/{path}", {"name": "stolen"}, **headers).status_code == 403


@both
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[" * 50_000,
        b"\xff\xfe\x00",
        b"\x80\x04K\x01.",
        b'{"name":' + b'{"a":' * 5_000,
        b"1" * 5_000,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_a_body_that_is_no_request_breaks_nothing(target: tuple[str, str], body: bytes) -> None:
    name, url = target
    reply = raw(url, post("Content-Type: application/json\r\n", body, WRITE[name], f"Host: {url[7:]}\r\n"), 20)
    assert 400 <= status(reply) <= 500, reply[:300]  # MLflow ends a recursion with 500, and goes on
    assert b"site-packages" not in reply


@both
@pytest.mark.parametrize(
    "request_",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        post("Content-Length: 5\r\nContent-Length: 500\r\n"),
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\nGET /api/health HTTP/1.1\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\n", b"zz\r\nabc\r\n"),
        b"GET /%0d%0aSet-Cookie:a=b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ],
    ids=lambda request: repr(request[:60]),
)
def test_broken_http_gets_one_reply_at_most(target: tuple[str, str], request_: bytes) -> None:
    reply = raw(target[1], request_, 3)
    assert reply.count(b"HTTP/1.1 ") <= 1 and b"set-cookie" not in reply.lower()


@both
def test_a_large_body_stops_neither(target: tuple[str, str]) -> None:
    name, url = target
    reply = httpx.post(url + WRITE[name], content=b'{"name":"' + b"a" * 20_000_000 + b'"}', timeout=60, trust_env=False)
    assert reply.status_code in (400, 413)


@both
def test_slow_clients_stop_neither(target: tuple[str, str]) -> None:
    """Prefect on SQLite answers 100 at once; half of these never end their body, half not even
    their headers.
    """
    name, url = target
    path, headers = {"mlflow": f"{MLFLOW}/runs/search", "prefect": "/api/flows/filter"}[name], ""
    if name == "prefect":  # without its token a request ends before its body
        token = call(url, "/api/csrf-token?client=slow").json()["token"]
        headers = f"Prefect-Csrf-Token: {token}\r\nPrefect-Csrf-Client: slow\r\n"
    started, slow = time.monotonic(), []
    for number in range(300):
        slow.append(socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5))
        body = post(f"{headers}Content-Length: 100\r\n", b"{", path, f"Host: {url[7:]}\r\n")
        slow[-1].sendall(body if number % 2 else b"GET / HTTP/1.1\r\nHo")
    time.sleep(0.5)
    assert httpx.get(url + ALIVE[name], timeout=8, trust_env=False).status_code == 200
    assert time.monotonic() - started < 9
    for connection in slow:
        connection.close()
