"""Which examples are read when: the same on any number of processes, and after a resume.

A checkpoint says how many processes wrote it and how many examples they read in an optimiser step.
Another number of processes goes on with steps of as many, each with its share of them.
"""

import dataclasses
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.common.core import checkpoints, params
from stages.common.runtime.errors import ParamsError

FILE = "processes.json"
BATCH, ACCUMULATION = "per_device_train_batch_size", "gradient_accumulation_steps"
log = logging.getLogger("lathe")


def write(folder: Path, trainer: Any) -> None:
    """Write into a checkpoint how many processes make it, how, and the examples of their steps."""
    args = trainer.args
    examples = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    found = {"processes": args.world_size, "split_by": split_by(trainer), "examples": examples}
    (folder / FILE).write_text(json.dumps(found), encoding="utf-8")


def split_by(trainer: Any) -> str:
    """Return who splits a training's state among its processes, "" where each has the whole."""
    if trainer.is_deepspeed_enabled:
        return f"DeepSpeed's ZeRO-{trainer.accelerator.deepspeed_plugin.zero_stage}"
    return "FSDP" if trainer.is_fsdp_enabled else ""


def check(checkpoint: Path, trainer: Any) -> None:
    """Raise ParamsError for a checkpoint that these processes cannot go on from; say it where they
    can and are others.
    """
    known = json.loads((checkpoint / FILE).read_text(encoding="utf-8"))
    now, before = trainer.args.world_size, known["processes"]
    here, there = split_by(trainer), known["split_by"]
    if here != there or (here and now != before):
        one, other = (split or "neither DeepSpeed nor FSDP" for split in (there, here))
        what = f"processes that wrote it: {before} of {one}; now: {now} of {other}"
        remedy = f"start them as before (--num_processes {before}), or train anew: rm -r {checkpoint.parent}"
        raise ParamsError(f"no training to go on with: {what}", where=checkpoint, remedy=remedy)
    if now != before:
        log.warning("going on with %d processes where %d were: random numbers (dropout) begin anew", now, before)


def as_before(training: Mapping[str, Any], cls: type, folder: Path) -> dict[str, Any]:
    """Return `training` with the batch and the accumulation by which the processes of now read as
    many examples in a step as those that wrote the checkpoints in `folder`; as it is without any.

    Raises ParamsError where they cannot share them.
    """
    written = [file for one in checkpoints.in_order(folder) if (file := one / FILE).is_file()]
    if not written:
        return dict(training)
    examples = int(json.loads(written[-1].read_text(encoding="utf-8"))["examples"])
    known: dict[str, Any] = {one.name: one.default for one in dataclasses.fields(cls)} | dict(training)
    world, batch = int(os.environ.get("WORLD_SIZE", "1")), known[BATCH]
    if batch * known[ACCUMULATION] * world == examples:
        return dict(training)
    if examples % world:
        what = f"{world} processes cannot share steps of {examples} examples, which {folder} has begun with"
        remedy = f"start a number that divides {examples}, or train anew: rm -r {folder}"
        raise ParamsError(what, where=params.PARAMS_FILE, remedy=remedy)
    share = examples // world
    times = next(count for count in range(1, share + 1) if share % count == 0 and share // count <= batch)
    log.info("steps stay of %d examples: %d a process, %d times", examples, share // times, times)
    return {**training, BATCH: share // times, ACCUMULATION: times}


class DataOrder:
    """A sampler whose order is drawn from torch's generator, which all processes read and a resumed
    training draws again: `trainer.order_began` is the generator's state at an epoch's begin.
    """

    def __init__(self, sampler: Any, trainer: Any) -> None:
        from transformers.trainer_pt_utils import LengthGroupedSampler

        self.sampler, self.trainer = sampler, trainer
        if isinstance(
            sampler, LengthGroupedSampler
        ):  # rows of like length come together in a step, not in a process's share
            sampler.batch_size *= trainer.args.world_size

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        """Draw an epoch's order."""
        import torch

        trainer = self.trainer
        if trainer.order_resumes:
            torch.set_rng_state(trainer.order_began)
            trainer.order_resumes = False
        trainer.order_began = torch.get_rng_state()
        order = [list(self.sampler)]
        if trainer.args.world_size > 1:  # dropout of other rows has moved each process's generator elsewhere
            torch.distributed.broadcast_object_list(order, src=0)
        return iter(order[0])


class Redrawn:
    """A sampler with a generator of its own, seeded from torch's for each epoch; else that would
    begin anew with a resumed training.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        """Draw an epoch's order."""
        import torch

        if self.sampler.shuffle:
            self.sampler.generator.manual_seed(int(torch.randint(2**62, (1,))))
        yield from self.sampler
