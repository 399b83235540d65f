"""However a run is ended, nobody below it is alive five seconds later, and the stage has saved.

Each way once in CI, ten times with `make faults FULL=1`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.flows.conftest import environment
from tests.flows.test_train import upper
from tests.support.counts import times, told

SECONDS = 5.0
# A stage at work, with a worker process of its own, as curation has them.
WORKS = """
    import multiprocessing
    multiprocessing.Process(target=time.sleep, args=(300,), daemon=True).start()
    Path("started").touch()
    try:
        time.sleep(300)
    except BaseException:
        Path("saved").touch()
        raise"""
FLOW, DVC = ["-m", "flows.train"], ["-m", "dvc", "repro"]
TIMEOUT = ["-c", "from flows import train; train.train(until='upper', stage_hours={hours})"]

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(3600)]


def one(number: signal.Signals) -> Callable[["subprocess.Popen[bytes]"], None]:
    return lambda top: os.kill(top.pid, number)


def group(number: signal.Signals) -> Callable[["subprocess.Popen[bytes]"], None]:
    """A terminal's Ctrl-C, and a worker's cancel, reach every process of the group."""
    return lambda top: os.killpg(top.pid, number)


WAYS: dict[str, tuple[list[str], Callable[["subprocess.Popen[bytes]"], None]]] = {
    "kill -9 of the flow": (FLOW, one(signal.SIGKILL)),
    "a worker's cancel": (FLOW, group(signal.SIGTERM)),
    "Ctrl-C": (FLOW, group(signal.SIGINT)),
    "kill -9 of dvc": (DVC, one(signal.SIGKILL)),
    "TERM of dvc": (DVC, one(signal.SIGTERM)),
}


def start(command: list[str], repository: Path, url: str) -> "subprocess.Popen[bytes]":
    """Start a run in a session of its own; tests in the background would hand down that Ctrl-C is
    ignored.
    """
    with (repository / "said.log").open("w") as said:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=repository,
            env=environment(url),
            stdout=said,
            stderr=said,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def at_work(repository: Path, top: "subprocess.Popen[bytes]") -> int:
    """Wait for the stage to be at work; return how many processes work for the run."""
    deadline = time.monotonic() + 300
    while not (repository / "started").exists():
        assert top.poll() is None and time.monotonic() < deadline, (repository / "said.log").read_text()
        time.sleep(0.05)
    return len(psutil.Process(top.pid).children(recursive=True))


@pytest.mark.parametrize("way", WAYS)
def test_nobody_is_left(
    repository: Path, request: pytest.FixtureRequest, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, end = WAYS[way]
    url = request.getfixturevalue("prefect_url") if command is FLOW else ""
    upper(repository, WORKS)
    turns, seen, slowest = times(1, 10), 0, 0.0
    with told(capsys, way) as counts:
        for _ in range(turns):
            top = start(command, repository, url)
            seen += at_work(repository, top)
            end(top)
            asked = time.monotonic()
            assert ended_below(top, repository), below(top, repository)
            slowest = max(slowest, time.monotonic() - asked)
            assert (repository / "saved").exists(), "it did not save"
            assert top.wait(60) != 0
            for name in ("started", "saved"):
                (repository / name).unlink()
        counts |= {"runs": turns, "processes below them": seen, "ms for the slowest": int(slowest * 1000)}


def below(top: "subprocess.Popen[bytes]", repository: Path) -> list[psutil.Process]:
    """Return who works in the repository, the run's own process aside: a flow still tells its
    server how it ended.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != top.pid and process.cwd() == str(repository):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def ended_below(top: "subprocess.Popen[bytes]", repository: Path) -> bool:
    """Whether nobody below the run is alive within SECONDS."""
    deadline = time.monotonic() + SECONDS
    while below(top, repository) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not below(top, repository)


def test_a_time_limit_leaves_nobody(repository: Path, prefect_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    upper(repository, WORKS)
    turns = times(1, 10)
    with told(capsys, "a stage over its time") as counts:
        for _ in range(turns):
            top = start([part.format(hours=15 / 3600) for part in TIMEOUT], repository, prefect_url)
            assert top.wait(300) != 0
            assert ended_below(top, repository), below(top, repository)
            assert "its time limit" in (repository / "said.log").read_text()
        counts |= {"runs": turns}
