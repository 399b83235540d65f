"""PPO on two processes of this machine ends with the weights of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stages.common import models
from tests.small_ppo import SMALL, TRAINING, write_ppo

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_two_processes_end_as_one(tmp_path: Path) -> None:
    write_ppo(tmp_path)
    weights = []
    for count, batch in ((1, 4), (2, 2)):
        folder = tmp_path / f"on-{count}"
        folder.mkdir()
        settings = SMALL | {"training": TRAINING | {"per_device_train_batch_size": batch, "optim": "sgd"}}
        (folder / "params.yaml").write_text(json.dumps({"run": {"name": "test"}, "ppo": settings}))
        run_stage(folder, count)
        weights.append(torch.cat([value.flatten() for value in models.load(folder / "out").state_dict().values()]))
    assert torch.allclose(weights[0], weights[1], atol=1e-6)
    start = torch.cat([value.flatten() for value in models.load(tmp_path / "model").state_dict().values()])
    assert (weights[0] - start).abs().max() > 1e-3


def run_stage(folder: Path, processes: int) -> None:
    """Run the stage as its command does, on so many processes of this machine."""
    names = ("model", "reward", "samples", "conversations", "documents")
    inputs = [part for name in names for part in (f"--{name}", f"../{name}")]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)] if processes > 1 else []
    outs = ["--out", "out", "--curve", "curve.csv", "--report", "report.json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("DVC_STAGE", None)
    done = subprocess.run(
        [sys.executable, *launch, "-m", "stages.ppo", *inputs, *outs],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
