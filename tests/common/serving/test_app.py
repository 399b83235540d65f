"""The server's life: ready, following the champion, and on a signal first done with what it has
begun.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from stages import deploy
from stages.common.release import registry
from stages.common.runtime.errors import ParamsError, TryAgainError
from stages.common.serving import app as serving
from stages.common.serving.engine.champions import Champions
from tests.common.serving.conftest import Registered, served

ROOT = Path(__file__).parents[3]
SERVER = """
import sys, time
from pathlib import Path
from stages.common.runtime import process
from stages.common.serving import app as serving
from stages.common.serving.engine.champions import Champions
from stages.common.serving.pages.inputs import Page

process.install_signal_handlers()
champions = Champions("lathe")
champions.current.engine.model.register_forward_hook(lambda *_: time.sleep(0.03))
page = Page("", 1.5, 64, ("a",), Path("page.jsonl"))
listener = serving.listening("127.0.0.1", int(sys.argv[1]), "x")
try:
    serving.run(serving.build(champions, page, ["127.0.0.1"]), champions, listener)
except BaseException as error:
    print(type(error).__name__, flush=True)
    raise SystemExit(143)
"""


def test_readiness_names_the_champion_and_a_swap_changes_it(
    champions: Champions, registered: Registered, tmp_path: Path
) -> None:
    with served(champions, tmp_path / "page.jsonl") as url:
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
        first = httpx.get(f"{url}/readyz").json()
        assert first == {"status": "ready"} | champions.current.facts()
        registry.point(registered.client, registry.CHAMPION, registered.versions[1])
        assert champions.look()
        assert httpx.get(f"{url}/readyz").json()["version"] == "2"
        champions.close()
        ending = httpx.get(f"{url}/readyz")
        assert (ending.status_code, ending.json()["status"]) == (503, "ending")
        body = {"messages": [{"role": "user", "content": "a"}]}
        assert httpx.post(f"{url}/v1/chat/completions", json=body).status_code == 503


@pytest.mark.slow
def test_on_sigterm_answers_under_way_are_ended_and_no_more_are_taken(registered: Registered) -> None:
    registry.point(registered.client, registry.CHAMPION, registered.versions[0])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)], cwd=registered.folder, env=environment, stdout=subprocess.PIPE
    )
    url, body = f"http://127.0.0.1:{port}", {"messages": [{"role": "user", "content": "a"}], "seed": 3}
    try:
        end = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{url}/readyz")
                break
            except httpx.TransportError:
                assert time.monotonic() < end and server.poll() is None
                time.sleep(0.1)
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body | {"stream": True}, timeout=30) as reply:
            lines = reply.iter_lines()
            next(lines)
            server.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            assert httpx.get(f"{url}/readyz").status_code == 503
            assert httpx.post(f"{url}/v1/chat/completions", json=body).status_code == 503
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert '"finish_reason": "length"' in rest[-2] or '"finish_reason": "stop"' in rest[-2]
        output, _ = server.communicate(timeout=15)
        assert (server.returncode, output) == (143, b"StopRequested\n")
    finally:
        server.kill()


def test_a_port_in_use_is_one_line_with_the_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TryAgainError) as caught:
            serving.listening("127.0.0.1", port, deploy.elsewhere(port + 1))
    assert caught.value.code == 75
    assert str(caught.value) == (
        f"127.0.0.1:{port}: the port is in use; end what uses it, or: python -m stages.deploy serve --port {port + 1}"
    )


def test_an_address_that_is_not_ours_is_a_wrong_option() -> None:
    with pytest.raises(ParamsError, match="cannot listen there"):
        serving.listening("203.0.113.1", 7860, "serve")


def test_a_stream_s_small_writes_do_not_wait_for_each_other() -> None:
    """asyncio turns Nagle's algorithm off where the socket says that it is TCP."""

    async def accepted() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = serving.listening("127.0.0.1", 0, "x")
        async with await asyncio.start_server(connected, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            writer.close()
            return await found

    assert asyncio.run(accepted()) == 1
