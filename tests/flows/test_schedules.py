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

from flows.local import automations, background, deployments, services
from tests.flows.conftest import ROOT
from tests.flows.local.test_services import services as command
from tests.flows.test_train import post, read
from tests.support.loopback import running
from tests.support.notified import Mail, Webhook

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


def in_checkout(folder: Path, url: str, *arguments: str, **more: str) -> str:
    variables = os.environ | {"PREFECT_API_URL": url, "PYTHONPATH": str(ROOT), **more}
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
    by_hand = deployment(prefect_url, "train")
    with pytest.raises(httpx.HTTPStatusError) as refused:
        post(prefect_url, f"/deployments/{by_hand['id']}/create_flow_run", {"parameters": nonsense})
    assert 400 <= refused.value.response.status_code < 500
    assert runs(prefect_url, by_hand["id"]) == []


def test_the_form_says_what_each_field_is(checkout: Path, prefect_url: str) -> None:
    fields = deployment(prefect_url, "train")["parameter_openapi_schema"]["properties"]
    assert set(fields) == {"until", "force", "set", "stages_at_once", "stage_hours"}
    assert all(field.get("description") for field in fields.values()), json.dumps(fields, indent=1)
    assert fields["until"]["anyOf"][0]["enum"] == ["count", "raw", "upper", "count@raw", "count@upper"]
    assert (fields["stages_at_once"]["minimum"], fields["stages_at_once"]["maximum"]) == (1, 64)
    assert "hours" in fields["stage_hours"]["description"]
    names = [one["name"] for one in read(prefect_url, "/automations/filter")]
    assert names.count(automations.ZOMBIES) == 1


def test_people_are_told_once_of_a_run_that_failed(checkout: Path, prefect_url: str) -> None:
    def ended(flow: str, state: str) -> None:
        made = post(prefect_url, "/flows/", {"name": flow})
        run = post(prefect_url, "/flow_runs/", {"flow_id": made["id"], "name": f"{flow} at 1a2b3c4"})
        for name in ("RUNNING", state):
            body = {"state": {"type": name, "name": name.title(), "message": "bad row"}, "force": True}
            post(prefect_url, f"/flow_runs/{run['id']}/set_state", body)

    def deploy(**more: str) -> str:
        return in_checkout(checkout, prefect_url, "-m", "flows.local.deployments", **more)

    with running(Webhook()) as told:
        key = {"LATHE_NOTIFY": told.url}
        assert deploy(**key) == "lathe: deployed automation 'a run that failed'\n"
        assert deploy(**key) == "lathe: deployed nothing: all as in infra/prefect.yaml\n"
        shown = json.dumps(read(prefect_url, "/block_documents/filter") + read(prefect_url, "/automations/filter"))
        assert "lathe-notify" in shown and "s3cret" not in shown
        ended("train", "COMPLETED")
        ended("train within a run", "FAILED")  # the run around it fails too
        ended("train", "FAILED")
        until(lambda: told.seen)
        ended("rounds", "CRASHED")
        until(lambda: len(told.seen) > 1)
        assert [body["title"] for body in told.seen] == ["train at 1a2b3c4: Failed", "rounds at 1a2b3c4: Crashed"]
        assert all("bad row" in body["text"] for body in told.seen)
        with running(Mail()) as mail:  # another address by now
            assert deploy(LATHE_NOTIFY=mail.url) == "lathe: deployed automation 'a run that failed'\n"
            ended("review", "FAILED")
            until(lambda: mail.seen)
        assert mail.seen[0][0] == ["ann@example.org"] and "review at 1a2b3c4: Failed" in mail.seen[0][1]
        assert len(told.seen) == 2
        assert deploy() == "lathe: deployed no automation 'a run that failed' any more\n"


def test_the_pool_of_machines_with_gpus_is_there_and_leaves_the_folder_to_its_workers(
    checkout: Path, prefect_url: str
) -> None:
    gpu, own = deployment(prefect_url, "train-gpu"), deployment(prefect_url, "train")
    assert (gpu["work_pool_name"], own["work_pool_name"]) == ("lathe-gpu", "lathe")
    step = "prefect.deployments.steps.set_working_directory"
    assert gpu["pull_steps"] == [{step: {"directory": "{{ $LATHE_ROOT }}"}}]
    assert own["pull_steps"] == [{step: {"directory": str(checkout)}}]
    elsewhere = {"LATHE_POOL": "lathe-gpu", "LATHE_ROOT": "/another/machine"}
    joined = in_checkout(checkout, prefect_url, "-m", "flows.local.deployments", **elsewhere)
    assert joined == "lathe: deployed nothing: all as in infra/prefect.yaml\n"
    template = str(ROOT / "infra/k8s/job-template.json")
    create = ("-m", "prefect", "--no-prompt", "work-pool", "create", "cluster", "--type", "kubernetes")
    in_checkout(checkout, prefect_url, *create, "--base-job-template", template)
    moved = in_checkout(checkout, prefect_url, "-m", "flows.local.deployments", LATHE_GPU_POOL="cluster")
    assert moved == "lathe: deployed train/train-gpu\n"
    assert deployment(prefect_url, "train-gpu")["work_pool_name"] == "cluster"


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
