"""Every trainer on two processes of this machine takes the steps that one takes: the same losses,
the same weights.

DDP is in CI. DeepSpeed, an extra, is tried where it is installed: ZeRO-1, -2 and -3 over gloo, with
the files of infra/accelerate.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.trainers import STAGES, write_world

ROOT = Path(__file__).parent.parent
TOLERANCE = 1e-4
TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
ACCELERATE = ["-m", "accelerate.commands.launch", "--config_file"]


def launch(folder: Path, out: str, launcher: list[str]) -> dict[str, Any]:
    """Train every stage behind a launcher; return the losses and the model's folder of each."""
    (folder / out).mkdir()
    command = [sys.executable, *launcher, "-m", "tests.support.trainers", str(folder), str(folder / out), *STAGES]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return {stage: json.loads((folder / out / f"{stage}.json").read_text()) for stage in STAGES}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture(scope="module")
def alone(world: Path) -> dict[str, Any]:
    return launch(world, "one", [])


def weights(folder: str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def compare(alone: dict[str, Any], together: dict[str, Any], mode: str) -> None:
    """Both must have the same losses, step by step, and a folder of the same files with nearly the
    same weights.
    """
    worst = {}
    for stage in STAGES:
        one, two = alone[stage], together[stage]
        assert len(one["losses"]) == len(two["losses"]) >= 4
        far = max(abs(a - b) for a, b in zip(one["losses"], two["losses"], strict=True))
        first, second = weights(one["model"]), weights(two["model"])
        assert {name: value.shape for name, value in first.items()} == {n: v.shape for n, v in second.items()}
        assert {file.name for file in Path(one["model"]).iterdir()} == {
            file.name for file in Path(two["model"]).iterdir()
        }
        moved = max(float((first[name] - second[name]).abs().max()) for name in first)
        worst[stage] = (far, moved)
        print(f"{mode:<8}{stage:<10}loss {far:.1e}  weights {moved:.1e}")
    assert {stage: pair for stage, pair in worst.items() if max(pair) > TOLERANCE} == {}


@pytest.mark.slow
def test_two_processes_of_ddp_end_as_one(world: Path, alone: dict[str, Any]) -> None:
    compare(alone, launch(world, "ddp", TORCHRUN), "ddp")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", ["zero1", "zero2", "zero3"])
def test_two_processes_of_deepspeed_end_as_one(mode: str, world: Path, alone: dict[str, Any]) -> None:
    pytest.importorskip("deepspeed", reason="the extra gpu is not installed")
    compare(alone, launch(world, mode, [*ACCELERATE, str(ROOT / f"infra/accelerate/{mode}.yaml")]), mode)
