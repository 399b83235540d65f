"""Services are kept alive, each alone; one that ends before all were up ends the whole."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.local import supervisor
from tests.flows.conftest import ROOT


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def supervise(folder: Path, *lines: str) -> "subprocess.Popen[str]":
    (folder / "infra").mkdir()
    (folder / supervisor.PROCFILE).write_text("# name: command\n" + "".join(f"{line}\n" for line in lines))
    names = [line.partition(":")[0] for line in lines]
    command = [sys.executable, "-m", "flows.local.supervisor", *names]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=variables, stdout=subprocess.PIPE, text=True)


def sleepers(top: "subprocess.Popen[str]") -> dict[str, int]:
    """Return the services that are at work: their seconds of sleep, their process."""
    found = {}
    for child in psutil.Process(top.pid).children():
        try:
            words = child.cmdline()
        except psutil.NoSuchProcess:
            continue
        if words[:1] == ["sleep"]:
            found[words[1]] = child.pid
    return found


@pytest.mark.fault
def test_one_that_is_killed_is_started_again_and_the_other_goes_on(tmp_path: Path) -> None:
    """What it had started, which may hold its port, is ended first."""
    one = "one: sh -c 'sleep 303 & echo $! > left; exec sleep ${SECONDS_OF_ONE:-301}'"
    top = supervise(tmp_path, one, "two: sleep 302")
    try:
        before = until(lambda: found if len(found := sleepers(top)) == 2 else None)
        (tmp_path / supervisor.UP).touch()
        left = int((tmp_path / "left").read_text())
        os.kill(before["301"], signal.SIGKILL)
        after = until(lambda: found if (found := sleepers(top)).get("301", before["301"]) != before["301"] else None)
        assert after["302"] == before["302"] and left != int((tmp_path / "left").read_text())
        until(lambda: not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE)
        top.kill()  # and when it dies itself, nobody is left
        until(lambda: not any(map(psutil.pid_exists, after.values())) or None)
    finally:
        top.kill()
        said = top.communicate()[0]
    assert "one ended with -9; started again in 2 s" in said


def test_one_that_ends_before_all_were_up_ends_the_whole(tmp_path: Path) -> None:
    top = supervise(tmp_path, "one: sleep 301", "two: sh -c 'echo no port; exit 3'")
    said = top.communicate(timeout=60)[0]
    assert top.returncode == 1
    assert "two ended with 3 before it was up: logs/services/two.log says why" in said
    assert (tmp_path / "logs/services/two.log").read_text() == "no port\n"


def test_the_one_that_ends_again_and_again_is_started_after_longer_pauses(tmp_path: Path) -> None:
    service = supervisor.Service("one", "true")
    pauses = []
    for _ in range(7):
        service.process = subprocess.Popen(["true"])
        service.process.wait()
        service.started = time.monotonic()
        assert service.ended() == 0
        pauses.append(service.pause)
    assert pauses == [2, 4, 8, 16, 30, 30, 30]
