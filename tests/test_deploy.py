"""Deployment: the champion is loaded as a server loads it, answers the canned prompts, and chats
over real HTTP.
"""

import inspect
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest

from stages import deploy, promote
from stages.common.core import chat, models
from stages.common.release import aliases, registry
from stages.common.runtime import logs, process
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.serving.engine.champions import facts, fingerprint
from stages.common.serving.pages import inputs
from stages.common.tracking import mlflow_store
from tests.support import backend, printed
from tests.support.champion import write_project

ROOT = Path(__file__).parent.parent
REPORT = Path("reports/deploy.json")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a champion; it stays where it is, for MLflow keeps absolute paths."""
    folder = tmp_path_factory.mktemp("promoted")
    write_project(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        promote.main(Path("reports/evaluate"), Path("models"), Path("reports/promote.json"))
    return folder


@pytest.fixture
def project(template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(template)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    REPORT.unlink(missing_ok=True)
    return template


def test_the_champion_answers_the_canned_prompts(project: Path) -> None:
    deploy.check(Path("reports/promote.json"), REPORT)
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    promoted = json.loads(Path("reports/promote.json").read_text(encoding="utf-8"))
    assert report["weights_sha256"] == promoted["weights_sha256"]
    assert [row["prompt"] for row in report["answers"]] == ["What is the capital of land 3?", "第3国的首都是哪里？"]
    assert all(row["answer"] for row in report["answers"])
    assert set(report) == {"name", "weights_sha256", "answers"}, "no time, version or run in an out"
    first = REPORT.read_bytes()
    deploy.check(Path("reports/promote.json"), REPORT)
    assert REPORT.read_bytes() == first
    client = mlflow_store.client()
    experiment = client.get_experiment_by_name("world")
    assert experiment
    newest = client.search_runs([experiment.experiment_id], "attributes.run_name = 'deploy'", max_results=1)[0]
    assert 0 < newest.data.metrics["first_token_seconds"] < 60


def without_champion(report: dict[str, Any]) -> dict[str, Any]:
    return report | {
        "champion_sha256": None,
        "decision": "refused",
        "reason": "accuracy/iid 0.1 does not beat the base's 0.2",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda report: report | {"champion_sha256": "f" * 64}, "the champion's weights are ffffffffffff here and "),
        (without_champion, "there is no champion: accuracy/iid 0.1 does not beat the base's 0.2"),
        (lambda report: report | {"name": "nobody"}, "'nobody' has no champion"),
        (lambda report: {"name": "lathe"}, "not a promotion's report"),
    ],
)
def test_a_champion_other_than_the_promoted_one_is_not_deployed(
    project: Path, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], message: str
) -> None:
    report = json.loads(Path("reports/promote.json").read_text(encoding="utf-8"))
    (tmp_path / "promote.json").write_text(json.dumps(change(report)), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        deploy.check(tmp_path / "promote.json", REPORT)
    assert not REPORT.exists()


def test_weights_that_wait_for_their_first_review_do_not_stop_the_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(settings.replace("base: pretrain", "base: pretrain\n  approval: manual"))
    promote.main(Path("reports/evaluate"), Path("models"), Path("reports/promote.json"))
    promoted = json.loads(Path("reports/promote.json").read_text(encoding="utf-8"))
    assert (promoted["decision"], promoted["champion_sha256"]) == ("pending", None)

    deploy.check(Path("reports/promote.json"), REPORT)
    assert logs.key_figure == ["no champion yet: version 1 waits for review, make review"]
    waits = {"name": "lathe", "weights_sha256": promoted["weights_sha256"], "review": "pending", "answers": []}
    assert json.loads(REPORT.read_text(encoding="utf-8")) == waits

    aliases.approve(mlflow_store.client(), "lathe", "1", "reads well", by="a person")
    deploy.check(Path("reports/promote.json"), REPORT)
    deployed = json.loads(REPORT.read_text(encoding="utf-8"))
    assert deployed["weights_sha256"] == promoted["weights_sha256"] and len(deployed["answers"]) == 2
    assert logs.key_figure[0].startswith("version 1 answers")


@pytest.mark.parametrize(
    ("host", "given", "without", "message"),
    [
        ("127.0.0.1", "", False, ""),
        ("127.0.0.1", "0123456789abcdef", False, ""),
        ("0.0.0.0", "0123456789abcdef", False, ""),
        ("0.0.0.0", "", True, ""),
        ("0.0.0.0", "", False, "everybody who reaches this address could use the model; set LATHE_SERVE_TOKEN"),
        ("127.0.0.1", "hunter2", False, "it has 7 characters; take 16 or more"),
    ],
)
def test_beyond_loopback_a_token_is_needed(
    monkeypatch: pytest.MonkeyPatch, host: str, given: str, without: bool, message: str
) -> None:
    monkeypatch.setenv(deploy.TOKEN, given)
    if not message:
        assert deploy.token(host, without) == given
        return
    with pytest.raises(ParamsError) as caught:
        deploy.token(host, without)
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(folder: Path, port: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "stages.deploy", "serve", "--port", str(port)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("DVC_STAGE", None)
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@contextmanager
def elsewhere() -> Iterator[None]:
    """Have the champion computed by another server, as deploy.backend says."""
    version, folder = registry.champion(mlflow_store.client(), "lathe")
    tokenizer, named = models.load_tokenizer(folder), fingerprint(facts(version))
    with backend.serving(models.load(folder).eval(), tokenizer, chat.stops(tokenizer), [named]) as there:
        params = Path("params.yaml").read_text(encoding="utf-8")
        Path("params.yaml").write_text(params.replace("deploy:\n", f"deploy:\n  backend: {there.url}\n"))
        yield
        Path("params.yaml").write_text(params)
        assert there.seen


@pytest.mark.slow
@pytest.mark.parametrize("where", [nullcontext, elsewhere], ids=["here", "elsewhere"])
def test_the_served_champion_gives_the_canned_answers_and_leaves_on_sigterm(
    project: Path, where: Callable[[], AbstractContextManager[None]]
) -> None:
    deploy.check(Path("reports/promote.json"), REPORT)
    with where():
        serves(project, json.loads(REPORT.read_text(encoding="utf-8")))


def serves(project: Path, expected: dict[str, Any]) -> None:
    """Start the server, ask it, end it."""
    from gradio_client import Client  # type: ignore[import-untyped]  # ships no annotations

    port = free_port()
    server = start(project, port)
    try:
        assert server.stdout
        line = server.stdout.readline()
        assert f"version 1 of lathe chats at http://127.0.0.1:{port}" in line, server.communicate()
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + 30
        while True:
            try:
                ready = httpx.get(f"{url}/readyz").json()
                break
            except httpx.TransportError:
                assert time.monotonic() < end
                time.sleep(0.1)
        assert (ready["status"], ready["weights_sha256"]) == ("ready", expected["weights_sha256"])
        client = Client(url, verbose=False)
        for row in expected["answers"]:
            asked = [{"role": "user", "content": [{"type": "text", "text": row["prompt"]}]}]
            turns, counts, _ = client.predict(asked, "", "greedy", 1.0, 1.0, 2, 1.0, 16, api_name="/chat")
            assert inputs.last(turns) == inspect.cleandoc(row["answer"])  # as Gradio shows it
            assert re.fullmatch(r"\d+ tokens read, \d+ written, version 1", counts)
        with process.locked("deploy"):
            pass  # serving does not hold the stage's lock
    finally:
        server.send_signal(signal.SIGTERM)
        rest, errors = server.communicate(timeout=60)
    assert server.returncode == 143
    assert printed.foreign(rest + errors) == []


@pytest.mark.slow
def test_a_port_in_use_ends_serving_before_the_model_is_loaded(project: Path, tmp_path: Path) -> None:
    shutil.copy(project / "params.yaml", tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = start(tmp_path, port)
        _, errors = server.communicate(timeout=120)
    assert server.returncode == 75
    (line,) = errors.splitlines()
    assert f"127.0.0.1:{port}: the port is in use" in line
    assert f"end what uses it, or: {deploy.SERVE} serve --port {port + 1}; then continue with" in line
    assert f"then continue with: {deploy.SERVE} serve --port {port}  (log" in line
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_serving_without_a_champion_says_how_to_get_one(project: Path, tmp_path: Path) -> None:
    shutil.copy(project / "params.yaml", tmp_path)
    server = start(tmp_path, free_port())
    _, errors = server.communicate(timeout=120)
    assert server.returncode == 4
    (line,) = errors.splitlines()
    assert "'lathe' has no champion; run `dvc repro -f promote`" in line
