"""Tracking to a team's store: an MLflow server that wants a password and keeps its files on S3."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.common.runtime.errors import ParamsError
from stages.common.tracking import event_log, forwarder, mlflow_sender, mlflow_store, session
from tests.support import object_storage
from tests.support.mlflow_server import free_port, server

BUCKET, PASSWORD = "lathe-files", "a password of the tests"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an S3 with one bucket, on loopback."""
    for name, value in object_storage.KEYS.items():
        monkeypatch.setenv(name, value)
    with object_storage.serving(BUCKET) as address:
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", address)
        yield address


def stored(address: str) -> list[str]:
    return object_storage.stored(address, BUCKET)


def track(value: float) -> None:
    with session.start("sft", params={"sft": {"seed": 1}}) as run:
        run.metrics({"loss": value}, step=1)
        run.table("answers", [{"prompt": "2+2", "answer": "4"}])
        run.checkpoint("sft-1.0", Path("models/sft/epoch-1"), 1, {"eval_loss": value}, "aa")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--artifacts-destination", f"s3://{BUCKET}/kept"),
        ("--no-serve-artifacts", "--default-artifact-root", f"s3://{BUCKET}/kept"),
    ],
    ids=["through the server", "past the server"],
)
def test_a_server_with_accounts_and_files_on_s3(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, options: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("run:\n  name: world\n", encoding="utf-8")
    for variable in ("DVC_STAGE", "RANK"):
        monkeypatch.delenv(variable, raising=False)
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    accounts = {"MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD, "MLFLOW_FLASK_SERVER_SECRET_KEY": "signs cookies"}
    with server(port, "--app-name", "basic-auth", *options, **accounts):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
        track(2.0)
        (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert "tracking waits in .lathe/spool" in warning and "wrong" not in warning
        with pytest.raises(ParamsError, match=r"lets us not in: .*; set MLFLOW_TRACKING_USERNAME"):
            mlflow_store.client()  # to try again would not help
        assert len(list(event_log.FOLDER.glob("*.jsonl"))) == 1 and not stored(s3)

        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        track(1.0)
        forwarder.replay(mlflow_sender.Sender())
        assert not list(event_log.FOLDER.glob("*.jsonl")), "what had waited is sent too"
        client = mlflow_store.client()
        experiment = client.get_experiment_by_name("world")
        assert experiment
        runs = client.search_runs([experiment.experiment_id])
        assert sorted(run.data.metrics["loss"] for run in runs) == [1.0, 2.0]
        assert {run.info.status for run in runs} == {"FINISHED"}
        for run in runs:
            assert [file.path for file in client.list_artifacts(run.info.run_id, "tables")] == ["tables/answers.json"]
            copy = tmp_path / "fetched" / run.info.run_id
            mlflow_store.download(f"{run.info.artifact_uri}/tables", copy)
            assert (copy / "answers.json").stat().st_size > 20
        assert len([key for key in stored(s3) if key.startswith("kept/") and key.endswith("answers.json")]) == 2
    assert PASSWORD not in caplog.text
