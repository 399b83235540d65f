"""Every trainer on a small world, as many processes as it is launched with: the losses of its steps and its weights.

python -m tests.support.trainers <world> <out> <stage …>    (or behind torchrun, or accelerate launch --config_file …)
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from stages import dpo, orpo, ppo, pretrain, reward, sft
from stages.common.core import checkpoints, models
from stages.common.runtime import process
from stages.common.tracking.run import Run
from stages.common.training import fit, packed_blocks
from tests.support.small_ppo import SMALL, write_ppo
from tests.support.tiny import CONFIG

STAGES = ("pretrain", "sft", "reward", "ppo", "dpo", "orpo")
BATCH = 4
"""Examples of an optimiser step, over all processes."""
STEPS = 6


def write_world(folder: Path) -> None:
    """Write data and models without dropout, whose random numbers differ between the shares of a batch."""
    write_ppo(folder)
    for name in ("model", "reward"):
        file = folder / name / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"attention_dropout": 0.0}))


def trainer(stage: str, world: Path, **more: Any) -> tuple[Any, Any]:
    """Return the settings and the trainer of `stage`; `more` goes into `training`."""
    share = BATCH // int(os.environ.get("WORLD_SIZE", "1"))
    batch: dict[str, Any] = {"per_device_train_batch_size": share}
    batch |= {"bf16": False} if os.environ.get("LATHE_TEST_FP32") else {}  # to be compared with a CPU
    shared = {"max_steps": STEPS, "learning_rate": 1e-3, "seed": 1, "optim": "adamw_torch"} | batch | more
    model, conversations, comparisons = world / "model", world / "conversations", [world / "comparisons"]
    if stage == "pretrain":
        shape = CONFIG | {"attention_dropout": 0.0}
        settings: Any = pretrain.Params(training=shared, model=shape, block_tokens=32)
        return settings, pretrain.build_trainer(settings, models.load_tokenizer(model), world / "documents", "t")
    if stage == "sft":
        settings = sft.Params(training=shared)
        return settings, sft.build_trainer(settings, model, conversations, "t")
    if stage == "reward":
        settings = reward.Params(training=shared)
        data = reward.read(settings, models.load_tokenizer(model), comparisons)
        return settings, reward.build_trainer(settings, model, data, "t")
    if stage in ("dpo", "orpo"):
        module: Any = {"dpo": dpo, "orpo": orpo}[stage]
        settings = module.Params(training=shared)
        return settings, module.build_trainer(settings, model, comparisons, "t")
    episodes = shared | {"max_steps": -1, "num_train_epochs": 1}
    settings = ppo.Params(training=episodes, ptx_weight=0.5, ptx_blocks=share, **SMALL)
    prompts = ppo.read(settings, model, world / "samples")
    made = ppo.build_trainer(settings, model, world / "reward", prompts, conversations, "t")
    folder = Path(made.args.output_dir)
    made.blocks = packed_blocks.documents(made.processing_class, world / "documents/train", 32, folder)
    made.run = Run(None)
    return settings, made


def main(world: Path, out: Path, stages: list[str]) -> None:
    """Train each; rank 0 writes `<out>/<stage>.json`: the losses, and the folder of the model that was kept."""
    checkpoints.ROOT = out / "checkpoints"
    for stage in stages:
        settings, made = trainer(stage, world)
        kept = fit.fit(made, settings, Run(None), stage)
        losses = [row["loss"] for row in made.state.log_history if "loss" in row]
        if process.is_main_process():
            (out / f"{stage}.json").write_text(json.dumps({"losses": losses, "model": str(kept[-1].absolute())}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute(), sys.argv[3:])
    process.leave(0)  # as a stage ends: a thread of gloo has aborted a process that ended otherwise
