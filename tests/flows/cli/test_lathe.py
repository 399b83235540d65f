"""The command `lathe`: what it starts, with what, and how fast it can say so."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from flows.cli import lathe
from stages.common.runtime.libraries import SETTINGS

ROOT = Path(__file__).parents[3]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
COMMANDS = get_command(lathe.app).commands  # type: ignore[attr-defined]


class Started(Exception):
    """Stands for the process that takes this one's place."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would run: commands first, then what takes the process's place."""
    found: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        found.append(command[1:])
        return subprocess.CompletedProcess(command, 0)

    def execve(program: str, arguments: list[str], environment: dict[str, str]) -> None:
        assert program == sys.executable and environment["DVC_NO_ANALYTICS"] == "1"
        found.append(arguments[1:])
        raise Started

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(os, "execve", execve)
    return found


@pytest.mark.parametrize(
    ("line", "runs"),
    [
        ("demo", ["-m dvc repro", "-m flows.cli.summary"]),
        ("demo --profile quick", ["-m flows.cli.profile quick", "-m dvc repro", "-m flows.cli.summary"]),
        ("doctor", ["-m flows.cli.doctor"]),
        ("doctor --profile own-text", ["-m flows.plans.profile_plan own-text"]),
        ("flow --until sft", ["-m flows.train --until sft"]),
        ("flow --help", ["-m flows.train --help"]),
        ("round --count 2", ["-m flows.rounds --count 2"]),
        ("up", ["-m flows.local.services up"]),
        ("serve --port 8000", ["-m stages.deploy serve --port 8000"]),
        ("approve 3 --reason good", ["-m flows.release approve 3 --reason good"]),
        ("reproduce 3", ["-m flows.cli.reproduce 3"]),
        ("export 3 --format gguf", ["-m flows.export 3 --format gguf"]),
        ("trace a.txt:1", ["-m flows.lineage.trace a.txt:1"]),
        ("params sft", ["-m flows.cli.parameters sft"]),
        ("experiments a b", ["-m flows.experiments a b"]),
    ],
)
def test_a_task_starts_its_module_with_what_it_was_given(line: str, runs: list[str], started: list[list[str]]) -> None:
    done = CliRunner().invoke(lathe.app, line.split())
    assert isinstance(done.exception, Started)
    assert [" ".join(command) for command in started] == runs


def test_a_task_that_fails_ends_the_command_as_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 3))
    assert CliRunner().invoke(lathe.app, ["demo"]).exit_code == 3


def test_every_task_explains_itself_in_a_line_that_is_not_cut() -> None:
    said = CliRunner().invoke(lathe.app, ["--help"], terminal_width=80).output
    assert "..." not in said.replace("[ARGS]...", "")
    assert all(f"  {name} " in said for name in COMMANDS)


def test_make_calls_tasks_that_there_are_with_the_same_surroundings() -> None:
    called = set(re.findall(r"\$\(BIN\)/lathe ([a-z]+)", MAKEFILE))
    assert called == set(COMMANDS)
    exported = dict(re.findall(r"^export (\w+) \??= (.*)$", MAKEFILE, re.MULTILINE))
    image = dict(re.findall(r"([A-Z_]+)=(\w+)", (ROOT / "Dockerfile").read_text(encoding="utf-8")))
    for given in (exported, image):
        same = {name: value for name, value in given.items() if name in SETTINGS}
        assert len(same) >= 6 and same.items() <= SETTINGS.items()


def test_help_loads_no_library_that_takes_seconds() -> None:
    code = "import sys; from flows.cli import lathe; print([m for m in sys.modules if m in %r])"
    heavy = {"torch", "transformers", "prefect", "dvc", "mlflow", "pydantic", "gradio", "numpy"}
    done = subprocess.run([sys.executable, "-c", code % heavy], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_outside_the_project_it_says_where_it_belongs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.cli.lathe", "demo"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lathe: no dvc.yaml here; run it from the project's root: cd <the checkout>\n"


def test_a_shell_completes_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert "own-text" in lathe.known_profiles("o") and lathe.known_profiles("nosuch") == []
