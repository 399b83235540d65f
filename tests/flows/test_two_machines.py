"""Two clones with caches of their own, each with a worker, share an S3 remote, a Prefect server and
an MLflow server: what they make in turns is what one machine makes, though one dies at work.
"""

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from stages.common.core import params
from tests.support import object_storage
from tests.support.counts import FULL
from tests.support.machines import ENDED, Machine, until

BUCKET = "lathe"
TURNS = ("ingest", "curate", "validate", "tokenizer")
"""Whose turns are these; then one dies in `pretrain`, and the other takes over."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fault,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not FULL, reason="trainings on two machines: make faults FULL=1"),
]


def lock(folder: Path) -> Any:
    return params.plain(params.read_yaml(folder / "dvc.lock"))


def stored(address: str) -> bool:
    """Whether a checkpoint of pretraining is in the remote."""
    keys = object_storage.stored(address, BUCKET)
    return any("/checkpoints/pretrain/" in key and key.endswith(".json") for key in keys)


def test_two_workers_make_what_one_machine_makes_though_one_dies_at_work(
    one: Path, tmp_path: Path, prefect_url: str, mlflow_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with object_storage.serving(BUCKET) as storage:
        shared = {"MLFLOW_TRACKING_URI": mlflow_url, **object_storage.KEYS}
        machines = []
        for name, pool in (("first", "lathe"), ("second", "lathe-gpu")):
            subprocess.run(["git", "clone", "-q", str(one), str(tmp_path / name)], check=True)
            machine = Machine(tmp_path / name, prefect_url, shared | {"LATHE_POOL": pool})
            machine.call("dvc", "remote", "add", "-q", "-d", "store", f"s3://{BUCKET}/lathe")
            machine.call("dvc", "remote", "modify", "-q", "store", "endpointurl", storage)
            file = machine.folder / "params.yaml"
            file.write_text(file.read_text().replace("checkpoints: local", "checkpoints: remote"))
            machine.call("lathe", "up")
            machines.append(machine)
        first, second = machines
        doors = {first: "train", second: "train-gpu"}
        try:
            for number, stage in enumerate(TURNS):
                machine = machines[number % 2]
                machine.completed(machine.run(doors[machine], until=stage))
            dying = first.run("train", until="pretrain")
            until(lambda: stored(storage) or first.state(dying) in ENDED, say=first.logs)
            assert first.state(dying) == "RUNNING", first.logs()
            first.kill()
            died = time.monotonic()
            second.completed(second.run("train-gpu", until="pretrain"))
            taken_over = time.monotonic() - died
            said = (second.folder / "logs/pretrain.log").read_text()
            assert "came from the remote 'store'" in said and "resuming from" in said
            until(lambda: first.state(dying) == "CRASHED", 180)
            crashed = time.monotonic() - died
            first.call("lathe", "up")
            first.completed(first.run("train", until="sft"))
            assert lock(first.folder) == lock(one)
            with capsys.disabled():
                print(f"\ntaken over and done after {taken_over:.0f} s, told to have crashed after {crashed:.0f} s")
        finally:
            for machine in machines:
                machine.call("lathe", "down")
