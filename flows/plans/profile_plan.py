"""What a profile asks of its GPUs: memory, hours, disk and price of each stage, before one is
rented.

Command: python -m flows.plans.profile_plan qwen2.5-0.5b    (or: make doctor PROFILE=qwen2.5-0.5b)
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flows.plans import memory_plan
from stages.common.core import params
from stages.common.memory import estimate
from stages.common.runtime import libraries
from stages.common.runtime.errors import ParamsError

FOLDER = Path("infra/profiles")
FORWARD = 1 / 3
"""Of a token's training, what reading it takes: the backward pass is twice the forward pass."""
ONLY_READ = {"dpo": 1, "kto": 3}
"""How often an example is read besides: by DPO's reference; by KTO's and, beside another prompt, by
both.
"""
ANSWERING = ("sample", "select_sft", "evaluate")
HEAD = ("stage", "GiB a GPU", "of", "tokens at most", "hours", "price", "disk, GiB")


class Row(NamedTuple):
    """A stage's plan. What is not known before there are data or a speed is None."""

    stage: str
    memory: int
    room: int
    """Bytes of a GPU that may be used; 0 where the profile runs without one."""
    tokens: float | None
    """Tokens that are trained on, a token that is only read being a third of one."""
    answers: float | None
    """Tokens that are made one by one."""
    disk: int

    @property
    def fits(self) -> bool:
        """Whether the memory is enough."""
        return not self.room or self.memory <= self.room


def rows(document: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the plan of each stage that holds a model."""
    run = document["run"]
    card, started = run.get("gpu_gibibytes"), memory_plan.launch(str(run["launcher"]))
    room = int(memory_plan.room(card, started.processes) * estimate.SPARE) if card else 0
    planned = list(memory_plan.plans(document, card, quick=True))
    config = planned[0].job.config
    size = weights(config)
    for stage, job, need, _ in planned:
        tokens, answers = work(stage, document[stage], job)
        yield Row(stage, need.total, room, tokens, answers, disk(document[stage], need, size))
    width = 2 if card else 4
    for stage in ANSWERING:
        section = document[stage]
        longest = int((section if stage == "evaluate" else document["ppo"]).get("max_tokens", 256))
        held = answering(stage, config, size, int(section.get("batch_size", 64)), longest, width, run.get("engine"))
        out = 2 * 2 * size if stage == "select_sft" else 0
        yield Row(stage, held, room, None, None, out)


def answering(stage: str, config: Any, size: int, rows: int, longest: int, width: int, engine: str | None) -> int:
    """Return the bytes of a stage that only answers: a model of `size` weights of `width` bytes,
    and keys and values of `rows` sequences. vLLM takes more for its cache where the card has it.
    """
    if engine == "vllm":  # it has ended before the stage reads another model
        return width * size + estimate.blocks(config, rows, longest, width) + estimate.PROCESS
    models = 2 if stage == "select_sft" else 1  # a policy, and the reward model beside it
    return models * width * size + estimate.cache(config, rows, longest, width)


def weights(config: Any) -> int:
    """Return the weights of a causal language model of that config."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return sum(one.numel() for one in AutoModelForCausalLM.from_config(config).parameters())


def work(stage: str, section: Mapping[str, Any], job: Any) -> tuple[float | None, float | None]:
    """Return the tokens that a stage trains on and those it makes, at most; None where its data say
    how many.
    """
    training = section["training"]
    if stage == "ppo":
        if not section.get("rollouts_per_epoch"):
            return None, None
        episodes = section["rollouts_per_epoch"] * int(section.get("rollout_episodes", 256))
        episodes *= float(training.get("num_train_epochs", 3))
        # policy and value model learn; both, the reference and the reward model read each answer
        read = 2 * int(section.get("ppo_epochs", 2)) + 4 * FORWARD
        return episodes * job.reads.tokens * read, episodes * int(section.get("max_new_tokens", 48))
    steps = int(training.get("max_steps", -1))
    if steps <= 0:
        return None, None
    examples = steps * job.batch * int(training.get("gradient_accumulation_steps", 1)) * job.processes
    read = 1 + FORWARD * ONLY_READ.get(stage, 0)
    return examples * job.reads.rows * job.reads.tokens * read, None


def disk(section: Mapping[str, Any], need: estimate.Need, size: int) -> int:
    """Return the bytes of a stage's checkpoints and models on disk, in 16 bits; a kept model lies
    among the checkpoints, in the outs and in DVC's cache.
    """
    epochs = max(1, round(float(section["training"].get("num_train_epochs", 1))))
    models = 3 * 2 * size * epochs
    adapters = section.get("lora") is not None
    trained = 3 * need.gradients if adapters else (1 if section.get("dtype") == "bfloat16" else 2) * 6 * size
    if "rollout_episodes" in section and not adapters:  # the value model too
        trained *= 2
    return int(models + (int(section.get("keep_checkpoints", 2)) + 1) * trained)


def hours(row: Row, document: Mapping[str, Any]) -> float | None:
    """Return a stage's hours at the given tokens a second of one GPU, None where that is not
    known.
    """
    run = document["run"]
    speeds, processes = run.get("tokens_per_second") or {}, memory_plan.launch(str(run["launcher"])).processes
    found = 0.0
    for count, speed in ((row.tokens, speeds.get("train")), (row.answers, speeds.get("decode"))):
        if count is not None and not speed:
            return None
        found += (count or 0) / (speed or 1) / processes / 3600
    return found if row.tokens is not None else None


def table(document: Mapping[str, Any], planned: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return the plan as cells, a row a stage and their sum."""
    price, gpus = document["run"].get("price_per_gpu_hour"), max(1, int(document["run"].get("gpus") or 0))
    cells, took = [HEAD], 0.0
    for row in planned:
        spent = hours(row, document)
        took += spent or 0
        cells.append(
            (
                row.stage,
                gibibytes(row.memory) + ("" if row.fits else " too much"),
                gibibytes(row.room) if row.room else "",
                f"{row.tokens / 1e6:,.1f} M" if row.tokens is not None else "",
                f"{spent:.1f}" if spent is not None else "",
                f"{spent * gpus * price:.2f}" if spent is not None and price else "",
                gibibytes(row.disk) if row.disk else "",
            )
        )
    cost = f"{took * gpus * price:.2f}" if took and price else ""
    return [
        *cells,
        ("all", "", "", "", f"{took:.1f}" if took else "", cost, gibibytes(sum(row.disk for row in planned))),
    ]


def gibibytes(count: float) -> str:
    """Return bytes in GiB for people."""
    return f"{count / estimate.GIBIBYTE:.1f}"


def main() -> None:
    """Print a profile's plan; exit code 1 where a stage's memory is not enough."""
    libraries.quiet()
    path = FOLDER / f"{sys.argv[1]}.yaml"
    try:
        document = params.plain(params.read_yaml(path))
        planned = list(rows(document))
    except ParamsError as error:
        raise SystemExit(f"lathe: {error}") from error
    cells = table(document, planned)
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    run = document["run"]
    print(f"\n{max(1, int(run.get('gpus') or 0))} x {run.get('gpu_gibibytes') or 'no GPU'}, {run['launcher']}")
    if not (run.get("tokens_per_second") or {}).get("train"):
        print("for hours: run.tokens_per_second, of one GPU (make gpu-check measures them)")
    raise SystemExit(int(not all(row.fits for row in planned)))


if __name__ == "__main__":
    main()
