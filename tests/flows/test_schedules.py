"""A schedule set in Prefect's page starts runs on the server and the worker of `make up`."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.local import services
from tests.flows.conftest import ROOT
from tests.flows.local.test_services import services as command
from tests.flows.test_train import post, read

WAIT_SECONDS = 120.0


@pytest.fixture
def deployment(repository: Path, prefect_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The id of deployment `nightly` of infra/prefect.yaml over `repository`, with a worker, as
    `make up` has them.
    """
    shutil.copytree(ROOT / "infra", repository / "infra")
    for package in ("flows", "stages"):
        (repository / package).symlink_to(ROOT / package)
    monkeypatch.chdir(repository)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")  # so `up` starts no MLflow server
    try:
        up = command(repository, "up", prefect_url)
        assert up.returncode == 0, up.stderr
        found = read(prefect_url, "/deployments/filter", deployments={"name": {"any_": ["nightly"]}})
        yield found[0]["id"]
        services.prefect(prefect_url, "deployment", "delete", "--all")
    finally:
        down = command(repository, "down", prefect_url)
        assert down.returncode == 0, down.stderr


def runs(url: str, deployment: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read(url, "/flow_runs/filter", deployments={"id": {"any_": [deployment]}})
    return found


@pytest.mark.slow
def test_a_schedule_from_the_page_outlives_the_next_up_and_its_runs_complete(
    deployment: str, repository: Path, prefect_url: str
) -> None:
    every = {"interval": 10, "timezone": "UTC"}
    body = [{"schedule": every, "active": True, "parameters": {"until": "raw"}}]
    post(prefect_url, f"/deployments/{deployment}/schedules", body)
    services.prefect(prefect_url, "deploy", "--all", "--prefect-file", services.DEPLOYMENTS)  # the next `make up`
    deadline = time.monotonic() + WAIT_SECONDS
    while not any(run["state_name"] == "Completed" for run in runs(prefect_url, deployment)):
        states = [run["state_name"] for run in runs(prefect_url, deployment)]
        assert time.monotonic() < deadline, f"{states}\n{services.LOG.read_text()}"
        time.sleep(1)
    completed = next(run for run in runs(prefect_url, deployment) if run["state_name"] == "Completed")
    assert completed["auto_scheduled"] and completed["created_by"]["type"] == "SCHEDULE"
    assert (repository / "raw.txt").read_text() == "a\nb\n" and not (repository / "upper.txt").exists()
