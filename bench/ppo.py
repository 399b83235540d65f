"""Episodes a second of the PPO stage's trainer against TRL 1.12's PPOTrainer, and against the
matrix products alone.

    python -m bench.ppo --trl-python trl112/bin/python

TRL dropped PPO in 1.13, so its side runs in an environment of its own; without it the stage alone
is measured. Both train in turns from the same weights: a Llama of 4 million as policy and
reference, as reward and as value model; 32 episodes an update, four PPO epochs of one minibatch, up
to 48 new tokens, fp32, no dropout, AdamW without clipping. The weights are random. The end of
turn's embedding is so long that answers end at any length; both draw from the same distribution,
but not the same answers. Prompts have 8 to 40 tokens. Building a trainer is not counted.

The limit is what the products with the weights alone take, forward and where trained backward, of
real tokens only and of the head at answer tokens only: no attention, no norms, no losses, no
optimiser, no sampling.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from subprocess import PIPE
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from unittest.mock import patch

import typer

from bench.ppo_limit import limit
from bench.reward import MODEL, VOCABULARY
from stages import ppo
from stages import tokenizer as tokenizer_stage
from stages.common.core import chat, models, records
from stages.common.reward import scoring
from stages.common.text.parquet_writer import write
from stages.common.tracking.run import Run

BATCH, EPOCHS, LONGEST, ERRORS = 32, 4, 48, 4.0
OPTIMISER: dict[str, Any] = {"learning_rate": 1e-6, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
PLACES = ("rollout", "scoring", "update")
HOW = """To make its environment:
    python -m venv trl112 && trl112/bin/pip install torch==2.13.0 && trl112/bin/pip install "trl==1.12.*"
and give it: python -m bench.ppo --trl-python trl112/bin/python"""


def prepare(
    folder: Path,
    end_norm: float,
    updates: int,
    threads: int,
    *,
    model: dict[str, Any] = MODEL,
    vocabulary: int = VOCABULARY,
    batch: int = BATCH,
    longest: int = LONGEST,
    device: str = "cpu",
) -> dict[str, Any]:
    """Write both models, conversations and the job for the other side; return the job."""
    import torch
    from transformers import set_seed

    set_seed(1)
    tokenizer = tokenizer_stage.with_template(tokenizer_stage.train(iter(["a b c"]), 300), "chatml")
    end = chat.end_of_turn(tokenizer)
    policy = models.build(model | {"initializer_range": 0.06}, vocabulary, "bench")
    with torch.no_grad():
        embedding = policy.get_input_embeddings().weight
        embedding[end] *= end_norm / embedding[end].norm()
    policy.generation_config.eos_token_id, policy.generation_config.pad_token_id = end, tokenizer.pad_token_id
    models.save(policy, tokenizer, folder / "policy")
    models.save(scoring.begin(folder / "policy", tokenizer), tokenizer, folder / "reward")
    talks = [
        {"id": f"bench:{n}", "source": "bench", "tools": None}
        | {"messages": [records.message("user", "a"), records.message("assistant", "b" * n)]}
        for n in range(1, 9)
    ]
    write(talks, folder / "conversations/train", "conversations")
    dice = random.Random(1)
    prompts = [dice.choices(range(300, vocabulary), k=dice.randint(8, 40)) for _ in range(8 * batch)]
    job = {"prompts": prompts, "end": end, "updates": updates, "batch": batch, "epochs": EPOCHS}
    job |= {"max_new_tokens": longest, "threads": threads, "optimiser": OPTIMISER, "device": device}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    return job


def ours(folder: Path, job: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train once; return seconds, in all and by place, and what was read: lengths of prompts and of
    answers.
    """
    from transformers import PrinterCallback

    from stages.common.ppo.collector import Collector

    settings = ppo.Params(
        training=OPTIMISER | {"per_device_train_batch_size": job["batch"], "num_train_epochs": 1, "seed": seed},
        rollout_episodes=job["batch"],
        rollouts_per_epoch=job["updates"],
        ppo_epochs=job["epochs"],
        max_new_tokens=job["max_new_tokens"],
        watch_prompts=0,
    )
    prompts = {"train": job["prompts"], "validation": job["prompts"][:1]}
    places = {"model": folder / "policy", "reward": folder / "reward"}
    places |= {name: folder / name for name in ("conversations", "documents")}
    trainer = ppo.build_trainer(settings, prompts, Run(None), "bench", **places)
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.remove_callback(PrinterCallback)
    found: dict[str, Any] = {"prompts": [], "lengths": [], **dict.fromkeys(PLACES, 0.0)}
    collect = Collector.collect

    def counted(*given: Any) -> Any:
        rollout = collect(*given)
        found.update({place: found[place] + seconds for place, seconds in rollout.seconds.items()})
        found["prompts"] += map(len, rollout.episodes.prompts)
        found["lengths"] += rollout.lengths().tolist()
        return rollout

    with patch.object(Collector, "collect", counted):
        start = time.monotonic()
        trainer.train()
        found["seconds"] = time.monotonic() - start
    found["update"] = found["seconds"] - found["rollout"] - found["scoring"]
    return found


@contextmanager
def theirs(given: Path | None, folder: Path) -> Iterator[Callable[[int], dict[str, Any]] | None]:
    """Give what trains once, from a seed, in the other interpreter, which waits between its turns,
    or None without one; instead of one, a folder of packages that this one is to read first.

    It raises RuntimeError, with what that process said, when it ends before its answer.
    """
    if given is None:
        yield None
        return
    said, script = folder / "trl.log", Path(__file__).parent / "peers/trl_ppo.py"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    python = Path(sys.executable) if given.is_dir() else given
    if given.is_dir():  # whatever this interpreter reads comes behind it
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(given), os.environ.get("PYTHONPATH")]))
    with (
        said.open("w") as errors,
        subprocess.Popen(
            [python, script, folder], stdin=PIPE, stdout=PIPE, stderr=errors, text=True, env=environment
        ) as process,
    ):
        asked, answers = process.stdin, process.stdout
        assert asked and answers

        def train(seed: int) -> dict[str, Any]:
            print(seed, file=asked, flush=True)
            answer = answers.readline()
            if not answer:
                raise RuntimeError(f"TRL's side ended: {said.read_text()[-2000:]}\n{HOW}")
            return dict(json.loads(answer))

        yield train


def speed(one: dict[str, Any]) -> float:
    return len(one["lengths"]) / one["seconds"]


def pooled(trained: list[dict[str, Any]], name: str) -> list[int]:
    return [length for one in trained for length in one[name]]


def apart(one: list[int], two: list[int]) -> float:
    """Return how many standard errors of their difference two means are apart."""
    error = (statistics.variance(one) / len(one) + statistics.variance(two) / len(two)) ** 0.5
    return abs(statistics.fmean(one) - statistics.fmean(two)) / error


def show(stage: list[dict[str, Any]], other: list[dict[str, Any]], least: float) -> None:
    """Print both sides, the stage's time by place, and how far the products alone are."""
    for name, trained in (("ppo stage", stage), ("TRL 1.12 PPOTrainer", other)):
        if trained:
            rate, lengths = statistics.median(map(speed, trained)), pooled(trained, "lengths")
            low, middle, high = statistics.quantiles(lengths, n=4)
            spread = f"{statistics.fmean(lengths):.1f} tokens (quartiles {low:.0f}, {middle:.0f}, {high:.0f})"
            print(f"{name:<22}{rate:>8.2f} episodes/s, answers of {spread}")
    if other:
        ratios = [speed(one) / speed(two) for one, two in zip(stage, other, strict=True)]
        print(f"\nratio {statistics.median(ratios):.2f} (by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    else:
        print(f"\nno ratio: TRL 1.12 was not given. {HOW}")
    whole = sum(one["seconds"] for one in stage)
    print(
        "\nthe stage's time: " + ", ".join(f"{name} {sum(one[name] for one in stage) / whole:.0%}" for name in PLACES)
    )
    bound = BATCH / least
    share = statistics.median(map(speed, stage)) / bound
    print(f"the products alone: {bound:.2f} episodes/s; the stage reaches {share:.0%} of that")


def main(
    trl_python: Annotated[Path | None, typer.Option(help="The interpreter with TRL 1.12; see above.")] = None,
    updates: Annotated[int, typer.Option(help="Updates a round, of 32 episodes each.")] = 8,
    rounds: Annotated[int, typer.Option(help="Times each side trains, in turns.")] = 5,
    threads: Annotated[int, typer.Option(help="torch's threads.")] = 2,
    end_norm: Annotated[
        float, typer.Option(help="Length of the end of turn's embedding: more, shorter answers.")
    ] = 6.0,
) -> None:
    """Compare."""
    import torch
    from transformers.utils import logging as transformers_logging

    torch.set_num_threads(threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    stage: list[dict[str, Any]] = []
    other: list[dict[str, Any]] = []
    with TemporaryDirectory() as place, chdir(place):
        folder = Path(place)
        job = prepare(folder, end_norm, updates, threads)
        with theirs(trl_python, folder) as peer:
            for seed in range(rounds):
                stage.append(ours(folder, job, seed))
                print(f"{'ppo stage':<22}{speed(stage[-1]):>8.2f} episodes/s", flush=True)
                if peer:
                    other.append(peer(seed))
                    print(f"{'TRL 1.12 PPOTrainer':<22}{speed(other[-1]):>8.2f} episodes/s", flush=True)
        least = limit(folder, pooled(stage, "prompts"), pooled(stage, "lengths"), batch=BATCH, epochs=EPOCHS)
    if other and apart(pooled(stage, "lengths"), pooled(other, "lengths")) > ERRORS:
        raise RuntimeError("not the same task: the two sides' answers are not of the same length on average")
    print(f"\n{updates} updates of {BATCH} episodes, {threads} threads, median of {rounds} rounds\n")
    show(stage, other, least)


if __name__ == "__main__":
    typer.run(main)
