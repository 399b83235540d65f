"""Tracking against a real store: what a run leaves there, and a store that is away or refuses."""

import json
import logging
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from stages.common.runtime.errors import StopRequested, TryAgainError
from stages.common.tracking import event_log, forwarder, mlflow_sender, mlflow_store, run, session
from tests.support.mlflow_server import free_port, wait_for

ROOT = Path(__file__).parents[3]
PARAMS = {"sft": {"max_tokens": 256, "training": {"learning_rate": 1e-5, "betas": [0.9, 0.95]}}}
ENCODINGS = {"ingest": {"encodings": {"old/*.txt": "big5"}, "datasets": []}}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working tree of its own, on the default store."""
    folder = tmp_path / "my project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for variable in ("MLFLOW_TRACKING_URI", "DVC_STAGE", "RANK"):
        monkeypatch.delenv(variable, raising=False)
    return folder


def rows(query: str, database: Path = Path("mlflow.db")) -> list[tuple[Any, ...]]:
    with sqlite3.connect(database) as connection:
        return connection.execute(query).fetchall()


def test_a_run_is_whole_in_the_store(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    monkeypatch.setenv("LATHE_FLOW_RUN_ID", "flow-7")
    Path("dvc.lock").write_text("stages:\n  validate:\n    outs:\n    - path: data/validated\n      md5: 0123abc.dir\n")
    Path("params.yaml").write_text("run:\n  name: world\n  launcher: python\n")
    figure = Figure()
    figure.subplots().plot([1, 2])
    (project / "notes").mkdir()
    (project / "notes/note.txt").write_text("read me")
    inputs = {"conversations": Path("data/validated/conversations")}
    with session.start("sft", params=PARAMS | ENCODINGS, inputs=inputs, fingerprint="f1") as tracked:
        for step in range(3):
            tracked.metrics({"loss": 3 - step, "lr": 0.1}, step=step)
        tracked.figure("loss", figure)
        tracked.table("answers", [{"prompt": "2+2", "answer": "4"}, {"prompt": "中国", "score": 1}])
        tracked.artifact(project / "notes")
        tracked.checkpoint("sft-1.0", Path("models/sft/epoch-1"), 1, {"eval_loss": 2.0}, "aa")
        tracked.checkpoint("sft-2.0", Path("models/sft/epoch-2"), 2, {"eval_loss": 1.0}, "bb")

    client = mlflow_store.client()
    experiment = client.get_experiment_by_name("world")
    assert experiment
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("sft", "FINISHED")
    assert found.data.params["sft.training.learning_rate"] == "1e-05"
    assert found.data.params["sft.training.betas"] == "[0.9, 0.95]"
    assert found.data.params["ingest.encodings"] == '{"old/*.txt": "big5"}'
    assert {key: found.data.tags[key] for key in ("fingerprint", "flow_run")} == {
        "fingerprint": "f1",
        "flow_run": "flow-7",
    }
    assert [point.value for point in client.get_metric_history(found.info.run_id, "loss")] == [3, 2, 1]
    assert found.inputs and found.outputs
    assert [(data.dataset.name, data.dataset.digest) for data in found.inputs.dataset_inputs] == [
        ("conversations", "0123abc.dir")
    ]
    best = client.search_logged_models(
        [experiment.experiment_id], order_by=[{"field_name": "metrics.eval_loss", "ascending": True}]
    )
    assert [model.tags["sha256"] for model in best] == ["bb", "aa"]
    assert best[0].params == {"sha256": "bb", "path": "models/sft/epoch-2", "step": "2"}
    assert {(output.model_id, output.step) for output in found.outputs.model_outputs} == {
        (best[0].model_id, 2),
        (best[1].model_id, 1),
    }
    kept = project / "mlartifacts" / found.info.run_id / "artifacts"
    assert (kept / "figures/loss.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((kept / "tables/answers.json").read_text()) == {
        "columns": ["prompt", "answer", "score"],
        "data": [["2+2", "4", None], ["中国", None, 1]],
    }
    assert (kept / "notes/note.txt").read_text() == "read me"
    assert not list(event_log.FOLDER.iterdir()), "the spool is emptied once the store has everything"


@pytest.mark.parametrize(
    ("error", "status", "tag"),
    [(ValueError("row 3"), "FAILED", "ValueError: row 3"), (StopRequested(), "KILLED", "StopRequested: ")],
)
def test_a_run_that_ends_badly_says_so_and_raises_on(
    project: Path, error: BaseException, status: str, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "STOP_SECONDS", 60)  # a busy machine's first look at the store
    with pytest.raises(type(error)), session.start("sft"):
        raise error
    assert rows("select status from runs") == [(status,)]
    assert rows("select value from tags where key = 'error'") == [(tag,)]


def test_processor_and_memory_are_logged_while_the_run_goes_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SYSTEM_SECONDS", 0.05)
    with session.start("sft"):
        time.sleep(0.5)
    found = dict(rows("select key, max(value) from metrics group by key"))
    assert set(found) == {
        "system/cpu_utilization_percentage",
        "system/system_memory_usage_percentage",
        "system/process_memory_usage_megabytes",
    }
    assert 10 < found["system/process_memory_usage_megabytes"] < 100_000
    assert len(rows("select * from metrics where key = 'system/process_memory_usage_megabytes'")) >= 3


def test_ranks_other_than_the_first_track_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with session.start("sft") as tracked:
        tracked.metrics({"loss": 1.0})
        tracked.table("answers", [{"a": 1}])
    assert not list(project.iterdir())


def test_sending_everything_twice_leaves_it_there_once(project: Path) -> None:
    events = run.begin("sft", PARAMS, {"raw": Path("data/raw")}, "f")
    assert events
    tracked = run.Run(events)
    tracked.metrics({"loss": 1.0, "nothing": float("nan")}, step=1)
    tracked.table("answers", [{"a": 1}])
    tracked.checkpoint("c", Path("models/c"), 1, {"eval_loss": 1.0}, "aa")
    tracked.close("FINISHED", {})
    for _ in range(2):
        assert forwarder.drain(mlflow_sender.Sender(), events)
        events.state = {"offset": 0}
    tables = ("runs", "metrics", "params", "logged_models", "logged_model_metrics", "datasets", "inputs")
    counts = {table: rows(f"select count(*) from {table}")[0][0] for table in tables}
    assert counts == {
        "runs": 1, "metrics": 3, "params": 3, "logged_models": 1, "logged_model_metrics": 1, "datasets": 1, "inputs": 2
    }  # fmt: skip


def test_what_the_store_refuses_for_good_does_not_hold_up_the_rest(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with session.start("sft") as tracked:
        tracked.tags({"": "no name"})
        tracked.metrics({"loss": 1.0})
    assert rows("select key from metrics") == [("loss",)]
    assert rows("select status from runs") == [("FINISHED",)]
    assert [record.message for record in caplog.records if "MLflow refuses an event (tags)" in record.message]


def test_a_store_that_is_away_costs_one_warning_and_is_caught_up_later(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{free_port()}")
    with session.start("sft") as tracked:
        tracked.metrics({"loss": 1.0}, step=1)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "tracking waits in .lathe/spool" in warnings[0]
    assert "secret" not in caplog.text
    with pytest.raises(TryAgainError):
        mlflow_store.client()

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with session.start("evaluate"):
        wait_for(lambda: len(list(event_log.FOLDER.glob("*.jsonl"))) == 1)
    assert sorted(rows("select name, status from runs")) == [("evaluate", "FINISHED"), ("sft", "FINISHED")]
    # a wait of ten seconds or more adds the machine's own metrics
    assert rows("select key, value, step from metrics where key not like 'system/%'") == [("loss", 1.0, 1)]


def test_a_spool_that_cannot_be_written_does_not_stop_the_stage(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path(".lathe").write_text("a file where the folder should be")
    with session.start("sft") as tracked:
        tracked.metrics({"loss": 1.0})
    assert "this run is not tracked" in caplog.text
