"""Before the first step: what this training will take, and a refusal with a remedy where it would
not fit.
"""

import logging
import os
from collections.abc import Mapping
from typing import Any

from stages.common.core import models
from stages.common.memory import available, estimate
from stages.common.memory.job import FUSED, Job, blocks, reads
from stages.common.runtime.errors import OutOfMemoryError

SWITCH = "LATHE_MEMORY_CHECK"
KEPT = 2.5
"""What glibc's heap has been seen to grow to, in times of the activations alive."""
log = logging.getLogger("lathe")


def check(trainer: Any, settings: Any, stage: str) -> None:
    """Say what a training is about to take. Raises OutOfMemoryError, with the batch that would fit,
    where it is more than there is; LATHE_MEMORY_CHECK=off says so and goes on.
    """
    with models.unsplit():
        job = of_trainer(trainer, settings, stage)
        try:
            need = estimate.estimate(job)
        except Exception as error:  # said, and the training goes on: an estimate is no reason for it to fail
            log.warning(
                "memory: no estimate for this model (%s: %s)", type(error).__name__, str(error).partition("\n")[0]
            )
            return
        free = available.free(trainer.args.device, need.parameters, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        log.info("memory: %s at its peak, %s free", need.shown(), estimate.amount(free))
        if need.total <= free * estimate.SPARE:
            warn_of_pieces(trainer.args.device, need, free)
            return
        what = f"needs {need.shown()} of memory, {estimate.amount(free)} are free"
        if os.environ.get(SWITCH) == "off":
            log.warning("memory: %s; going on, because %s=off", what, SWITCH)
            return
        raise OutOfMemoryError(
            what, where=stage, remedy=f"{estimate.remedy(job, free, stage)}; {SWITCH}=off tries it anyway"
        )


def warn_of_pieces(device: Any, need: estimate.Need, free: float) -> None:
    """Say that it may not fit where, on a CPU, the C library keeps as much as it has been seen to
    keep.
    """
    worst = need.total + (KEPT - 1) * need.activations
    if device.type == "cpu" and worst > free * estimate.SPARE:
        log.warning("memory: may reach %s, because freed blocks are not all given back", estimate.amount(worst))


def of_trainer(trainer: Any, settings: Any, stage: str) -> Job:
    """Return the job of a trainer that is about to start; its longest example counts, not the
    longest allowed.
    """
    args, section, dataset = trainer.args, settings.model_dump(), trainer.train_dataset
    answers = max((len(row) for row in dataset["rows"]), default=1) if stage == "reward" else 1
    most = reads(stage, section, answers)
    longest = min(most.tokens, longest_example(trainer, most.tokens))
    return Job(
        config=trainer.model.config,
        reads=most._replace(tokens=longest, scored=min(most.scored, longest)),
        batch=args.per_device_train_batch_size,
        checkpointing=args.gradient_checkpointing,
        optimiser=str(getattr(args.optim, "value", args.optim)),
        bf16=args.bf16,
        dtype=settings.dtype,
        frozen="bfloat16" if args.device.type == "cuda" else "float32",
        fused=stage in FUSED,
        offload=offloaded(trainer) if args.device.type == "cuda" else frozenset(),
        adapters=settings.adapters(stage),
        bits=settings.weight_bits(),
        scorer=stage == "reward",
        actor_critic=stage == "ppo",
        blocks=blocks(section),
        answers=section.get("rollout_batch_size", section.get("decode_batch_size", 0)),
        engine=mirror(trainer) is not None,
        sleeps=args.device.type == "cuda",
        processes=args.world_size,
        zero=trainer.accelerator.deepspeed_plugin.zero_stage if trainer.is_deepspeed_enabled else 0,
    )


def mirror(trainer: Any) -> Any | None:
    """Return the engine that answers for a trainer's policy, or None where that answers itself."""
    collector = getattr(getattr(trainer, "setup", None), "collector", None)
    return getattr(trainer if collector is None else collector, "mirror", None)


def offloaded(trainer: Any) -> frozenset[str]:
    """Return what DeepSpeed keeps in the machine's memory instead of the GPU's."""
    if not trainer.is_deepspeed_enabled:
        return frozenset()
    return offload(trainer.accelerator.deepspeed_plugin.deepspeed_config["zero_optimization"])


def offload(zero: Mapping[str, Any]) -> frozenset[str]:
    """Return which of `optimizer` and `param` the section `zero_optimization` of DeepSpeed's config
    offloads.
    """
    named = {name: (zero.get(f"offload_{name}") or {}).get("device", "none") for name in ("optimizer", "param")}
    return frozenset(name for name, device in named.items() if device != "none")


def longest_example(trainer: Any, most: int) -> int:
    """Return the tokens of the longest example in the training data, `most` where that is not
    known.
    """
    import pyarrow.compute as pc

    if hasattr(trainer, "setup"):
        return max(map(len, trainer.setup.prompts)) + int(trainer.setup.settings.max_new_tokens)
    columns = getattr(trainer.train_dataset, "column_names", [])
    if "length" in columns:
        return max(trainer.train_dataset["length"])
    if "input_ids" in columns:
        return int(pc.max(pc.list_value_length(trainer.train_dataset.data.column("input_ids"))).as_py())
    return most
