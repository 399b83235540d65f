"""What each trainer of params.yaml would take of this machine's memory, before anything is made."""

import json
import shlex
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from stages.common.core import params
from stages.common.finetuning import lora
from stages.common.memory import available, estimate, preflight
from stages.common.memory.job import FUSED, Job, blocks, reads
from stages.common.runtime.errors import ParamsError

TOKENIZER = Path("models/tokenizer")
TRAINERS = ("pretrain", "sft", "reward", "ppo", "dpo", "orpo", "grpo", "kto")
ANSWERS = {"ppo": "rollout_batch_size", "grpo": "decode_batch_size"}
"""Trainers that answer, with their key of answers under way at once."""
CHECKPOINTING = ("sft", "dpo", "grpo", "kto")
"""Trainers whose library recomputes activations unless told otherwise."""
LIBRARIES = estimate.GIBIBYTE // 2
"""What a process holds before its model, measured (docs/log.md)."""
SHAPES = Path(__file__).parents[2] / "infra/shapes.yaml"
CONTEXT, COMMUNICATION = estimate.GIBIBYTE, estimate.GIBIBYTE
"""What is taken of a GPU for CUDA's own use, and for NCCL's between several; not measured."""


class Launch(NamedTuple):
    """What `run.launcher` starts on this machine."""

    processes: int = 1
    zero: int = 0
    offload: frozenset[str] = frozenset()


class Planned(NamedTuple):
    """One trainer's job, what it needs and what there is for one of its processes."""

    stage: str
    job: Job
    need: estimate.Need
    free: int


def launch(launcher: str) -> Launch:
    """Return the processes and the ZeRO stage of a launcher's command line. Raises ParamsError for
    a missing file.
    """
    words = shlex.split(launcher)
    given = dict(pairwise(words))
    if "--config_file" not in given:
        return Launch(int(given.get("--num_processes", given.get("--nproc_per_node", 1))))
    settings = params.plain(params.read_yaml(Path(given["--config_file"])))
    file = settings.get("deepspeed_config", {}).get("deepspeed_config_file")
    zero = json.loads(Path(file).read_text(encoding="utf-8"))["zero_optimization"] if file else {"stage": 0}
    processes = int(given.get("--num_processes", settings.get("num_processes", 1)))
    return Launch(processes, int(zero["stage"]), preflight.offload(zero))


def config(document: Mapping[str, Any]) -> Any:
    """Return transformers' config of the base model; of a known one that is not on this machine,
    by its shape in infra/shapes.yaml. Raises ParamsError for another one.
    """
    from transformers import AutoConfig

    from stages.common.core.sparse import attention

    attention.register()  # a base model may have it
    pretrain, tokenizer = document["pretrain"], document["tokenizer"]
    try:
        if shape := shapes().get(pretrain.get("base")):
            return AutoConfig.for_model(**shape)
        if pretrain.get("base"):
            return AutoConfig.from_pretrained(pretrain["base"], local_files_only=True, trust_remote_code=False)
        return AutoConfig.for_model(**pretrain["model"], vocab_size=entries(tokenizer))
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ParamsError(
            f"no model to estimate: {str(error).splitlines()[0]}", where="params.yaml, pretrain"
        ) from error


def shapes() -> dict[str, Any]:
    """Return known models' configs by their name on the hub."""
    return dict(params.plain(params.read_yaml(SHAPES)))


def entries(tokenizer: Mapping[str, Any]) -> int:
    """Return the tokenizer's entries: those of the one that was made, or those it is to have."""
    from stages.common.core import models

    if (TOKENIZER / "tokenizer.json").is_file():
        return len(models.load_tokenizer(TOKENIZER))
    if tokenizer.get("base"):
        return len(models.load_tokenizer(tokenizer["base"]))
    return int(tokenizer["vocab_size"])


def job(stage: str, document: Mapping[str, Any], base: Any, started: Launch, gpu: bool) -> Job:
    """Return the job of a stage with the longest examples its params allow."""
    section = document[stage]
    training = section["training"]
    answers = int(document["sample"].get("answers", 4))
    return Job(
        config=base,
        reads=reads(stage, section, answers),
        batch=int(training.get("per_device_train_batch_size", 8)),
        checkpointing=bool(training.get("gradient_checkpointing", stage in CHECKPOINTING)),
        optimiser=str(training.get("optim", "adamw_torch_fused")),
        bf16=bool(training.get("bf16", gpu and not training.get("fp16"))),
        adapters=lora.config(section.get("lora"), f"{stage}.lora"),
        dtype=section.get("dtype", "float32"),
        frozen="bfloat16" if gpu else "float32",
        fused=stage in FUSED,
        offload=started.offload if gpu else frozenset(),
        bits=lora.bits(section.get("quantization")),
        scorer=stage == "reward",
        actor_critic=stage == "ppo",
        answers=int(section.get(ANSWERS[stage], 64)) if stage in ANSWERS else 0,
        engine=stage in ANSWERS and document["run"].get("engine") == "vllm",
        sleeps=gpu,
        blocks=blocks(section),
        processes=started.processes,
        zero=started.zero,
    )


def plans(document: Mapping[str, Any], card: float | None = None, quick: bool = False) -> Iterator[Planned]:
    """Yield each trainer's plan, for this machine or for GPUs of `card` GiB, which it need not
    have. Raises ParamsError where the base model is not known yet.
    """
    import torch

    started, base = launch(str(document["run"]["launcher"])), config(document)
    gpu = bool(card) or torch.cuda.is_available()
    if card:
        free = room(card, started.processes)
    elif gpu:
        free = torch.cuda.get_device_properties(0).total_memory
    else:
        free = available.system_free() // started.processes - LIBRARIES
    for stage in TRAINERS:
        section = document[stage]
        if section.get("skip") or section["training"].get("num_train_epochs") == 0:
            continue
        one = job(stage, document, base, started, gpu)
        yield Planned(stage, one, estimate.estimate(one, quick), free)


def room(card: float, processes: int) -> int:
    """Return the bytes a process has of a GPU with `card` GiB."""
    return int(card * estimate.GIBIBYTE) - CONTEXT - (COMMUNICATION if processes > 1 else 0)
