import json
from pathlib import Path

import pytest

from stages.common.runtime import logs
from stages.common.tracking import lineage, mlflow_store


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_link_is_to_this_flows_newest_run_of_the_stage() -> None:
    client = mlflow_store.client()
    experiment = client.create_experiment(lineage.project())
    made = [
        client.create_run(experiment, 1_000 + start, {"flow_run": flow}, name).info.run_id
        for start, (flow, name) in enumerate([("one", "sft"), ("one", "sft"), ("two", "sft"), ("one", "evaluate@sft")])
    ]
    assert mlflow_store.run_page("sft", "one") == f"http://127.0.0.1:5000/#/experiments/{experiment}/runs/{made[1]}"
    assert mlflow_store.run_page("evaluate@sft", "one").endswith(made[3])
    assert mlflow_store.run_page("promote", "one") == ""


def test_an_experiment_has_a_view_with_the_columns_that_matter() -> None:
    client, name = mlflow_store.client(), lineage.project()
    assert mlflow_store.experiment_page(client, name) == ""
    made = mlflow_store.experiment_id(client, name)
    assert mlflow_store.experiment_page(client, name) == f"#/experiments/{made}/runs?viewStateShareKey=lathe"
    state = json.loads(client.get_experiment(made).tags["mlflow.sharedViewState.lathe"])
    assert "metrics.`accuracy/iid`" in state["selectedColumns"]
    client.set_experiment_tag(made, "mlflow.sharedViewState.lathe", "{}")
    assert mlflow_store.experiment_id(client, name) == made
    assert client.get_experiment(made).tags["mlflow.sharedViewState.lathe"] == "{}", "a person's own stays"


def test_without_a_store_there_is_no_link_and_none_is_made() -> None:
    assert mlflow_store.run_page("sft", "one") == ""
    assert not mlflow_store.DATABASE.exists()


def test_a_store_that_is_away_costs_the_link_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(logs.log, "propagate", True)
    assert mlflow_store.run_page("sft", "one") == ""
    assert "no link to MLflow" in caplog.text
