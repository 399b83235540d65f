"""A checkout in operation: a schedule trains, and whatever is cancelled or killed meanwhile, no run
is lost, the services come back, and the weights are those of a training that nobody disturbed.
"""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from ruamel.yaml import YAML

from stages.common.core import params
from tests.flows.conftest import free_port
from tests.flows.test_train import post, read, still_running
from tests.support.counts import FULL
from tests.support.machines import ENDED, Machine, until

TOLD_SECONDS = 120
"""For how long a run may be Running though nobody works for it."""
STAGE = re.compile(r"-m stages\.")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fault,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not FULL, reason="trainings beside services that are killed: make faults FULL=1"),
]
Tell = Callable[[str], None]


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    def say(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}", flush=True)

    return say


def machine(folder: Path) -> Machine:
    ports = {name: str(free_port()) for name in ("MLFLOW_PORT", "CHAT_PORT")}
    return Machine(folder, f"http://127.0.0.1:{free_port()}/api", ports)


@pytest.fixture
def fresh(one: Path, tmp_path: Path) -> Iterator[Machine]:
    """The checkout as if nothing had been trained in it, with its services up."""
    passing = shutil.ignore_patterns(".lathe", "logs", "mlflow.db", "mlartifacts")
    folder = shutil.copytree(one, tmp_path / "fresh", ignore=passing, symlinks=True)
    for stage in ("pretrain", "sft"):
        forget(folder, stage)
    made = machine(folder)
    made.call("lathe", "up")
    try:
        yield made
    finally:
        made.call("lathe", "down")


def forget(folder: Path, stage: str) -> None:
    """Remove what a training has left, with every trace of it in DVC."""
    locked = params.read_yaml(folder / "dvc.lock")
    locked["stages"].pop(stage, None)
    with (folder / "dvc.lock").open("w") as written:
        YAML().dump(locked, written)
    for place in (f"checkpoints/{stage}", f"models/{stage}", ".dvc/cache/runs"):
        shutil.rmtree(folder / place, ignore_errors=True)


def made_by(folder: Path, stage: str) -> list[str]:
    outs = params.plain(params.read_yaml(folder / "dvc.lock"))["stages"][stage]["outs"]
    return [out["md5"] for out in outs]


def at_work(on: Machine, stage: str, run: str, tell: Tell) -> None:
    """Wait until a run trains and has saved."""

    def saved() -> bool:
        assert on.state(run) not in ENDED, on.logs()
        return any(on.folder.glob(f"checkpoints/{stage}/*/checkpoint-*/manifest.json"))

    tell(f"{stage} had a checkpoint after {until(saved, say=on.logs):.0f} s")


def ended_or_goes_on(on: Machine, run: str) -> tuple[float, str]:
    """Wait until a run has ended; return how long it was Running though nobody worked for it, and
    its state.
    """
    idle_since, longest = 0.0, 0.0

    def look() -> bool:
        nonlocal idle_since, longest
        busy = any("prefect.engine" in line or STAGE.search(line) for line in still_running(on.folder))
        idle_since = 0.0 if busy else idle_since or time.monotonic()
        longest = max(longest, time.monotonic() - idle_since if idle_since else 0.0)
        assert longest < TOLD_SECONDS, f"Running for {longest:.0f} s without a process\n{on.logs()}"
        try:
            return on.state(run) in ENDED
        except httpx.HTTPError:  # the server is down
            return False

    until(look, say=on.logs)
    return longest, on.state(run)


def test_a_scheduled_training_outlives_a_cancel_and_kills(fresh: Machine, one: Path, tell: Tell) -> None:
    (nightly,) = read(fresh.url, "/deployments/filter", deployments={"name": {"any_": ["nightly"]}})
    every = {"schedule": {"interval": 15, "timezone": "UTC"}, "active": True, "parameters": {"until": "pretrain"}}
    post(fresh.url, f"/deployments/{nightly['id']}/schedules", [every])
    found: list[str] = []

    def running() -> bool:
        of = {"id": {"any_": [nightly["id"]]}}
        runs = read(
            fresh.url, "/flow_runs/filter", deployments=of, flow_runs={"state": {"type": {"any_": ["RUNNING"]}}}
        )
        found[:] = [run["id"] for run in runs if run["auto_scheduled"]]
        return bool(found)

    tell(f"the schedule's run began after {until(running, say=fresh.logs):.0f} s")
    post(fresh.url, f"/deployments/{nightly['id']}/pause_deployment", {})
    at_work(fresh, "pretrain", found[0], tell)
    body = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    post(fresh.url, f"/flow_runs/{found[0]}/set_state", body)
    took = until(lambda: not any(map(STAGE.search, still_running(fresh.folder))), TOLD_SECONDS, fresh.logs)
    told = until(lambda: fresh.state(found[0]) == "CANCELLED", TOLD_SECONDS, fresh.logs)
    tell(f"cancelled: nobody trains {took:.1f} s after the call, Cancelled {told:.1f} s after that")
    assert not (fresh.folder / "models/pretrain/model.safetensors").exists()
    fresh.completed(fresh.run("nightly", until="pretrain"))
    assert "resuming from" in (fresh.folder / "logs/pretrain.log").read_text()
    assert made_by(fresh.folder, "pretrain") == made_by(one, "pretrain")

    for victim in ("worker", "prefect", "engine"):
        forget(fresh.folder, "sft")
        run = fresh.run("train", until="sft")
        at_work(fresh, "sft", run, tell)
        if victim == "engine":
            for line, pid in engines(fresh):
                tell(f"killing {line}")
                os.kill(pid, signal.SIGKILL)
        else:
            os.kill(fresh.service(victim), signal.SIGKILL)
        longest, state = ended_or_goes_on(fresh, run)
        tell(f"kill -9 of the {victim}: at most {longest:.0f} s Running without a process, then {state}")
        if state != "COMPLETED":
            fresh.completed(fresh.run("train", until="sft"))
        assert made_by(fresh.folder, "sft") == made_by(one, "sft")
        until(lambda: fresh.is_well("mlflow", "prefect"), 180, fresh.logs)
    runs = read(fresh.url, "/flow_runs/filter")
    assert {run["state_type"] for run in runs} <= {*ENDED, "SCHEDULED"}, [(r["name"], r["state_name"]) for r in runs]


def engines(on: Machine) -> list[tuple[str, int]]:
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(on.folder) and "prefect.engine" in (line := " ".join(process.cmdline())):
                found.append((line, process.pid))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found
