"""A store that fails, is killed, or is first touched by eight processes; killed runs: nothing
twice, nothing lost.
"""

import http.client
import http.server
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stages.common.tracking import event_log, forwarder, mlflow_sender, session
from tests.support import preloaded
from tests.support.counts import times, told
from tests.support.mlflow_server import free_port, server, wait_for

ROOT = Path(__file__).parents[3]
AT_ONCE = 8
FAULTS = ("500", "500 after it was done", "no answer", "no answer after it was done", "a hung-up line")
TIMEOUT_SECONDS = 1

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(3600)]


class Proxy(http.server.BaseHTTPRequestHandler):
    """Hands requests on to the server at `port`; while `share` is above 0, that share of them meets
    a fault.
    """

    port, share = 0, 0.0
    chance = random.Random(1)
    met: Counter[str] = Counter()

    def answer(self) -> None:
        fault = self.chance.choice(FAULTS) if self.chance.random() < self.share else "none"
        self.met[fault] += 1
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, content = 500, b"{}"
        if fault in ("none", "500 after it was done", "no answer after it was done"):
            status, content = self.handed_on(body)
        if fault.startswith("no answer"):
            time.sleep(2 * TIMEOUT_SECONDS)
        if fault.startswith("no answer") or fault == "a hung-up line":
            self.close_connection = True
            return
        self.send_response(500 if fault.startswith("500") else status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = answer

    def handed_on(self, body: bytes) -> tuple[int, bytes]:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        line.request(self.command, self.path, body, headers)
        answer = line.getresponse()
        return answer.status, answer.read()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def proxy(port: int) -> Iterator[str]:
    Proxy.port = port
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_address[1]}"
        web.shutdown()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for variable in ("MLFLOW_TRACKING_URI", "DVC_STAGE", "RANK"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def rows(query: str, database: str | Path = "mlflow.db") -> list[tuple[Any, ...]]:
    with sqlite3.connect(database) as connection:
        return connection.execute(query).fetchall()


def test_a_server_that_fails_and_hangs_has_every_point_exactly_once(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("lathe").propagate = True
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(TIMEOUT_SECONDS))
    monkeypatch.setattr(forwarder, "RETRY_SECONDS", 0.2)
    port, seconds = free_port(), times(10, 60)
    with told(capsys, "a tracking server that fails") as counts, server(port), proxy(port) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setattr(Proxy, "share", 0.5)
        steps, slowest, end = 0, 0.0, time.monotonic() + seconds
        with session.start("sft", params={"sft": {"a": 1}}, inputs={"raw": project}) as tracked:
            while time.monotonic() < end:
                before = time.monotonic()
                tracked.metrics({"loss": steps / 7, "lr": 0.1}, step=steps)
                slowest, steps = max(slowest, time.monotonic() - before), steps + 1
                time.sleep(0.005)
            tracked.table("answers", [{"a": 1}])
            tracked.checkpoint("c", Path("models/c"), steps, {"eval_loss": 1.0}, "aa")
        monkeypatch.setattr(Proxy, "share", 0.0)
        forwarder.replay(mlflow_sender.Sender())
        assert not list(event_log.FOLDER.glob("*.jsonl"))
        counts |= {"points": 2 * steps, **{name: count for name, count in Proxy.met.items() if name != "none"}}
    points = "select key, step, count(*) from metrics where key in ('loss', 'lr') group by key, step order by key, step"
    assert rows(points, "server.db") == [(key, step, 1) for key in ("loss", "lr") for step in range(steps)]
    assert rows("select name, status from runs", "server.db") == [("sft", "FINISHED")]
    assert len(rows("select * from logged_models", "server.db")) == 1
    assert len(rows("select * from inputs where destination_type = 'RUN'", "server.db")) == 1
    assert set(Proxy.met) >= {"500", "none"} and sum(Proxy.met.values()) - Proxy.met["none"] >= 5
    assert slowest < 1, "training waited for the store"
    assert caplog.text.count("tracking waits in") == 1


def test_eight_processes_may_touch_a_fresh_store_at_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = times(1, 20)
    with told(capsys, f"{AT_ONCE} processes at a fresh store") as counts:
        for turn in range(turns):
            folder = project / str(turn)
            folder.mkdir()
            made = [preloaded.context().Process(target=log_one, args=(str(folder), n)) for n in range(AT_ONCE)]
            for process in made:
                process.start()
            assert [preloaded.ended(process) for process in made] == [0] * AT_ONCE, (folder / "said").read_text()
            database = str(folder / "mlflow.db")
            assert rows("select status, count(*) from runs group by status", database) == [("FINISHED", AT_ONCE)]
            assert rows("select step, count(*) from metrics where key = 'loss' group by step", database) == [
                (number, 1) for number in range(AT_ONCE)
            ]
            assert len(rows("select name from experiments", database)) == 2, "the default one and ours"
            assert not list((folder / event_log.FOLDER).glob("*.jsonl"))
        counts |= {"turns": turns}


def log_one(folder: str, number: int) -> None:
    os.chdir(folder)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    with open("said", "a") as said:
        os.dup2(said.fileno(), 2)
    session.CLOSE_SECONDS = 240.0
    with session.start("sft") as tracked:
        tracked.metrics({"loss": 1.0}, step=number)


def script(body: str, **environment: str) -> "subprocess.Popen[str]":
    """Start a process that tracks `body` as a run, in the current folder."""
    lines = "\n    ".join(body.splitlines())
    code = (
        f"import os, time\nfrom stages.common.tracking import session\nwith session.start('sft') as run:\n    {lines}\n"
    )
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.Popen([sys.executable, "-c", code], env=variables, text=True, stderr=subprocess.PIPE)


def test_a_live_process_keeps_its_spool_to_itself(project: Path) -> None:
    process = script("open('started', 'w').close(); time.sleep(60)", MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    try:
        wait_for(Path("started").exists)
        assert not list(event_log.leftovers())
    finally:
        process.kill()
        process.communicate()
    (left,) = event_log.leftovers()
    left.remove()


def test_a_killed_run_is_replayed_whole_and_marked(project: Path) -> None:
    body = "for i in range(5000): run.metrics({'loss': i / 7}, step=i)\nopen('done', 'w').close()\ntime.sleep(60)"
    process = script(body)
    wait_for(Path("done").exists)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    command = [sys.executable, "-m", "stages.common.tracking.mlflow_sender", "replay"]
    for report in ("1 runs sent", "0 runs sent"):
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert report in done.stdout
    assert rows("select name, status from runs") == [("sft", "KILLED")]
    assert rows("select value from tags where key = 'error'") == [("the process was killed",)]
    points = rows("select step, count(*) from metrics where key = 'loss' group by step order by step")
    assert points == [(step, 1) for step in range(5000)]


def test_a_server_killed_in_the_middle_gets_every_point_exactly_once(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(forwarder, "RETRY_SECONDS", 2.0)
    database = project / "server.db"
    total = 0
    with session.start("sft") as tracked:

        def log_for(seconds: float) -> None:
            nonlocal total
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                tracked.metrics({"loss": total / 7}, step=total)
                total += 1
                time.sleep(0.002)

        def arrived() -> int:
            return int(rows("select count(*) from metrics where key = 'loss'", database)[0][0])

        with server(port):
            log_for(1)
            wait_for(lambda: arrived() > 0)
            log_for(2)
        log_for(times(2, 60))
        tracked.table("answers", [{"a": 1}])
        tracked.checkpoint("c", Path("models/c"), total, {"eval_loss": 1.0}, "aa")
        before = arrived()
        with server(port):
            log_for(1)
            wait_for(lambda: arrived() > before)
        log_for(1)
    left = list(event_log.FOLDER.glob("*.jsonl"))
    assert len(left) == 1, "the server was away when the run ended"
    with server(port):
        assert forwarder.replay(mlflow_sender.Sender()) == 1
    points = rows("select step, count(*) from metrics where key = 'loss' group by step order by step", database)
    assert points == [(step, 1) for step in range(total)]
    assert rows("select status from runs", database) == [("FINISHED",)]
    assert len(rows("select * from logged_models", database)) == 1
    assert list((project / "server-files").rglob("tables/answers.json"))
    assert caplog.text.count("tracking waits in") == 1
