import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flows.local import server
from stages.common.runtime.errors import ParamsError, TryAgainError
from tests.flows.conftest import environment, free_port


@pytest.fixture
def stranger() -> Iterator[int]:
    """A web server that is no Prefect server, on a free port."""
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield web.server_address[1]
    web.shutdown()


def test_a_taken_port_is_one_line_with_another_port(stranger: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.train"]
    url = f"http://127.0.0.1:{stranger}/api"
    done = subprocess.run(command, cwd=tmp_path, env=environment(url), capture_output=True, text=True, timeout=60)
    assert done.returncode == 75
    line = done.stderr.strip()
    assert line.startswith(f"lathe: flow failed (75): http://127.0.0.1:{stranger}: something that is no Prefect server")
    assert line.endswith(f"PREFECT_API_URL=http://127.0.0.1:{stranger + 1}/api")
    assert len(line.splitlines()) == 1


def test_a_server_elsewhere_that_does_not_answer_is_not_started_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "api_url", lambda: f"http://127.0.0.2:{free_port()}/api")
    with pytest.raises(TryAgainError, match="no Prefect server answers; start it there"):
        server.ensure()


def test_a_machine_that_does_not_answer_has_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object, **__: object) -> None:
        raise httpx.ConnectTimeout("timed out")

    monkeypatch.setattr(httpx, "get", silent)
    monkeypatch.setattr(server, "api_url", lambda: "http://10.255.255.1:4200/api")
    with pytest.raises(TryAgainError, match=r"10\.255\.255\.1:4200/api: no Prefect server answers; start it there"):
        server.ensure()


def test_a_server_that_wants_a_password_is_no_reason_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Guarded(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers.get("Authorization") == "Basic YWRtaW46cmlnaHQ="  # admin:right
            self.send_response(200 if known else 401)
            self.end_headers()
            self.wfile.write(b"true")

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{web.server_address[1]}/api"
        monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
        with pytest.raises(ParamsError, match="wants another password; set PREFECT_API_AUTH_STRING"):
            server.answers(url)
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:right")
        assert server.answers(url)
        web.shutdown()


def test_nobody_answering_is_no_error() -> None:
    assert server.answers(f"http://127.0.0.1:{free_port()}/api") is False


def test_the_server_we_start_refuses_a_call_without_token_and_other_origins(prefect_url: str) -> None:
    refused = httpx.post(f"{prefect_url}/flows/filter", json={}, trust_env=False)
    assert refused.status_code == httpx.codes.FORBIDDEN
    for origin, allowed in [("http://evil.example", None), (server.ui_url(prefect_url), server.ui_url(prefect_url))]:
        health = httpx.get(f"{prefect_url}/health", headers={"Origin": origin}, trust_env=False)
        assert health.headers.get("access-control-allow-origin") == allowed


def test_its_page_is_there_and_uses_its_own_api(prefect_url: str) -> None:
    settings = httpx.get(f"{server.ui_url(prefect_url)}/ui-settings", trust_env=False).json()
    assert settings["api_url"] == prefect_url
    assert "<title>" in httpx.get(server.ui_url(prefect_url), trust_env=False, follow_redirects=True).text
