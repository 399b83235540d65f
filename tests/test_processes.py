"""Every trainer on two processes of this machine takes the steps that one takes: the same losses,
the same weights; with adapters too, whose kept models are whole, load and answer; and where it goes
on with what one process had begun.

DDP is in CI. DeepSpeed, an extra, is tried where it is installed: ZeRO-1, -2 and -3 over gloo, with
the files of infra/accelerate.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stages.common.core import chat, models
from stages.common.finetuning import merging
from stages.common.generation import generator
from stages.common.reward import scoring
from stages.common.training import kept_models
from tests.support.tiny import conversation
from tests.support.trainers import ADAPTED, RESUMED, STAGES, write_world

ROOT = Path(__file__).parent.parent
TOLERANCE = 1e-4
TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
ACCELERATE = ["-m", "accelerate.commands.launch", "--config_file"]


QUESTIONS = [conversation(number)["messages"][:1] for number in range(3)]


def launch(folder: Path, out: str, launcher: list[str], *names: str) -> dict[str, Any]:
    """Train all of `names` behind a launcher; return the losses and the model's folder of each."""
    (folder / out).mkdir()
    if RESUMED in names:  # what one process had written at its fourth step
        shutil.copytree(folder / "one/sft", folder / out / RESUMED)
        for late in ("checkpoint-5", "checkpoint-6", kept_models.KEPT):
            shutil.rmtree(folder / out / RESUMED / "sft/test" / late)
    command = [sys.executable, *launcher, "-m", "tests.support.trainers", str(folder), str(folder / out), *names]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return {name: json.loads((folder / out / f"{name}.json").read_text()) for name in names}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture(scope="module")
def alone(world: Path) -> dict[str, Any]:
    return launch(world, "one", [], *STAGES, *ADAPTED)


def weights(folder: str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def compare(world: Path, alone: dict[str, Any], together: dict[str, Any], mode: str) -> None:
    """Both must have the same losses, step by step, and a folder of the same files with nearly the
    same weights; one of adapters must be whole and answer the same.
    """
    worst = {}
    for name in together:
        one, two = alone[name.removesuffix("+resumed")], together[name]
        assert len(one["losses"]) == len(two["losses"]) >= 4
        far = max(abs(a - b) for a, b in zip(one["losses"], two["losses"], strict=True))
        first, second = weights(one["model"]), weights(two["model"])
        assert {name: value.shape for name, value in first.items()} == {n: v.shape for n, v in second.items()}
        assert {file.name for file in Path(one["model"]).iterdir()} == {
            file.name for file in Path(two["model"]).iterdir()
        }
        moved = max(float((first[name] - second[name]).abs().max()) for name in first)
        worst[name] = (far, moved)
        print(f"{mode:<8}{name:<14}loss {far:.1e}  weights {moved:.1e}")
        if name in ADAPTED:
            whole(name, world, two["model"])
            assert said(name, two["model"]) == said(name, one["model"])
    assert {name: pair for name, pair in worst.items() if max(pair) > TOLERANCE} == {}


def whole(name: str, world: Path, folder: str) -> None:
    """A kept model must have the tensors of the model that was adapted, all of them other than
    before where adapters stood, and its adapters beside it.
    """
    base, kept = load_file(world / "model/model.safetensors"), weights(folder)
    assert set(kept) == set(base) | ({"score.weight"} if "reward" in name else set())
    moved = {name for name in base if not torch.equal(base[name], kept[name])}
    assert moved >= {name for name in base if "_proj" in name}
    adapters = load_file(Path(folder) / merging.ADAPTER / "adapter_model.safetensors")
    assert sum("lora_" in name for name in adapters) == 2 * sum("_proj" in name for name in base)
    assert all(one.numel() for one in adapters.values())


def said(name: str, folder: str) -> list[Any]:
    """Return what a kept model says: a reward model its scores, another its answers as tokens."""
    tokenizer = models.load_tokenizer(folder)
    prompts = [chat.encode_prompt(tokenizer, question) for question in QUESTIONS]
    if "reward" in name:
        return [round(score, 3) for score in scoring.score_rows(scoring.load(Path(folder)), prompts)]
    return generator.generate(models.load(folder), prompts, max_new_tokens=8, stop=chat.stops(tokenizer), batch_size=4)


@pytest.mark.slow
def test_two_processes_of_ddp_end_as_one(world: Path, alone: dict[str, Any]) -> None:
    compare(world, alone, launch(world, "ddp", TORCHRUN, *STAGES, *ADAPTED, RESUMED), "ddp")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", ["zero1", "zero2", "zero3"])
def test_two_processes_of_deepspeed_end_as_one(mode: str, world: Path, alone: dict[str, Any]) -> None:
    pytest.importorskip("deepspeed", reason="the extra gpu is not installed")
    launcher = [*ACCELERATE, str(ROOT / f"infra/accelerate/{mode}.yaml")]
    compare(world, alone, launch(world, mode, launcher, *STAGES, *ADAPTED), mode)
