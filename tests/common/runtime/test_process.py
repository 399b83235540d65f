"""The grace after SIGTERM, in a process of its own: a parameter, and started anew by a save."""

import subprocess
import sys
import time
from pathlib import Path

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
