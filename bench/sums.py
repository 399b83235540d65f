"""GRPO on sums that can be checked: exact match before and after, on sums that were never seen.

    python -m bench.sums

The world is 8,100 sums of two numbers of two digits. A Llama of 0.8 million weights learns to
answer from a part of them (SFT) until it is right on some; the stage `grpo` then asks other sums,
and the reward is `exact`. Measured is greedy exact match on sums that neither has seen.
"""

import json
import random
import time
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from stages import grpo, sft
from stages import tokenizer as tokenizer_stage
from stages.common.core import chat, models, records
from stages.common.generation import generator
from stages.common.ranking.samples import SCHEMA
from stages.common.text.parquet_writer import write as write_records

MODEL: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
SHOWN, ASKED, TEST = 2_500, 4_000, 500
PARAMS: dict[str, Any] = {
    "validate": {"lacking": "stop"},
    "sft": {
        "max_tokens": 64,
        "training": {
            "num_train_epochs": 8,
            "per_device_train_batch_size": 64,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "constant_with_warmup",
            "warmup_steps": 50,
            "seed": 1,
        },
    },
    "grpo": {
        "rewards": {"exact": 1.0},
        "max_tokens": 64,
        "max_new_tokens": 6,
        "decode_batch_size": 128,
        "training": {
            "num_train_epochs": 1,
            "per_device_train_batch_size": 128,
            "num_generations": 8,
            "learning_rate": 1e-4,
            "lr_scheduler_type": "constant",
            "gradient_checkpointing": False,
            "seed": 1,
        },
    },
}


def write_world(seed: int) -> list[records.Record]:
    """Write a base model, conversations and samples; return the sums of the test."""
    from transformers import set_seed

    set_seed(seed)
    tokenizer = tokenizer_stage.with_template(tokenizer_stage.train(iter(["1 + 1"]), 265), "chatml")
    models.save(models.build(MODEL, len(tokenizer), "bench"), tokenizer, Path("base"))
    pairs = [(first, second) for first in range(10, 100) for second in range(10, 100)]
    random.Random(seed).shuffle(pairs)
    asked = [
        {"id": f"sum:{first}+{second}", "source": "sum", "reference": str(first + second), "category": None}
        | {"messages": [question(first, second)], "responses": [], "cut": []}
        for first, second in pairs
    ]
    talks = [
        {"id": f"sum:{first}+{second}", "source": "sum", "tools": None}
        | {
            "messages": [
                records.message("user", f"{first}+{second}"),
                records.message("assistant", str(first + second)),
            ]
        }
        for first, second in pairs[:SHOWN]
    ]
    write_records(talks[:-100], Path("conversations/train"), "conversations")
    write_records(talks[-100:], Path("conversations/validation"), "conversations")
    others = asked[SHOWN:]
    for split, some in (("train", others[:ASKED]), ("validation", others[ASKED : ASKED + TEST])):
        write_samples(Path("samples") / split, some)
    return others[ASKED + TEST :][:TEST]


def question(first: int, second: int) -> records.Record:
    """Return a sum as it is asked."""
    return records.message("user", f"{first}+{second}")


def write_samples(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write prompts as a round's samples are written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "part-00000.parquet")


def right(folder: Path, test: list[records.Record]) -> float:
    """Return the share of sums that the model in `folder` answers exactly, greedily."""
    model, tokenizer = models.load_frozen(folder), models.load_tokenizer(folder)
    answers = generator.generate(
        model,
        [chat.encode_prompt(tokenizer, row["messages"]) for row in test],
        max_new_tokens=6,
        stop=chat.stops(tokenizer),
        batch_size=128,
    )
    said = [str(tokenizer.decode(answer, skip_special_tokens=True)).strip() for answer in answers]
    return sum(one == row["reference"] for one, row in zip(said, test, strict=True)) / len(test)


def main(
    seed: Annotated[int, typer.Option(help="of the split and of both trainings")] = 1,
    epochs: Annotated[int, typer.Option(help="epochs of SFT")] = 8,
) -> None:
    """Print exact match before and after, and what each training took."""
    with TemporaryDirectory() as folder, chdir(folder):
        test = write_world(seed)
        sections = json.loads(json.dumps(PARAMS))
        sections["sft"]["training"] |= {"seed": seed, "num_train_epochs": epochs}
        sections["grpo"]["training"]["seed"] = seed
        Path("params.yaml").write_text(json.dumps(sections), encoding="utf-8")
        began, worked = time.monotonic(), time.process_time()
        sft.main(Path("base"), Path("conversations"), Path("sft"), Path("sft.csv"))
        before, tuned, tuning = right(Path("sft/last"), test), time.monotonic(), time.process_time()
        grpo.main(
            Path("sft/last"), Path("none"), Path("samples"), Path("none"), Path("grpo"), Path("curve"), Path("report")
        )
        after, done = right(Path("grpo"), test), time.process_time()
    print("| | exact match | seconds | of the processor |\n|---|---|---|---|")
    print(
        f"| SFT, {epochs} epochs of {SHOWN - 100:,} sums | {before:.1%} | {tuned - began:.0f} | {tuning - worked:.0f} |"
    )
    print(f"| GRPO, {ASKED:,} other sums | {after:.1%} | {time.monotonic() - tuned:.0f} | {done - tuning:.0f} |")
    print(f"\n{100 * (after - before):+.1f} points on {len(test)} sums that neither has seen (aim: +20)")


if __name__ == "__main__":
    typer.run(main)
