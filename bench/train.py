"""Tokens a second of the pretrain stage against a bare PyTorch loop, and of the SFT stage against
TRL's SFTTrainer.

    python -m bench.train

All train one epoch from the same weights (a Llama of 4 million, random), on the same random tokens,
with as many rows in a batch and the same AdamW, in fp32 without dropout. The stages run with what
watches every training (progress, metrics); TRL with its defaults, but fp32 and with the labels on
the same answer tokens. The clock goes from the first step to the end of the last one: building,
evaluating and saving are not counted. Before it starts, both sides must give the same loss for a
batch. "Trained" tokens have a label; conversations have 12 to 60 tokens of prompt and 4 to 60 of
answer, one in eight four such turns.
"""

import random
import statistics
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from unittest.mock import patch

import typer

from bench.reward import MODEL, VOCABULARY
from stages import pretrain, sft
from stages import tokenizer as tokenizer_stage
from stages.common.core import models
from stages.common.finetuning import conversation_dataset
from stages.common.pairs import preference_pairs
from stages.common.tracking.run import Run
from stages.common.training import fit_params, packed_blocks

BLOCK, BLOCK_BATCH, TALK_BATCH, TOLERANCE = 256, 4, 16, 1e-4
OPTIMISER: dict[str, Any] = {"learning_rate": 1e-4, "weight_decay": 0.1, "max_grad_norm": 1.0, "num_train_epochs": 1}
TARGETS = {"pretrain": 0.95, "SFT": 1.8}


def write_inputs(folder: Path, steps: int) -> list[dict[str, list[int]]]:
    """Write model and blocks; return conversations as {input_ids, labels}."""
    import numpy
    from transformers import set_seed

    set_seed(1)
    tokenizer = tokenizer_stage.with_template(tokenizer_stage.train(iter(["a b c"]), 300), "chatml")
    models.save(models.build(MODEL, VOCABULARY, "bench"), tokenizer, folder / "model")
    dice = random.Random(1)

    def drawn(low: int, high: int) -> list[int]:
        return dice.choices(range(300, VOCABULARY), k=dice.randint(low, high))

    with (folder / "blocks.bin").open("wb") as handle:
        for _ in range(steps * BLOCK_BATCH):
            numpy.asarray(drawn(BLOCK, BLOCK), dtype=numpy.uint32).tofile(handle)
    talks = []
    for number in range(steps * TALK_BATCH):
        row: dict[str, list[int]] = {"input_ids": [], "labels": []}
        for _ in range(4 if number % 8 == 0 else 1):
            asked, answer = drawn(12, 60), drawn(4, 60)
            row["input_ids"] += asked + answer
            row["labels"] += [-100] * len(asked) + answer
        talks.append(row)
    return talks


class Clock:
    """Seconds from the first step of a training to the end of its last one."""

    def __init__(self, trainer: Any) -> None:
        from transformers import PrinterCallback, TrainerCallback

        clock = self

        class Hands(TrainerCallback):
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                clock.start = time.monotonic()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                clock.seconds = time.monotonic() - clock.start

        self.start = self.seconds = 0.0
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Hands())


def stage_pretrain(folder: Path) -> Any:
    """Return the stage's trainer over the blocks."""
    settings = pretrain.Params(training=OPTIMISER | {"per_device_train_batch_size": BLOCK_BATCH, "seed": 1})

    def blocks(*_: Any) -> packed_blocks.Blocks:
        return packed_blocks.Blocks(folder / "blocks.bin", BLOCK)

    watched = settings.model_copy(update={"base": str(folder / "model")})
    with patch.object(packed_blocks, "documents", blocks):
        return watch(
            pretrain.build_trainer(watched, models.load_tokenizer(folder / "model"), folder, "bench"), settings
        )


def bare_seconds(folder: Path) -> tuple[float, float]:
    """Return what one epoch takes in a loop of nothing but the necessary, and the loss of the first
    batch.
    """
    import torch
    from torch.utils.data import DataLoader
    from transformers import default_data_collator

    model = models.load(folder / "model").train()
    blocks: Any = packed_blocks.Blocks(folder / "blocks.bin", BLOCK)
    optimizer = torch.optim.AdamW(model.parameters(), lr=OPTIMISER["learning_rate"], weight_decay=0.1, fused=True)
    loader = DataLoader(blocks, BLOCK_BATCH, shuffle=True, collate_fn=default_data_collator)
    start = time.monotonic()
    for batch in loader:
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMISER["max_grad_norm"])
        optimizer.step()
        optimizer.zero_grad()
    return time.monotonic() - start, loss.item()


def stage_sft(folder: Path, talks: list[dict[str, list[int]]]) -> Any:
    """Return the stage's trainer over the conversations, with the demo's settings."""
    from datasets import Dataset

    own = {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length", "seed": 1}
    settings = sft.Params(training=OPTIMISER | own | {"per_device_train_batch_size": TALK_BATCH}, max_tokens=512)
    with patch.object(conversation_dataset, "tokenise", lambda *_, **__: Dataset.from_list(talks)):
        return watch(sft.build_trainer(settings, folder / "model", folder, "bench"), settings)


def stock_sft(folder: Path, talks: list[dict[str, list[int]]]) -> Any:
    """Return TRL's trainer with its defaults over the same rows."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    own = fit_params.OWN | {"eval_strategy": "no", "use_cpu": True, "bf16": False, "output_dir": "stock", "seed": 1}
    rows = {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
    arguments = SFTConfig(per_device_train_batch_size=TALK_BATCH, **OPTIMISER, **rows, **own)
    return SFTTrainer(
        model=models.load(folder / "model"),
        args=arguments,
        train_dataset=Dataset.from_list(talks),
        processing_class=models.load_tokenizer(folder / "model"),
    )


def watch(trainer: Any, settings: fit_params.FitParams) -> Any:
    """Add what watches a stage's training; nothing is evaluated or saved."""
    from stages.common.training.callbacks import Life

    class Unsaved(Life):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            """Save nothing: the bare side does not either."""

    trainer.args.eval_strategy = "no"
    trainer.add_callback(Unsaved(trainer, settings, Run(None), "bench"))
    return trainer


def trained_seconds(trainer: Any) -> float:
    """Return what one epoch takes."""
    clock = Clock(trainer)
    trainer.train()
    return clock.seconds


def check(ours: Any, theirs: Callable[[Any], float]) -> None:
    """Raise RuntimeError unless both sides give the same loss for one batch of ours, without
    dropout.
    """
    import torch

    batch = next(iter(ours.get_train_dataloader()))
    with torch.no_grad():
        first, second = float(ours.compute_loss(ours.model, dict(batch))), theirs(dict(batch))
    if abs(first - second) > TOLERANCE:
        raise RuntimeError(f"not the same loss: {first}, {second}")


def table(what: str, tokens: int, seconds: dict[str, list[float]]) -> None:
    """Print the tokens a second of both sides and the ratios of the rounds."""
    print(f"\n{what}: {tokens:,} tokens an epoch\n{'':<24}{'min':>10}{'median':>10}{'max':>10}  tokens/s")
    for name, times in seconds.items():
        speeds = sorted(tokens / one for one in times)
        print(f"{name:<24}{speeds[0]:>10,.0f}{statistics.median(speeds):>10,.0f}{speeds[-1]:>10,.0f}")
    ours, theirs = seconds.values()
    ratios = sorted(other / one for one, other in zip(ours, theirs, strict=True))
    median = statistics.median(ratios)
    print(f"ratio by round: min {ratios[0]:.2f}, median {median:.2f}, max {ratios[-1]:.2f} (target {TARGETS[what]})")


def main(
    steps: Annotated[int, typer.Option(help="Steps of an epoch.")] = 20,
    rounds: Annotated[int, typer.Option(help="Times each side trains, in turns.")] = 5,
    threads: Annotated[int, typer.Option(help="torch's threads.")] = 2,
) -> None:
    """Compare."""
    import torch
    from transformers.utils import logging as transformers_logging

    torch.set_num_threads(threads)
    transformers_logging.set_verbosity_error()
    preference_pairs.quiet_bars()
    with TemporaryDirectory() as place, chdir(place):
        folder = Path(place)
        talks = write_inputs(folder, steps)
        labelled = sum(token != -100 for row in talks for token in row["labels"])
        stock, bare = stock_sft(folder, talks), models.load(folder / "model")
        check(stage_pretrain(folder), lambda batch: float(bare(**batch, use_cache=False).loss))
        check(stage_sft(folder, talks), lambda batch: float(stock.compute_loss(stock.model, batch)))
        pretraining: dict[str, list[float]] = {"pretrain stage": [], "bare PyTorch loop": []}
        tuning: dict[str, list[float]] = {"SFT stage": [], "TRL SFTTrainer, default": []}
        for number in range(rounds):
            pretraining["pretrain stage"].append(trained_seconds(stage_pretrain(folder)))
            pretraining["bare PyTorch loop"].append(bare_seconds(folder)[0])
            tuning["SFT stage"].append(trained_seconds(stage_sft(folder, talks)))
            tuning["TRL SFTTrainer, default"].append(trained_seconds(stock_sft(folder, talks)))
            print(f"round {number + 1} of {rounds}", flush=True)
        table("pretrain", steps * BLOCK_BATCH * BLOCK, pretraining)
        table("SFT", labelled, tuning)


if __name__ == "__main__":
    typer.run(main)
