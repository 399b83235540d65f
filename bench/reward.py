"""Comparisons a second of the reward stage's trainer against TRL's RewardTrainer on the same
comparisons as pairs.

A prompt with K = 4 ranked answers is 6 comparisons. The stage reads the prompt once and 4 answers,
TRL 6 pairs or 12 prompts with an answer. Both train one epoch on the same prompts, from the same
weights (a Llama of 4 million, random), with the same optimiser, in fp32, without gradient
checkpointing or dropout, and with as many answers in a batch. Prompts have 8 to 40 tokens, answers
4 to 40, at random. Building a trainer is not counted. Before the clock starts, both must give the
same loss over the epoch's comparisons.

    python -m bench.reward
"""

import random
import statistics
import time
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from stages import reward
from stages import tokenizer as tokenizer_stage
from stages.common.core import models
from stages.common.pairs import preference_pairs
from stages.common.reward import batches, scoring
from stages.common.training import fit_params

MODEL: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
VOCABULARY, ANSWERS, TOLERANCE = 3072, 4, 1e-5
OPTIMISER: dict[str, Any] = {"learning_rate": 1e-4, "num_train_epochs": 1, "seed": 1}


def write_model(folder: Path) -> None:
    """Write the model with its tokenizer, of which only the special tokens matter here."""
    from transformers import set_seed

    set_seed(1)
    tokenizer = tokenizer_stage.with_template(tokenizer_stage.train(iter(["a b c"]), 300), "chatml")
    models.save(models.build(MODEL, VOCABULARY, "bench"), tokenizer, folder)


def ranked(prompts: int) -> list[batches.Row]:
    """Return rows as `ranked_answers.tokenise` does, of random tokens, all answers of different
    rank.
    """
    rng = random.Random(1)
    rows = []
    for number in range(prompts):
        asked = rng.choices(range(300, VOCABULARY), k=rng.randint(8, 40))
        answers = [rng.choices(range(300, VOCABULARY), k=rng.randint(4, 40)) for _ in range(ANSWERS)]
        row: batches.Row = {"rows": [asked + answer for answer in answers], "id": str(number), "source": "bench"}
        row |= {"ranks": rng.sample(range(1, ANSWERS + 1), ANSWERS), "lengths": [len(answer) for answer in answers]}
        sizes = {"length": max(map(len, row["rows"])), "width": len(asked) + sum(row["lengths"])}
        rows.append(row | sizes | {"categories": []})
    return rows


def kwise(model: Path, rows: list[batches.Row], batch: int) -> Any:
    """Return the stage's trainer, told not to evaluate at the epoch's end."""
    from datasets import Dataset

    settings = reward.Params(training=OPTIMISER | {"per_device_train_batch_size": batch}, max_tokens=128)
    data = Dataset.from_list(rows)
    trainer = reward.build_trainer(settings, model, reward.Data(data, data.select([0]), {}), "bench")
    trainer.args.eval_strategy = "no"
    return trainer


def pairwise(model: Path, rows: list[batches.Row], batch: int) -> Any:
    """Return TRL's trainer over every pair of every prompt, in batches of as many answers."""
    from datasets import Dataset
    from transformers import set_seed
    from trl import RewardConfig, RewardTrainer

    pairs = [
        {"chosen_ids": row["rows"][better], "rejected_ids": row["rows"][worse]}
        for row in rows
        for better, worse in preference_pairs.pairs(row["ranks"], "all")
    ]
    set_seed(OPTIMISER["seed"])  # as the stage does: the new head is random
    tokenizer = models.load_tokenizer(model)
    own = fit_params.OWN | {"eval_strategy": "no", "use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    arguments = RewardConfig(
        output_dir="pairwise", per_device_train_batch_size=batch * ANSWERS // 2, max_length=None, **OPTIMISER, **own
    )
    return RewardTrainer(
        model=scoring.begin(model, tokenizer),
        args=arguments,
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
    )


def read(trainer: Any) -> tuple[float, float]:
    """Return the mean loss over the epoch's batches, and the mean number of tokens in one, padding
    included.
    """
    import torch

    batches = list(trainer.get_train_dataloader())
    with torch.no_grad():
        losses = [float(trainer.compute_loss(trainer.model, batch)) for batch in batches]
    tokens = [batch["input_ids"].numel() for batch in batches]
    return statistics.fmean(losses), statistics.fmean(tokens)


def seconds(trainer: Any) -> float:
    """Return how long one epoch takes."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    start = time.monotonic()
    trainer.train()
    return time.monotonic() - start


def main(
    prompts: Annotated[int, typer.Option(help="Prompts with 4 ranked answers each.")] = 64,
    batch: Annotated[int, typer.Option(help="Prompts a batch; TRL's has twice as many pairs.")] = 8,
    rounds: Annotated[int, typer.Option(help="Times each side trains, in turns.")] = 5,
    threads: Annotated[int, typer.Option(help="torch's threads.")] = 2,
) -> None:
    """Compare."""
    import torch
    from transformers.utils import logging as transformers_logging

    torch.set_num_threads(threads)
    transformers_logging.set_verbosity_error()
    preference_pairs.quiet_bars()
    rows = ranked(prompts)
    comparisons = prompts * ANSWERS * (ANSWERS - 1) // 2
    sides = {"reward stage": kwise, "TRL RewardTrainer": pairwise}
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    with TemporaryDirectory() as place, chdir(place):
        model = Path("model")
        write_model(model)
        first = {name: read(side(model, rows, batch)) for name, side in sides.items()}
        losses = [loss for loss, _ in first.values()]
        if abs(losses[0] - losses[1]) > TOLERANCE:
            raise RuntimeError(f"not the same loss: {losses}")
        for _ in range(rounds):
            for name, side in sides.items():
                speeds[name].append(comparisons / seconds(side(model, rows, batch)))
                print(f"{name:<20}{speeds[name][-1]:>10,.1f} comparisons/s", flush=True)
    print(f"\n{prompts:,} prompts of {ANSWERS} answers, {threads} threads, median of {rounds} rounds\n")
    print(f"{'':<20}{'comparisons/s':>15}{'tokens a batch':>16}{'loss at first':>15}")
    for name, (loss, tokens) in first.items():
        print(f"{name:<20}{statistics.median(speeds[name]):>15,.1f}{tokens:>16,.0f}{loss:>15.6f}")
    ours, theirs = speeds.values()
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    print(f"\nratio {statistics.median(ratios):.2f} (by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")


if __name__ == "__main__":
    typer.run(main)
