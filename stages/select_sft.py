"""Pick the SFT epoch whose answers the reward model likes best: reward keeps rising after
validation loss has turned. Of those that it does not surely like less, the lowest loss decides.

(Ouyang et al. 2022, section 3.5.) Where rewards are lacking and may be, the lowest validation loss
is taken. Reads models/sft, a reward model, the held-out prompts of a round and SFT's loss curve.
Writes models/sft_best, a report and both curves side by side. Run: dvc repro select_sft
"""

import csv
import shutil
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Annotated

import typer
from pydantic import PositiveInt

from stages.common.core import chat, checkpoints, left_out, models, params, records
from stages.common.core.left_out import LackError
from stages.common.evaluation import sft_epochs
from stages.common.generation import generator, shares
from stages.common.generation.engines import choice
from stages.common.reward import scoring
from stages.common.runtime import logs, process, ranks
from stages.common.runtime.errors import DataError
from stages.common.tracking import session


class Params(params.StageParams):
    """Section `select_sft` of params.yaml."""

    max_new_tokens: PositiveInt = 48
    """Longest answer."""
    batch_size: PositiveInt = 64
    """Prompts answered, and answers scored, at once."""


def main(
    sft: Annotated[Path, typer.Option(help="folder with one model folder per kept epoch")],
    reward: Annotated[Path, typer.Option(help="folder of the reward model")],
    samples: Annotated[Path, typer.Option(help="answers of a round; the prompts of its validation split are asked")],
    losses: Annotated[Path, typer.Option(help="CSV of SFT's loss curve")],
    out: Annotated[Path, typer.Option(help="folder that gets the picked model")],
    report: Annotated[Path, typer.Option(help="report to write")],
    curve: Annotated[Path, typer.Option(help="CSV of validation loss and reward by epoch")],
) -> None:
    """Pick the SFT checkpoint by reward."""
    settings = params.load(Params, "select_sft")
    inputs = {"sft": sft, "reward": reward, "samples": samples}
    sections = {"select_sft": settings.model_dump()} | choice.section()
    with session.start("select_sft", params=sections, inputs=inputs) as run:
        best = ""
        with left_out.allowed():
            left_out.need(reward, "the reward model")
            asked = [row["messages"] for row in records.read(samples / "validation")]
            scores = rewards(epochs(sft), reward, asked, settings)
            measured = sft_epochs.measure(scores, validation_losses(losses))
            best = sft_epochs.pick(measured, scores)
            if process.is_main_process():
                shutil.copytree(sft / best, out, dirs_exist_ok=True)
                sft_epochs.write(measured, best, scores, models.weights_sha256(out), report, curve)
                run.figure("loss-and-reward", sft_epochs.figure(measured, best))
                told = {name: measured[best][name] for name in ("reward", "eval_loss")}
                run.metrics(told)
                logs.report(headline(measured, best), told | {"epoch": list(measured).index(best) + 1})
        if not best and process.is_main_process():
            best = sft_epochs.by_loss(epochs(sft), validation_losses(losses), out, report, curve)
            logs.report(f"{best}: lowest validation loss, for want of rewards")


def epochs(sft: Path) -> list[Path]:
    """Return the kept epochs' folders, in order. Raises DataError when there is none."""
    found = sorted(sft.glob("epoch-*"), key=checkpoints.step)
    if not found:
        raise DataError("no epoch-* folder here", where=sft, remedy="run `dvc repro sft`")
    return found


def rewards(
    folders: list[Path], reward: Path, prompts: list[list[records.Record]], settings: Params
) -> dict[str, list[float]]:
    """Return the score of every epoch's greedy answer to each prompt; a process holds one model at
    a time.

    Raises LackError without prompts.
    """
    if not prompts:
        raise LackError("no held-out prompts to answer", remedy="raise curate.splits.prompts.validation")
    every = [(folder, share) for folder in folders for share in shares.cut(len(prompts), settings.batch_size)]

    def replies(mine: Iterator[tuple[Path, slice]]) -> Iterator[list[str]]:
        for folder, some in groupby(mine, key=itemgetter(0)):
            yield from reply(folder, [prompts[share] for _, share in some], settings)

    texts: dict[str, list[str]] = {folder.name: [] for folder in folders}
    for (folder, _), some in zip(every, ranks.shared(every, replies), strict=True):
        texts[folder.name] += some
    judge, judges = scoring.load(reward), models.load_tokenizer(reward)
    return {name: scoring.score(judge, judges, prompts, said, settings.batch_size) for name, said in texts.items()}


def reply(folder: Path, asked: list[list[list[records.Record]]], settings: Params) -> list[list[str]]:
    """Return the greedy answers of the policy in `folder`, which is let go of then, to each share
    of the prompts.
    """
    model, tokenizer = choice.load(folder, settings.batch_size), models.load_tokenizer(folder)
    found = []
    for prompts in asked:
        tokens = generator.generate(
            model,
            [chat.encode_prompt(tokenizer, prompt) for prompt in prompts],
            max_new_tokens=settings.max_new_tokens,
            stop=chat.stops(tokenizer),
            batch_size=settings.batch_size,
        )
        found.append([str(tokenizer.decode(answer, skip_special_tokens=True)) for answer in tokens])
    return found


def validation_losses(path: Path) -> list[float]:
    """Return the validation loss at the end of each epoch. Raises DataError when the curve has
    none.
    """
    with path.open(encoding="utf-8", newline="") as handle:
        found = [float(row["eval_loss"]) for row in csv.DictReader(handle) if row["eval_loss"]]
    if not found:
        raise DataError("no validation loss in this curve", where=path, remedy="run `dvc repro -f sft`")
    return found


def headline(measured: dict[str, sft_epochs.Epoch], best: str) -> str:
    """Return the one figure the closing table shows."""
    lowest = min(measured, key=lambda name: measured[name]["eval_loss"])
    epoch = measured[best]
    return f"{best}: reward {epoch['reward']:.2f} [{epoch['low']:.2f}, {epoch['high']:.2f}]; lowest loss: {lowest}"


if __name__ == "__main__":
    process.run("select_sft", main)
