"""What `make up` puts on the server: a schedule set in the page starts runs and outlives the next
`make up`, the form refuses nonsense, and a service that dies is started again alone.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flows.local import background, deployments, services
from tests.flows.conftest import ROOT
from tests.flows.local.test_services import services as command
from tests.flows.test_train import post, read

WAIT_SECONDS = 300.0

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def checkout(repository_template: Path, prefect_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small repository with a worker and the deployments of infra/prefect.yaml, as `make up` has
    them.
    """
    folder = shutil.copytree(repository_template, tmp_path_factory.mktemp("up") / "repository")
    shutil.copytree(ROOT / "infra", folder / "infra")
    file = folder / deployments.FILE
    file.write_text(file.read_text().replace("until: validate", "until: upper"))  # a stage there is
    for package in ("flows", "stages"):
        (folder / package).symlink_to(ROOT / package)
    store = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}  # so `up` starts no MLflow server
    try:
        up = command(folder, "up", prefect_url, **store)
        assert up.returncode == 0, up.stderr
        yield folder
        in_checkout(folder, prefect_url, "-m", "prefect", "--no-prompt", "deployment", "delete", "--all")
    finally:
        down = command(folder, "down", prefect_url)
        assert down.returncode == 0, down.stderr


def in_checkout(folder: Path, url: str, *arguments: str) -> str:
    variables = os.environ | {"PREFECT_API_URL": url, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=variables, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def deployment(url: str, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = read(url, "/deployments/filter", deployments={"name": {"any_": [name]}})
    return found[0]


def runs(url: str, of: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read(url, "/flow_runs/filter", deployments={"id": {"any_": [of]}})
    return found


def until(condition: Callable[[], Any], say: Callable[[], str] = str) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, say()
        time.sleep(0.5)
    return found


def test_a_schedule_from_the_page_outlives_the_next_up_and_its_runs_complete(checkout: Path, prefect_url: str) -> None:
    nightly = deployment(prefect_url, "nightly")["id"]
    every = {"interval": 10, "timezone": "UTC"}
    body = [{"schedule": every, "active": True, "parameters": {"until": "raw"}}]
    post(prefect_url, f"/deployments/{nightly}/schedules", body)
    again = in_checkout(checkout, prefect_url, "-m", "flows.local.deployments")  # what the next `make up` does
    assert again == "lathe: deployed nothing: all as in infra/prefect.yaml\n"
    file = checkout / deployments.FILE
    file.write_text(file.read_text().replace("Add a schedule in the page", "Schedule it in the page"))
    changed = in_checkout(checkout, prefect_url, "-m", "flows.local.deployments")
    assert changed == "lathe: deployed train/nightly\n"
    now = deployment(prefect_url, "nightly")
    assert "Schedule it in the page" in now["description"]
    assert [(one["schedule"]["interval"], one["active"]) for one in now["schedules"]] == [(10, True)]

    def completed() -> list[dict[str, Any]]:
        return [run for run in runs(prefect_url, nightly) if run["state_name"] == "Completed"]

    def states() -> str:
        return f"{[run['state_name'] for run in runs(prefect_url, nightly)]}\n{logs(checkout)}"

    first = until(completed, states)[0]
    post(prefect_url, f"/deployments/{nightly}/pause_deployment", {})
    assert first["auto_scheduled"] and first["created_by"]["type"] == "SCHEDULE"
    assert first["name"].startswith("raw at ")
    assert (checkout / "raw.txt").read_text() == "a\nb\n" and not (checkout / "upper.txt").exists()


def logs(checkout: Path) -> str:
    files = [checkout / services.LOG, *(checkout / "logs/services").glob("*.log")]
    return "\n".join(file.read_text() for file in files)


@pytest.mark.parametrize(
    "nonsense", [{"stages_at_once": 0}, {"stages_at_once": -1}, {"stage_hours": 0}, {"until": "uper"}, {"frce": True}]
)
def test_the_form_refuses_nonsense(checkout: Path, prefect_url: str, nonsense: dict[str, Any]) -> None:
    by_hand = deployment(prefect_url, "by-hand")
    with pytest.raises(httpx.HTTPStatusError) as refused:
        post(prefect_url, f"/deployments/{by_hand['id']}/create_flow_run", {"parameters": nonsense})
    assert 400 <= refused.value.response.status_code < 500
    assert runs(prefect_url, by_hand["id"]) == []


def test_the_form_says_what_each_field_is(checkout: Path, prefect_url: str) -> None:
    fields = deployment(prefect_url, "by-hand")["parameter_openapi_schema"]["properties"]
    assert set(fields) == {"until", "force", "set", "stages_at_once", "stage_hours"}
    assert all(field.get("description") for field in fields.values()), json.dumps(fields, indent=1)
    assert fields["until"]["anyOf"][0]["enum"] == ["count", "raw", "upper", "count@raw", "count@upper"]
    assert (fields["stages_at_once"]["minimum"], fields["stages_at_once"]["maximum"]) == (1, 64)
    assert "hours" in fields["stage_hours"]["description"]
    names = [one["name"] for one in read(prefect_url, "/automations/filter")]
    assert names.count(deployments.ZOMBIES) == 1


@pytest.mark.fault
def test_a_service_that_dies_is_started_again_alone(checkout: Path, prefect_url: str) -> None:
    top = background.find(checkout / services.RECORD)
    assert top is not None

    def workers() -> list[psutil.Process]:
        found = []
        for child in top.children():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):  # it may end while we look
                found += [child] if "worker" in child.cmdline() else []
        return found

    (before,) = until(workers)
    os.kill(before.pid, signal.SIGKILL)
    (after,) = until(lambda: [one for one in workers() if one.pid != before.pid], lambda: logs(checkout))
    assert top.is_running() and after.pid != before.pid
    assert "worker ended with -9; started again in" in (checkout / services.LOG).read_text()
