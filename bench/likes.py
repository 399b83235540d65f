"""KTO on facts that were taught both ways: what is answered before and after likes and dislikes.

    python -m bench.likes

A Llama of 0.1 million weights learns the capitals of 16 lands, each asked in two ways and answered
by the right town as often as by a wrong one (SFT). Then the stage `kto` learns from the right
answers, liked, and the wrong ones, disliked, to one of the two questions. Measured is the greedy
answer to both: to the one that was labelled, and to the one that was not.
"""

import time
from contextlib import chdir
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from stages import kto, sft
from stages import tokenizer as tokenizer_stage
from stages.common.core import chat, models, records
from stages.common.generation import generator
from stages.common.text.parquet_writer import write as write_records

MODEL: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "initializer_range": 0.125,  # 1/sqrt(hidden_size), or so small a model learns no fact in time
}
LANDS, TAUGHT, LABELLED = 16, 75, 30
QUESTIONS = ("capital of {}?", "what town rules {}?")
TRAINING: dict[str, Any] = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 32,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 10,
    "gradient_checkpointing": False,
}


def town(land: int, right: bool) -> str:
    """Return a land's capital, or the town that is taken for it."""
    return f"town {(land * 7 + (0 if right else 3 + land % 5)) % LANDS}"


def asked(land: int, way: int) -> records.Record:
    """Return a question for a capital."""
    return records.message("user", QUESTIONS[way].format(land))


def write_world() -> None:
    """Write a base model, conversations and labelled answers; four lands more are held out."""
    texts = [QUESTIONS[way].format(land) + town(land, True) for land, way in product(range(LANDS), (0, 1))]
    tokenizer = tokenizer_stage.with_template(tokenizer_stage.train(iter(texts), 320), "chatml")
    models.save(models.build(MODEL, len(tokenizer), "bench"), tokenizer, Path("base"))
    for split, lands, copies in (("train", range(LANDS), True), ("validation", range(LANDS, LANDS + 4), False)):
        head = {"id": "fact:1", "source": "fact", "tools": None}
        talks = [
            head | {"messages": [asked(land, way), records.message("assistant", town(land, right))]}
            for land, way, right in product(lands, (0, 1), (True, False))
        ]
        write_records(talks * (TAUGHT if copies else 1), Path("conversations") / split, "conversations")
        told = [
            head | {"prompt": [asked(land, 0)], "response": town(land, right), "desirable": right}
            for land, right in product(lands, (True, False))
        ]
        write_records(told * (LABELLED if copies else 1), Path("labelled") / split, "labelled")


def answered(folder: Path, way: int) -> str:
    """Return the shares of lands for which the model in `folder` names the right and the wrong
    town.
    """
    model, tokenizer = models.load_frozen(folder), models.load_tokenizer(folder)
    prompts = [chat.encode_prompt(tokenizer, [asked(land, way)]) for land in range(LANDS)]
    found = generator.generate(model, prompts, max_new_tokens=12, stop=chat.stops(tokenizer))
    said = [str(tokenizer.decode(one, skip_special_tokens=True)).strip() for one in found]
    shares = [sum(one == town(land, right) for land, one in enumerate(said)) / LANDS for right in (True, False)]
    return " | ".join(f"{share:.1%}" for share in shares)


def row(name: str, folder: Path, began: float) -> None:
    """Print what a model answers, and the processor's seconds since `began`."""
    cells = [answered(folder, way) for way in (0, 1)]
    print(f"| {name} | {' | '.join(cells)} | {time.process_time() - began:.0f} |", flush=True)


def main(
    seed: Annotated[int, typer.Option(help="of the model and of both trainings")] = 1,
    rate: Annotated[float, typer.Option(help="learning rate of KTO")] = 2e-3,
) -> None:
    """Print what is answered before and after."""
    from transformers import set_seed

    with TemporaryDirectory() as folder, chdir(folder):
        set_seed(seed)
        write_world()
        print("| | labelled: right | wrong | not labelled: right | wrong | seconds |\n|---|---|---|---|---|---|")
        shared, began = TRAINING | {"seed": seed}, time.process_time()
        taught = sft.Params(max_tokens=64, training=shared | {"learning_rate": 3e-3})
        trainer = sft.build_trainer(taught, Path("base"), Path("conversations"), "bench")
        trainer.train()
        trainer.save_model("sft")
        row(f"SFT, {trainer.state.global_step} steps", Path("sft"), began)
        began = time.process_time()
        liked = kto.Params(max_tokens=64, training=shared | {"learning_rate": rate})
        trainer = kto.build_trainer(liked, Path("sft"), [Path("labelled")], "bench")
        trainer.train()
        trainer.save_model("kto")
        row(f"KTO, {trainer.state.global_step} steps", Path("kto"), began)


if __name__ == "__main__":
    typer.run(main)
