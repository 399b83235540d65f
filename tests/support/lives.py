"""A small world in which each of the trainers can live and be killed, and what it leaves."""

import shutil
import time
from pathlib import Path
from typing import Any

from stages.common.core.models import file_sha256
from tests.support import preloaded
from tests.support.small_ppo import write_ppo
from tests.support.tiny import CONFIG, make_tokenizer, write_validated

PARAMS = f"""
pretrain:
  model: {CONFIG}
  block_tokens: 32
  checkpoint_minutes: 0.001
  training: &training
    num_train_epochs: 3
    per_device_train_batch_size: 2
    learning_rate: 0.01
    lr_scheduler_type: cosine
    seed: 1
sft:
  checkpoint_minutes: 0.001
  training: &grouped
    <<: *training
    train_sampling_strategy: group_by_length
dpo:
  checkpoint_minutes: 0.001
  training:
    <<: *grouped
    num_train_epochs: 2
    gradient_checkpointing: false
reward:
  checkpoint_minutes: 0.001
  training:
    <<: *training
    num_train_epochs: 8  # its steps are short
ppo:
  checkpoint_minutes: 0.001
  max_tokens: 128
  max_new_tokens: 8
  rollout_episodes: 8
  rollouts_per_epoch: 4
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
kto:
  checkpoint_minutes: 0.001
  answers: both
  training:
    <<: *training
    num_train_epochs: 2
    gradient_checkpointing: false
grpo:
  checkpoint_minutes: 0.001
  rewards: {{rules: 1.0, length: -0.1, model: 0.5}}
  max_tokens: 128
  max_new_tokens: 8
  demonstrations: 10
  training:
    <<: *training
    learning_rate: 0.001
    num_train_epochs: 2
    per_device_train_batch_size: 4
    num_generations: 2
    steps_per_generation: 2  # answers are learnt from in two steps, twice: a checkpoint between them keeps them
    num_iterations: 2
    beta: 0.1
    gradient_checkpointing: false
"""
COMMANDS = {
    "pretrain": "--tokenizer models/tokenizer --documents data/documents --out models/pretrain --curve pretrain.csv",
    "sft": "--model given/base --conversations data/conversations --out models/sft --curve sft.csv",
    "dpo": "--model given/base --comparisons data/comparisons --out models/dpo --curve dpo.csv",
    "reward": "--model given/base --comparisons data/comparisons --conversations data/conversations"
    " --out models/reward --curve reward.csv --report reward.json",
    "ppo": "--model given/base --reward given/reward --samples given/samples --conversations data/conversations"
    " --documents data/documents --out models/ppo --curve ppo.csv --report ppo.json",
    "orpo": "--model given/base --comparisons data/comparisons --out models/orpo --curve orpo.csv",
    "grpo": "--model given/base --reward given/reward --samples given/samples --conversations data/conversations"
    " --out models/grpo --curve grpo.csv --report grpo.json",
    "kto": "--model given/base --labelled data/labelled --comparisons data/comparisons --out models/kto"
    " --curve kto.csv",
}
TRAINERS = tuple(COMMANDS)


def write_world(folder: Path) -> Path:
    """Write data, params, tokenizer and a base model trained without interruption; return the
    folder.
    """
    write_validated(folder / "data")
    write_ppo(folder / "given")
    (folder / "params.yaml").write_text(text())
    make_tokenizer().save_pretrained(folder / "models/tokenizer")
    assert preloaded.ended(start(folder, "pretrain")) == 0, said(folder)
    shutil.copytree(folder / "models/pretrain", folder / "given/base")
    return folder


def text() -> str:
    """Return params.yaml of the world."""
    return PARAMS.replace("'", '"').replace("True", "true")


def start(folder: Path, stage: str, **environment: str) -> Any:
    """Start the trainer `stage` in a process of its own."""
    return preloaded.stage(stage, COMMANDS[stage].split(), folder, **environment)


def said(folder: Path) -> str:
    """Return what the stages said."""
    return (folder / "said.log").read_text(encoding="utf-8")


def checkpoints(folder: Path, stage: str) -> list[Path]:
    """Return the checkpoints of a trainer, the newest last."""
    found = (folder / "checkpoints" / stage).glob("*/checkpoint-*")
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def wait_for_checkpoints(process: Any, folder: Path, stage: str, count: int) -> None:
    """Wait until the process has written `count` new checkpoints, or ended."""
    seen = set(checkpoints(folder, stage))
    wanted = len(seen) + count
    while process.is_alive() and len(seen) < wanted:
        seen.update(checkpoints(folder, stage))
        time.sleep(0.005)


def bits(folder: Path, stage: str) -> dict[str, str]:
    """Return the hash of every file a trainer has published: model, curve and report."""
    files = [file for file in (folder / "models" / stage).rglob("*") if file.is_file()]
    files += [folder / f"{stage}.{kind}" for kind in ("csv", "json")]
    return {str(file.relative_to(folder)): file_sha256(file) for file in sorted(files) if file.exists()}


def forget(folder: Path, stage: str) -> None:
    """Remove what a trainer has made."""
    for path in (folder / "checkpoints" / stage, folder / "models" / stage):
        shutil.rmtree(path, ignore_errors=True)
    for kind in ("csv", "json"):
        (folder / f"{stage}.{kind}").unlink(missing_ok=True)


def whole(folder: Path, stage: str) -> dict[str, str]:
    """Return the bits of an uninterrupted run, and forget it."""
    forget(folder, stage)
    assert preloaded.ended(start(folder, stage)) == 0, said(folder)
    found = bits(folder, stage)
    assert any(name.endswith(".safetensors") for name in found)
    forget(folder, stage)
    return found
