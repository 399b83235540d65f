"""Every trainer on a small world, as many processes as it is launched with: the losses of its steps
and its weights.

python -m tests.support.trainers <world> <out> [--bf16 …] <stage, stage+lora, stage+resumed …>
(or behind torchrun, or accelerate launch --config_file …). An option is a key of `training`, true.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from stages import dpo, grpo, kto, orpo, ppo, pretrain, reward, sft
from stages.common.core import checkpoints, models, precision
from stages.common.reward import checked
from stages.common.runtime import process
from stages.common.tracking.run import Run
from stages.common.training import fit
from tests.support import small_ppo
from tests.support.tiny import CONFIG, make_model, make_tokenizer, write_validated

MODULES: dict[str, Any] = {
    "pretrain": pretrain,
    "sft": sft,
    "reward": reward,
    "ppo": ppo,
    "dpo": dpo,
    "orpo": orpo,
    "grpo": grpo,
    "kto": kto,
}
STAGES = tuple(MODULES)
BATCH = 4
"""Examples of an optimiser step, over all processes."""
STEPS = 6
LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
RESUMED = "sft+resumed"
ADAPTED = tuple(f"{stage}+lora" for stage in STAGES if stage != "pretrain")


def write_world(folder: Path) -> None:
    """Write data and models without dropout, whose random numbers differ between the shares of a
    batch.
    """
    small_ppo.write_ppo(folder)
    for name in ("model", "reward"):
        file = folder / name / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"attention_dropout": 0.0}))


def write_small(folder: Path, **config: Any) -> Path:
    """Write data and a model without a reward model; `config` changes the model's. Return the
    folder.
    """
    write_validated(folder)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    model.config.update(config)
    models.save(model, tokenizer, folder / "model")
    return folder


def build(stage: str, settings: Any, world: Path) -> Any:
    """Return the trainer of `stage` over the data and models in a folder."""
    model, comparisons = world / "model", [world / "comparisons"]
    if stage == "pretrain":
        return pretrain.build_trainer(settings, models.load_tokenizer(model), world / "documents", "test")
    if stage == "sft":
        return sft.build_trainer(settings, model, world / "conversations", "test")
    if stage == "reward":
        data = reward.read(settings, models.load_tokenizer(model), comparisons)
        return reward.build_trainer(settings, model, data, "test")
    if stage == "ppo":
        return small_ppo.build(settings, world)
    if stage == "grpo":
        return build_grpo(settings, world)
    if stage == "kto":
        comparisons = settings.folders(world / "labelled", comparisons)
    return MODULES[stage].build_trainer(settings, model, comparisons, "test")


def build_grpo(settings: Any, world: Path) -> Any:
    """Return the trainer of `grpo` over what `small_ppo.write_ppo` wrote."""
    rewards = checked.load(settings.rewards, "grpo.rewards")
    places = {name: world / name for name in ("model", "reward", "conversations")}
    asked = grpo.read(settings, world / "model", world / "samples", rewards)
    return grpo.build_trainer(settings, rewards, asked, Run(None), "test", **places)


def trainer(stage: str, world: Path, adapters: dict[str, Any] | None = None, **more: Any) -> tuple[Any, Any]:
    """Return the settings and the trainer of `stage`; `more` goes into `training`."""
    share = BATCH // int(os.environ.get("WORLD_SIZE", "1"))
    batch: dict[str, Any] = {"per_device_train_batch_size": share}
    batch |= {"bf16": False} if os.environ.get("LATHE_TEST_FP32") else {}  # to be compared with a CPU
    shared = {"max_steps": STEPS, "learning_rate": 1e-3, "seed": 1, "optim": "adamw_torch"} | batch | more
    own: dict[str, Any] = {}
    if stage == "pretrain":
        own = {"model": CONFIG | {"attention_dropout": 0.0}, "block_tokens": 32}
    if stage == "sft":  # rows of like length together, and a checkpoint after each step
        shared |= {"train_sampling_strategy": "group_by_length"}
        own = {"checkpoint_minutes": 1e-9, "keep_checkpoints": 4}
    if stage == "grpo":
        shared |= {"num_generations": 2, "beta": 0.1}
        own = {"rewards": {"length": 0.5, "model": 1.0}, "max_tokens": 128, "max_new_tokens": 6, "demonstrations": 10}
        own |= {"watch_prompts": 0}
    if stage == "ppo":
        shared |= {"max_steps": -1, "num_train_epochs": 1}
        own = {"ptx_weight": 0.5, "ptx_blocks": share, "ptx_block_tokens": 32, **small_ppo.SMALL}
    own |= {} if adapters is None else {"lora": adapters}
    settings = MODULES[stage].Params(training=shared, **own)
    return settings, build(stage, settings, world)


def main(world: Path, out: Path, names: list[str], more: dict[str, Any]) -> None:
    """Train each; rank 0 writes `<out>/<name>.json`: the losses, all that was logged, and the
    folder of the model that was kept.
    """
    if os.environ.get("LATHE_TEST_FP32"):
        precision.fast_products = lambda: None  # TF32 has ten bits
    for name in names:
        stage, _, how = name.partition("+")
        checkpoints.ROOT = out / name
        settings, made = trainer(stage, world, LORA if how == "lora" else None, **more)
        kept = fit.fit(made, settings, Run(None), stage)
        history = made.state.log_history
        losses = [row["loss"] for row in history if "loss" in row]
        if process.is_main_process():
            found = {"losses": losses, "history": history, "model": str(kept[-1].absolute())}
            (out / f"{name}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    folders, words = [Path(word).absolute() for word in sys.argv[1:3]], sys.argv[3:]
    keys = {word.removeprefix("--"): True for word in words if word.startswith("--")}
    main(folders[0], folders[1], [word for word in words if not word.startswith("--")], keys)
    process.leave(0)  # as a stage ends: a thread of gloo has aborted a process that ended otherwise
