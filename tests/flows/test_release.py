"""The review on a real Prefect server and a real registry: a form, or the alias moved in MLflow,
decides alike.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.common.release import aliases, promotion_history, registry
from stages.common.release.comparisons import Comparison
from stages.common.release.gate import Decision
from stages.common.release.traffic import votes
from stages.common.tracking import mlflow_store
from tests.flows.conftest import environment
from tests.flows.test_train import read
from tests.support import printed
from tests.support.loopback import running
from tests.support.notified import Webhook

GOOD = Comparison(metric="a", against="base", rule="beats", limit=0.0, change=None, passed=True, reason="better")
PASSED = Decision(passed=True, reason="better", comparisons=(GOOD,))
REVIEW = ["-m", "flows.release", "review"]
RELEASE = ["-c", "from flows import release; print(release.release())"]
GATE = "stages:\n  raw:\n    cmd: echo a > raw.txt\n    outs: [raw.txt]\n"
GATE += "  promote:\n    cmd: cp raw.txt judged.txt\n    deps: [raw.txt]\n    outs: [judged.txt]\n"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def project(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a champion and a version that waits for a person."""
    monkeypatch.chdir(repository)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (repository / "params.yaml").write_text("run: {name: world}\npromote: {name: lathe}\n")
    (repository / "dvc.yaml").write_text(GATE)
    client = mlflow_store.client()
    client.create_registered_model("lathe")
    for approval in ("auto", "manual"):
        made = client.create_model_version("lathe", "file:///nowhere")
        version = registry.numbered(client, "lathe", str(made.version))
        held = registry.with_alias(client, "lathe", "champion")
        aliases.release(client, version, PASSED, approval, "# The card", held)
    return repository


@pytest.fixture
def paused(
    request: pytest.FixtureRequest, project: Path, prefect_url: str
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The review as a user starts it, or another flow that asks, once it waits; with its flow run's
    id.
    """
    known = {run["id"] for run in read(prefect_url, "/flow_runs/filter")}
    command = [sys.executable, *getattr(request, "param", REVIEW)]
    process = subprocess.Popen(
        command,
        cwd=project,
        env=environment(prefect_url),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        end = time.monotonic() + 180
        while True:
            assert process.poll() is None, process.stdout and process.stdout.read()
            assert time.monotonic() < end, "never paused"
            runs = [run for run in read(prefect_url, "/flow_runs/filter") if run["id"] not in known]
            waiting = [run["id"] for run in runs if run["state_type"] == "PAUSED"]
            if waiting:
                break
            time.sleep(0.5)
        yield process, waiting[0]
    finally:
        process.kill()
        process.wait()


def said(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def champion() -> tuple[str, dict[str, str]]:
    client = mlflow_store.client()
    found = registry.with_alias(client, "lathe", "champion")
    assert found
    return found.number, registry.numbered(client, "lathe", "2").tags


def resume(url: str, run: str, **answer: str) -> Any:
    return read(url, f"/flow_runs/{run}/resume", run_input=answer)


def test_the_form_decides(paused: tuple["subprocess.Popen[str]", str], prefect_url: str) -> None:
    process, run = paused
    wrong = resume(prefect_url, run, decision="perhaps", reason="", who="ann")
    assert wrong["status"] == "REJECT"
    assert process.poll() is None
    resume(prefect_url, run, decision="approve", reason="reads well", who="ann")
    shown = said(process)
    assert "version 2 of lathe is champion" in shown and printed.foreign(shown) == []
    number, tags = champion()
    assert number == "2"
    assert [tags[key] for key in ("review", "review_by", "review_reason")] == ["approved", "ann", "reads well"]
    last = promotion_history.read()[-1]
    assert [last[key] for key in ("action", "who", "reason", "from", "to")] == [
        *("approved", "ann", "reads well"),
        *("1", "2"),
    ]


@pytest.mark.parametrize("paused", [RELEASE], indirect=True, ids=["release"])
def test_after_the_gate_a_no_is_recorded_and_moves_nothing(
    paused: tuple["subprocess.Popen[str]", str], prefect_url: str, project: Path
) -> None:
    process, run = paused
    assert (project / "judged.txt").exists()
    resume(prefect_url, run, decision="reject", reason="too short", who="bob")
    assert "version 2 of lathe is rejected" in said(process)
    number, tags = champion()
    assert (number, tags["review"], tags["rejected"]) == ("1", "rejected", "too short (bob)")


def test_the_alias_moved_in_mlflow_decides_alike(paused: tuple["subprocess.Popen[str]", str]) -> None:
    process, _ = paused
    mlflow_store.client().set_registered_model_alias("lathe", "champion", "2")
    assert "version 2 was decided elsewhere: alias champion was moved by hand" in said(process)
    number, tags = champion()
    assert (number, tags["review"]) == ("2", "approved")
    previous = registry.with_alias(mlflow_store.client(), "lathe", "previous")
    assert previous
    assert previous.number == "1"
    assert promotion_history.read()[-1]["action"] == "moved by hand"


def test_the_commands_decide_without_a_server(project: Path) -> None:
    with running(Webhook()) as told:
        decide_by_commands(project, told.url)
    assert [body["title"] for body in told.seen] == [
        "version 1 of lathe is champion again, version 2 is rolled back",
    ]
    assert "it is rude (" in told.seen[0]["text"]


def decide_by_commands(project: Path, address: str) -> None:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "flows.release", *arguments]
        return subprocess.run(
            command, cwd=project, env=environment("http://127.0.0.1:9/api", LATHE_NOTIFY=address),
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    done = run("challenge", "2")
    assert (done.returncode, "version 2 of lathe challenges version 1" in done.stdout) == (0, True), done.stderr
    assert champion()[0] == "1"
    tally = {"won": 7, "lost": 3, "ties": 0, "both_bad": 1, "reviewers": 2, "counted": 0} | {"against": "1"}
    registry.tag(mlflow_store.client(), registry.numbered(mlflow_store.client(), "lathe", "2"), {
        votes.TAG: json.dumps([tally])
    })  # fmt: skip
    done = run("approve", "2", "--reason", "reads well")
    assert done.returncode == 0, done.stderr
    shown = done.stdout.index("version 2: Side by side with version 1, blind: won 7, lost 3, ties 0, both bad 1")
    assert shown < done.stdout.index("is champion"), "before it is done"
    assert champion()[0] == "2"
    for expected in ("version 1 of lathe is champion again, version 2 is rolled back", "nothing to do"):
        done = run("rollback", "--reason", "it is rude")
        assert (done.returncode, expected in done.stdout) == (0, True), done.stdout + done.stderr
    assert champion()[0] == "1"
    missing = run("approve", "9")
    assert missing.returncode == 4
    assert "'lathe' has no version '9'; there are: 1, 2" in missing.stderr
