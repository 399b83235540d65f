"""The link from a stage to its run: this flow's, or the earlier one that made what is there."""

import json
from pathlib import Path

import pytest
from mlflow.entities import Dataset, DatasetInput, InputTag, Param

from stages.common.runtime import logs
from stages.common.tracking import lineage, mlflow_store, run_pages
from stages.common.tracking.run_pages import Pages

LOCK = (
    "stages:\n  sft:\n    deps:\n    - path: data\n      md5: aaa\n    outs:\n    - path: models/sft\n      md5: bbb\n"
)


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("params.yaml").write_text("sft:\n  epochs: 2\n  training: {learning_rate: 1e-5}\n")


def test_the_link_is_to_this_flows_newest_run_of_the_stage_or_to_the_run_that_made_what_is_there() -> None:
    client = mlflow_store.client()
    experiment = mlflow_store.experiment_id(client, lineage.project())
    kind = client.get_experiment(experiment).tags["mlflow.experimentKind"]
    assert kind == "custom_model_development", "MLflow's page opens it on its runs"
    made = [
        client.create_run(experiment, 1_000 + start, {"flow_run": flow}, name).info.run_id
        for start, (flow, name) in enumerate([("one", "sft"), ("one", "sft"), ("two", "sft"), ("one", "evaluate@sft")])
    ]
    pages = Pages("one")
    link = f"http://127.0.0.1:5000/#/experiments/{experiment}/runs/{made[1]}?workflowType=machine_learning"
    assert pages.of("sft", anew=True) == link
    assert made[3] in pages.of("evaluate@sft", anew=True)
    assert pages.of("promote", anew=True) == ""

    Path("dvc.lock").write_text(LOCK)
    given = [("aaa", "2", "1e-05"), ("aaa", "3", "1e-05"), ("old", "2", "1e-05")]  # right, other params, other data
    for start, (data, epochs, rate) in enumerate(given):
        run = client.create_run(experiment, 2_000 + start, {}, "sft").info.run_id
        client.log_batch(run, params=[Param("sft.epochs", epochs), Param("sft.training.learning_rate", rate)])
        dataset = Dataset("conversations", data, source_type="local", source="{}")
        client.log_inputs(run, [DatasetInput(dataset, [InputTag("dvc_hash", data)])])
        client.set_terminated(run, "FINISHED")
        made.append(run)
    assert made[4] in Pages("three").of("sft", anew=False)


def test_an_experiment_has_a_view_with_the_columns_that_matter() -> None:
    client, name = mlflow_store.client(), lineage.project()
    assert run_pages.of_project(client) == ""
    made = mlflow_store.experiment_id(client, name)
    link = f"http://127.0.0.1:5000/#/experiments/{made}/runs?workflowType=machine_learning&viewStateShareKey=lathe"
    assert run_pages.of_project(client) == link
    state = json.loads(client.get_experiment(made).tags["mlflow.sharedViewState.lathe"])
    assert "metrics.`accuracy/iid`" in state["selectedColumns"]
    client.set_experiment_tag(made, "mlflow.sharedViewState.lathe", "{}")
    assert mlflow_store.experiment_id(client, name) == made
    assert client.get_experiment(made).tags["mlflow.sharedViewState.lathe"] == "{}", "a person's own stays"


def test_without_a_store_there_is_no_link_and_none_is_made() -> None:
    assert Pages("one").of("sft", anew=True) == Pages("one").of("sft", anew=False) == ""
    assert not mlflow_store.DATABASE.exists()


def test_a_store_that_is_away_costs_the_link_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(logs.log, "propagate", True)
    assert Pages("one").of("sft", anew=True) == ""
    assert "no link to MLflow" in caplog.text
