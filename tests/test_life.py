"""The life of a trainer, from outside: killed in the middle, it ends with the bits of a run that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.common.models import file_sha256
from tests.small_ppo import write_ppo
from tests.tiny import CONFIG, make_tokenizer, write_validated

ROOT = Path(__file__).parent.parent
PARAMS = f"""
pretrain:
  model: {CONFIG}
  block_tokens: 32
  checkpoint_minutes: 0.001
  training: &training
    num_train_epochs: 6
    per_device_train_batch_size: 2
    learning_rate: 0.01
    lr_scheduler_type: cosine
    seed: 1
sft:
  checkpoint_minutes: 0.001
  training: *training
dpo:
  checkpoint_minutes: 0.001
  training:
    <<: *training
    num_train_epochs: 2
    gradient_checkpointing: false
reward:
  checkpoint_minutes: 0.001
  training:
    <<: *training
    num_train_epochs: 20     # a batch holds four short answers: two epochs end before the second signal comes
ppo:
  checkpoint_minutes: 0.001
  max_tokens: 128
  max_new_tokens: 8
  rollout_episodes: 8
  rollouts_per_epoch: 6
  kl_target: 0.5
  average_decay: 0.9
  demonstrations: 10
  ptx_weight: 0.5
  ptx_blocks: 1
  ptx_block_tokens: 32
  training:
    <<: *training
    learning_rate: 0.001
    num_train_epochs: 3
orpo:
  checkpoint_minutes: 0.001
  lora:
    r: 2
    lora_dropout: 0.1
    target_modules: [q_proj, v_proj]
  training:
    <<: *training
    num_train_epochs: 2
"""
COMMANDS = {
    "pretrain": "--tokenizer models/tokenizer --documents data/documents --out models/pretrain --curve pretrain.csv",
    "sft": "--model models/pretrain --conversations data/conversations --out models/sft --curve sft.csv",
    "dpo": "--model models/pretrain --comparisons data/comparisons --out models/dpo --curve dpo.csv",
    "reward": "--model models/pretrain --comparisons data/comparisons --conversations data/conversations"
    " --out models/reward --curve reward.csv --report r1.json",
    "ppo": "--model models/pretrain --reward given/reward --samples given/samples --conversations data/conversations"
    " --documents data/documents --out models/ppo --curve ppo.csv --report ppo.json",
    "orpo": "--model models/pretrain --comparisons data/comparisons --out models/orpo --curve orpo.csv",
}
OUTS = {"pretrain": "models/pretrain/model.safetensors", "sft": "models/sft/last/model.safetensors"}
OUTS |= {name: f"models/{name}/model.safetensors" for name in ("dpo", "orpo", "ppo", "reward")}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with data, params, tokenizer and a base model trained without interruption."""
    folder = tmp_path_factory.mktemp("life")
    write_validated(folder / "data")
    write_ppo(folder / "given")
    (folder / "params.yaml").write_text(PARAMS.replace("'", '"').replace("True", "true"))
    make_tokenizer().save_pretrained(folder / "models/tokenizer")
    assert start(folder, "pretrain").wait() == 0
    return folder


def start(folder: Path, stage: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("DVC_STAGE", None)
    command = [sys.executable, "-m", f"stages.{stage}", *COMMANDS[stage].split()]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)


def checkpoints(folder: Path, stage: str) -> set[str]:
    return {path.name for path in (folder / "checkpoints" / stage).glob("*/checkpoint-*")}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "sft", "dpo", "orpo", "reward", "ppo"])
def test_killed_and_resumed_ends_with_the_same_bits(work: Path, stage: str) -> None:
    if stage != "pretrain":
        assert start(work, stage).wait() == 0
    whole = (file_sha256(work / OUTS[stage]), file_sha256(work / f"{stage}.csv"))
    for path in [work / "checkpoints" / stage, work / OUTS[stage]]:
        subprocess.run(["rm", "-r", str(path)], check=True)
    chance = random.Random(stage)
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)):
        process, before = start(work, stage), checkpoints(work, stage)
        while process.poll() is None and not checkpoints(work, stage) - before:
            time.sleep(0.02)
        time.sleep(chance.random() * 0.3)
        process.send_signal(number)
        assert process.wait() == code
        assert checkpoints(work, stage)
    assert start(work, stage).wait() == 0
    assert "resuming from" in (work / "logs" / f"{stage}.log").read_text()
    assert (file_sha256(work / OUTS[stage]), file_sha256(work / f"{stage}.csv")) == whole
    assert not list((work / "models").rglob("*.bin"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ppo_killed_at_random_moments_of_its_life_ends_with_the_same_bits(work: Path) -> None:
    """LATHE_KILLS SIGKILLs, from the first import to the last report; a run that gets through starts afresh."""
    stage, wanted, killed = "ppo", int(os.environ.get("LATHE_KILLS", "2")), 0
    forget = [work / "checkpoints" / stage, work / OUTS[stage]]
    subprocess.run(["rm", "-rf", *map(str, forget)], check=True)
    started = time.monotonic()
    assert start(work, stage).wait() == 0
    seconds = time.monotonic() - started
    whole = (file_sha256(work / OUTS[stage]), file_sha256(work / f"{stage}.csv"))
    subprocess.run(["rm", "-r", *map(str, forget)], check=True)
    chance = random.Random(wanted)
    while killed < wanted:
        process = start(work, stage)
        try:
            code = process.wait(seconds * chance.uniform(0.3, 1.0))
        except subprocess.TimeoutExpired:
            process.kill()
            code, killed = process.wait(), killed + 1
        if code == 0:
            assert (file_sha256(work / OUTS[stage]), file_sha256(work / f"{stage}.csv")) == whole
            subprocess.run(["rm", "-r", *map(str, forget)], check=True)
    assert start(work, stage).wait() == 0
    assert (file_sha256(work / OUTS[stage]), file_sha256(work / f"{stage}.csv")) == whole


@pytest.mark.slow
def test_two_at_once_one_runs_and_the_other_says_who(work: Path) -> None:
    subprocess.run(["rm", "-r", str(work / "checkpoints/pretrain")], check=True)
    running = [start(work, "pretrain") for _ in range(2)]
    assert sorted(process.wait() for process in running) == [0, 6]
