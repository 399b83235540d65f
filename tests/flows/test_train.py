"""The flow on a real Prefect server, in a small real DVC repository."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.flows.conftest import environment

BUSY_TRIES = 20
Flow = Callable[..., "subprocess.CompletedProcess[str]"]
FAILS = "raise errors.DataError('bad row', where='raw.txt:3', remedy='fix it')"
TRIES_AGAIN = """
    if not Path("tried").exists():
        Path("tried").touch()
        raise errors.TryAgainError("disk full")
    Path("upper.txt").write_text("B")"""
PREEMPTED = """
    if not Path("tried").exists():
        Path("tried").touch()
        with process.graceful_stop():
            os.kill(os.getpid(), signal.SIGTERM)
            while not process.stop_requested():
                time.sleep(0.01)
        raise errors.StopRequested
    Path("upper.txt").write_text("B")"""
SLEEPS = """
    Path("started").touch()
    try:
        time.sleep(120)
    except BaseException:
        Path("saved").touch()
        raise"""


def upper(repository: Path, body: str) -> None:
    (repository / "upper.py").write_text(
        "import os\nimport signal\nimport time\nfrom pathlib import Path\n"
        "from stages.common.runtime import errors, process\n\n"
        f"def main() -> None:\n    {body.strip()}\n\nprocess.run('upper', main)\n"
    )


def read(url: str, route: str, **body: Any) -> Any:
    return post(url, route, body)


def running(url: str) -> set[str]:
    """Return the ids of the flow runs that the server takes for running."""
    found = read(url, "/flow_runs/filter", flow_runs={"state": {"type": {"any_": ["RUNNING"]}}})
    return {str(one["id"]) for one in found}


def post(url: str, route: str, body: Any) -> Any:
    """Ask the server as a page of its own would: with the token that its CSRF protection wants."""
    client_id = "6f0b8a0e-0000-4000-8000-000000000001"
    with httpx.Client(base_url=url, trust_env=False, timeout=120) as client:
        token = client.get("/csrf-token", params={"client": client_id}).raise_for_status().json()["token"]
        headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": client_id}
        for _ in range(BUSY_TRIES):  # 503: its database is locked; Prefect's own client asks again too
            answer = client.post(route, json=body, headers=headers)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(1)
        return answer.raise_for_status().json()


def last_artifact(url: str, key: str) -> dict[str, str]:
    """Return the newest artifact's Markdown table as a mapping of its first two columns."""
    found = read(url, "/artifacts/filter", artifacts={"key": {"any_": [key]}}, sort="CREATED_DESC", limit=1)
    lines = [line.strip("| ").split(" | ") for line in found[0]["data"].splitlines() if line.startswith("| ")]
    return {line[0]: line[1] for line in lines if len(line) > 1}


def in_python(repository: Path, url: str, code: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", f"from flows import train; {code}"]
    return subprocess.run(command, cwd=repository, env=environment(url), capture_output=True, text=True, timeout=900)


def in_background(repository: Path, url: str) -> "subprocess.Popen[str]":
    """Start a flow and return when its stage `upper` runs."""
    flow = subprocess.Popen(
        [sys.executable, "-m", "flows.train"],
        cwd=repository,
        env=environment(url),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests run in the background ignore it
    )
    for _ in range(600):
        if (repository / "started").exists():
            return flow
        time.sleep(0.1)
    flow.kill()
    raise AssertionError(flow.communicate()[1])


def still_running(repository: Path) -> list[str]:
    """Return the processes that work in `repository`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(repository):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def ended(repository: Path, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while still_running(repository) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not still_running(repository)


def run_names(url: str) -> list[str]:
    return [run["name"] for run in read(url, "/flow_runs/filter", sort="START_TIME_DESC", limit=5)]


def test_flow_and_dvc_repro_agree_and_a_second_flow_runs_nothing(
    repository: Path, flow: Flow, prefect_url: str
) -> None:
    first = flow()
    assert first.returncode == 0, first.stderr
    assert "upper  ran" in first.stdout and "2 lines" in first.stdout
    lock = (repository / "dvc.lock").read_bytes()
    artifact = last_artifact(prefect_url, "upper")
    assert (artifact["state"], artifact["key figure"], artifact["MLflow"]) == ("ran", "2 lines", "no run")
    assert last_artifact(prefect_url, "count-upper")["state"] == "ran"
    assert last_artifact(prefect_url, "summary") | {"stage": "state"} == dict.fromkeys(
        ["raw", "upper", "count@raw", "count@upper"], "ran"
    ) | {"stage": "state"}
    assert run_names(prefect_url)[0].startswith("everything at ")
    repro = [sys.executable, "-m", "dvc", "repro"]
    again = subprocess.run(repro, cwd=repository, env=environment(prefect_url), capture_output=True, text=True)
    assert again.returncode == 0 and "Running stage" not in again.stdout
    (repository / "upper.txt").unlink()
    second = flow()
    assert "upper  restored" in second.stdout
    assert {last_artifact(prefect_url, key)["state"] for key in ("raw", "count-raw", "count-upper")} == {"cached"}
    assert (repository / "dvc.lock").read_bytes() == lock


def test_a_failing_stage_stops_its_descendants_alone_and_the_flow_says_its_line(repository: Path, flow: Flow) -> None:
    upper(repository, FAILS)
    done = flow()
    assert done.returncode == 4
    last = done.stderr.splitlines()[-1]
    assert last.startswith("lathe: upper failed (4): raw.txt:3: bad row; fix it"), done.stderr
    assert "Traceback" not in done.stderr
    assert (repository / "count_raw.txt").exists() and not (repository / "count_upper.txt").exists()


@pytest.mark.parametrize(("body", "says"), [(TRIES_AGAIN, "disk full"), (PREEMPTED, "stopped on request")])
def test_a_stage_that_says_try_again_or_was_stopped_from_outside_is_tried_again(
    repository: Path, prefect_url: str, body: str, says: str
) -> None:
    upper(repository, body)
    done = in_python(repository, prefect_url, "train.RETRY_SECONDS = 0; train.main()")
    assert done.returncode == 0, done.stderr
    assert says in done.stderr and "Retry 1/2" in done.stderr
    assert (repository / "tried").exists() and (repository / "upper.txt").read_text() == "B"


@pytest.mark.fault
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])  # one may stay above the stage, one gives it its place
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_flow_lets_its_stage_save_and_leaves_nobody_behind(
    repository: Path, prefect_url: str, number: signal.Signals, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path(shell).exists():
        pytest.skip(f"{shell} is not installed")
    monkeypatch.setenv("SHELL", shell)
    upper(repository, SLEEPS)
    before = running(prefect_url)
    flow = in_background(repository, prefect_url)
    os.kill(flow.pid, number)
    flow.communicate(timeout=60)
    assert ended(repository), still_running(repository)
    assert (repository / "saved").exists()
    assert flow.returncode != 0
    if number == signal.SIGKILL:  # nobody has told the server; the next look does
        look = "from flows.local import liveness; print(len(liveness.end_the_dead()), len(liveness.end_the_dead()))"
        told = in_python(repository, prefect_url, look)
        assert told.stdout == "1 0\n", told.stderr
        assert running(prefect_url) <= before


def test_a_stage_over_its_time_is_ended_with_its_tree(repository: Path, prefect_url: str) -> None:
    upper(repository, SLEEPS)
    done = in_python(repository, prefect_url, "train.train(until='upper', stage_hours=4 / 3600)")
    assert done.returncode != 0
    assert "upper failed: stopped after 4 s, its time limit" in done.stderr
    assert (repository / "saved").exists() and ended(repository)


def test_until_an_unknown_stage_is_one_line(flow: Flow) -> None:
    done = flow("--until", "uper")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == "lathe: flow failed (3): dvc.yaml: no stage 'uper', did you mean 'upper'?"
    assert "Traceback" not in done.stderr


def test_stages_side_by_side_hold_a_card_each(repository: Path, flow: Flow, prefect_url: str) -> None:
    (repository / "params.yaml").write_text("run:\n  gpus: 1\n")
    done = flow(CUDA_VISIBLE_DEVICES="3,5")
    assert done.returncode == 0, done.stderr
    cards = {line.rpartition("cards ")[2] for line in done.stderr.splitlines() if "- cards" in line}
    assert cards and cards <= {"3", "5"}
    limits = read(prefect_url, "/v2/concurrency_limits/filter")
    assert {limit["limit"] for limit in limits if limit["name"].startswith("gpu:")} == {2}
    assert {limit["active_slots"] for limit in limits} == {0}


def test_more_gpus_than_there_are_is_one_line(repository: Path, flow: Flow) -> None:
    (repository / "params.yaml").write_text("run:\n  gpus: 8\n")
    done = flow(CUDA_VISIBLE_DEVICES="0")
    assert done.returncode == 3
    assert "wants 8 GPUs" in done.stderr.splitlines()[-1] and "lower run.gpus" in done.stderr
