"""The grace after SIGTERM, in a process of its own: a parameter, and started anew by a save; what
ended it, and what it leaves.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from stages.common.runtime import errors, logs, process

ROOT = Path(__file__).parents[3]
SAVES = """
import os, signal, time
from stages.common.runtime import errors, logs, process

def main() -> None:
    with process.graceful_stop():
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range({parts}):
            time.sleep({seconds})
            {between}
    open("saved", "w").close()
    raise errors.StopRequested

process.run("upper", main)
"""


def stopped(folder: Path, grace: float, parts: int, seconds: float, between: str) -> tuple[int, bool, float]:
    """Return the exit code of a stage that works on after SIGTERM, whether it came to its end, and
    the seconds.
    """
    (folder / "params.yaml").write_text(f"run: {{name: test, grace_seconds: {grace}}}\n")
    (folder / "upper.py").write_text(SAVES.format(parts=parts, seconds=seconds, between=between))
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    began = time.monotonic()
    done = subprocess.run([sys.executable, "upper.py"], cwd=folder, env=environment, check=False, timeout=120)
    return done.returncode, (folder / "saved").exists(), time.monotonic() - began


def test_who_does_not_save_is_ended_after_the_grace(tmp_path: Path) -> None:
    code, saved, seconds = stopped(tmp_path, 1, parts=1, seconds=60, between="pass")
    assert (code, saved) == (errors.EXIT_STOPPED, False)
    assert seconds < 50


def test_a_longer_grace_lets_a_long_step_end(tmp_path: Path) -> None:
    assert stopped(tmp_path, 60, parts=1, seconds=2, between="pass")[:2] == (errors.EXIT_STOPPED, True)


def test_a_save_starts_the_grace_anew(tmp_path: Path) -> None:
    anew = "process.restart_grace()"
    done = stopped(tmp_path, 4, parts=process.RESTARTS, seconds=2.0, between=anew)
    assert done[:2] == (errors.EXIT_STOPPED, True)
    (tmp_path / "saved").unlink()
    assert stopped(tmp_path, 4, parts=process.RESTARTS, seconds=2.0, between="pass")[1] is False


def test_it_is_not_started_anew_for_ever(tmp_path: Path) -> None:
    code, saved, seconds = stopped(tmp_path, 1, parts=100, seconds=0.5, between="process.restart_grace()")
    assert (code, saved) == (errors.EXIT_STOPPED, False)
    assert seconds < 45  # of 50 it would have worked


@pytest.mark.parametrize(
    ("text", "expected"),
    [("run: {grace_seconds: 120}\n", 120.0), ("run: {name: x}\n", 25.0), ("run: [\n", 25.0), ("", 25.0)],
)
def test_the_grace_is_what_params_say(tmp_path: Path, text: str, expected: float) -> None:
    (tmp_path / "params.yaml").write_text(text)
    assert process.grace_seconds(tmp_path / "params.yaml") == expected


@pytest.mark.parametrize("value", ["0", "-1", "soon", "true", ".inf"])
def test_a_grace_that_is_no_time_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "params.yaml").write_text(f"run: {{grace_seconds: {value}}}\n")
    with pytest.raises(errors.ParamsError, match=r"run\.grace_seconds"):
        process.grace_seconds(tmp_path / "params.yaml")


def test_whoever_kills_waits_for_all_that_a_save_may_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("run: {grace_seconds: 600}\n")
    assert process.longest_stop_seconds() > (1 + process.RESTARTS) * 600


FORKS = """
import multiprocessing, os, signal, time
from stages.common.runtime import process

def main() -> None:
    os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGINT))
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True).start()
    os.kill(os.getpid(), signal.SIGINT)

process.run("upper", main)
"""


def test_a_worker_that_is_asked_while_it_forks_ends_too(tmp_path: Path) -> None:
    """An exception in a hook after a fork is lost: the worker would work on, its stage wait."""
    (tmp_path / "params.yaml").write_text("run: {name: test, grace_seconds: 300}\n")
    (tmp_path / "upper.py").write_text(FORKS)
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "upper.py"], cwd=tmp_path, env=environment, check=False, timeout=60)
    assert done.returncode == errors.EXIT_STOPPED


WAITS = """
import time
from stages.common.runtime import process

def main(name: str = "") -> None:
    open("began", "w").close()
    time.sleep(60)

process.run("upper", main, again="python upper.py")
"""
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}


def under_a_shell(folder: Path, before: str) -> "subprocess.Popen[str]":
    """Return a shell that waits for its Enter, and below it a command in the background."""
    (folder / "upper.py").write_text(WAITS)
    script = f"{before} {sys.executable} upper.py --name 'of it' > out 2>&1 & echo $!; read line"
    shell = subprocess.Popen(
        ["/usr/bin/env", "--default-signal=HUP", "/bin/sh", "-c", script],  # whatever pytest was started with
        cwd=folder,
        env=ENVIRONMENT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: (folder / "began").exists())
    return shell


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


@pytest.mark.parametrize("before", ["", "setsid"])
def test_who_ends_with_the_shell_that_started_it_says_so(tmp_path: Path, before: str) -> None:
    shell = under_a_shell(tmp_path, before)
    shell.communicate("\n", timeout=120)
    until(lambda: (tmp_path / "out").read_text().endswith("\n"))
    (said,) = (tmp_path / "out").read_text().splitlines()
    assert f"because its parent ended (sh, process {shell.pid}); started with nohup it lives on" in said
    assert "then continue with: python upper.py --name 'of it'  (log: logs/upper.log)" in said


def test_nohup_lets_a_server_outlive_the_shell_that_started_it(tmp_path: Path) -> None:
    shell = under_a_shell(tmp_path, "nohup")
    number = int(shell.communicate("\n", timeout=120)[0])
    found = psutil.Process(number)
    for signum in (signal.SIGHUP, signal.SIGTERM):
        assert found.is_running() and found.ppid() != shell.pid
        os.kill(number, signum)
    until(lambda: "stopped on request (SIGTERM)" in (tmp_path / "out").read_text())


def test_a_closed_terminal_is_what_ended_it(tmp_path: Path) -> None:
    shell = under_a_shell(tmp_path, "")
    assert shell.stdout
    os.kill(int(shell.stdout.readline()), signal.SIGHUP)
    until(lambda: "because its terminal was closed (SIGHUP)" in (tmp_path / "out").read_text())
    shell.communicate("\n", timeout=120)


REPORTS = """
import sys
from pathlib import Path
import typer
from stages.common.runtime import errors, process

Option = typer.Option(...)

def main(report: Path = Option, out: Path = Option, read: Path = Option) -> None:
    if Path("wrong").exists():
        raise errors.ParamsError("no such key")
    if Path("broken").exists():
        raise errors.DataError("no such record")
    report.parent.mkdir(exist_ok=True)
    report.write_text("the last")
    (out / "deep").mkdir(parents=True)
    (out / "deep/one").write_text("one")

named = "--report reports/upper.json --metrics reports/m.json --out reports/upper --read reports/read.json"
sys.argv[1:] = named.split()
process.run("upper", main)
"""


def test_a_wrong_parameter_leaves_the_last_report(tmp_path: Path) -> None:
    """As DVC runs it: it takes a stage's outs away first."""
    (tmp_path / "params.yaml").write_text("run: {name: test}\n")
    (tmp_path / "upper.py").write_text(REPORTS)
    reports = tmp_path / "reports"
    reports.mkdir()
    (reports / "read.json").write_text("of another stage")

    def run(code: int) -> None:
        shutil.rmtree(reports, ignore_errors=True)
        assert subprocess.run([sys.executable, "upper.py"], cwd=tmp_path, env=ENVIRONMENT).returncode == code

    run(errors.EXIT_DONE)
    (tmp_path / "wrong").touch()
    run(errors.EXIT_PARAMS)
    assert (reports / "upper.json").read_text() == "the last"
    assert (reports / "upper/deep/one").read_text() == "one"
    assert (reports / "m.json").is_file()
    assert not (reports / "read.json").exists()
    (tmp_path / "wrong").unlink()
    (tmp_path / "broken").touch()
    run(errors.EXIT_DATA)
    assert not reports.exists(), "what was begun and failed has no report"


def test_the_few_figures_that_people_compare_go_where_the_command_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> int:
        logs.report("two", {"loss": 0.12345678, "steps": 6, "lead": None, "odd": float("nan"), "rows": 81.0})
        return 7

    file = tmp_path / "metrics/sft.json"
    monkeypatch.setattr(sys, "argv", ["sft", "--metrics", str(file), "--out", "models/sft"])
    then = logs.comparing(work, main=True)
    assert sys.argv == ["sft", "--out", "models/sft"]
    assert then() == 7
    assert file.read_text() == '{\n "loss": 0.123457,\n "rows": 81,\n "steps": 6\n}\n'
    logs.report("left out: no pairs")
    monkeypatch.setattr(sys, "argv", ["dpo", "--metrics", str(file)])
    logs.comparing(lambda: None, main=True)()
    assert file.read_text() == "{}\n"
