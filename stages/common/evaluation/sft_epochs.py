"""Epochs of SFT by validation loss and by reward: measured, compared, picked."""

import json
import shutil
from pathlib import Path
from typing import Any

from stages.common.core import models
from stages.common.core.statistics import bootstrap_mean
from stages.common.evaluation.metrics import digits
from stages.common.runtime.errors import DataError

Epoch = dict[str, Any]
COLUMNS = ("epoch", "eval_loss", "reward", "low", "high")


def by_loss(folders: list[Path], losses: list[float], out: Path, report: Path, curve: Path) -> str:
    """Take the epoch of the lowest validation loss, the first of equal ones, and return its
    name.
    """
    found = dict(zip((folder.name for folder in folders), losses, strict=False))
    best = min(found, key=found.__getitem__)
    shutil.copytree(folders[0].with_name(best), out, dirs_exist_ok=True)
    epochs = {name: {"eval_loss": loss} for name, loss in found.items()}
    facts = {"best": best, "weights_sha256": models.weights_sha256(out), "by": "validation loss", "epochs": epochs}
    lines = [",".join(COLUMNS), *(f"{number},{loss},,," for number, loss in enumerate(losses, 1))]
    for path, text in ((report, json.dumps(facts, indent=1)), (curve, "\n".join(lines))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="utf-8")
    return best


def measure(scores: dict[str, list[float]], losses: list[float]) -> dict[str, Epoch]:
    """Return by epoch its validation loss and its mean reward with the 95 % interval over
    prompts.
    """
    if len(scores) != len(losses):
        what = f"{len(scores)} kept epochs, but {len(losses)} validation losses"
        raise DataError(what, remedy="run `dvc repro -f sft`")
    measured = {}
    for (name, values), loss in zip(scores.items(), losses, strict=True):
        low, high = bootstrap_mean(values)
        mean = sum(values) / len(values)
        measured[name] = {"eval_loss": loss, "reward": digits(mean), "low": digits(low), "high": digits(high)}
    return measured


def pick(measured: dict[str, Epoch], scores: dict[str, list[float]]) -> str:
    """Return the epoch of the lowest validation loss, then the first, among those whose reward is
    not surely lower than the highest: the 95 % interval of the difference, paired by prompt, holds
    0.
    """
    best = max(measured, key=lambda name: measured[name]["reward"])

    def near(name: str) -> bool:
        return name == best or bootstrap_mean(_lead(scores[best], scores[name]))[0] <= 0

    return min(filter(near, measured), key=lambda name: measured[name]["eval_loss"])


def _lead(ours: list[float], theirs: list[float]) -> list[float]:
    return [one - other for one, other in zip(ours, theirs, strict=True)]


def write(
    measured: dict[str, Epoch], best: str, scores: dict[str, list[float]], sha256: str, report: Path, curve: Path
) -> None:
    """Write the report, with the best epoch's lead over each other one (paired by prompt), and the
    curves.
    """
    for name, values in scores.items():
        lead = _lead(scores[best], values)
        low, high = bootstrap_mean(lead)
        measured[name]["best_leads_by"] = [digits(sum(lead) / len(lead)), digits(low), digits(high)]
    facts = {"best": best, "weights_sha256": sha256, "prompts": len(scores[best]), "epochs": measured}
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    lines = [",".join(COLUMNS)]
    for number, epoch in enumerate(measured.values(), 1):
        lines.append(f"{number},{epoch['eval_loss']},{epoch['reward']},{epoch['low']},{epoch['high']}")
    curve.write_text("\n".join(lines) + "\n", encoding="utf-8")


def figure(measured: dict[str, Epoch], best: str) -> Any:
    """Return validation loss and reward by epoch, side by side, as a matplotlib figure."""
    from matplotlib.figure import Figure

    numbers = list(range(1, len(measured) + 1))
    plot = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = plot.subplots(1, 2)
    left.plot(numbers, [epoch["eval_loss"] for epoch in measured.values()], "o-")
    left.set(xlabel="epoch", ylabel="nats per token", title="validation loss", xticks=numbers)
    means = [epoch["reward"] for epoch in measured.values()]
    spread = [
        [epoch["reward"] - epoch["low"] for epoch in measured.values()],
        [epoch["high"] - epoch["reward"] for epoch in measured.values()],
    ]
    right.errorbar(numbers, means, yerr=spread, fmt="o-", capsize=3)
    right.set(xlabel="epoch", title=f"reward on held-out prompts, 95 % interval; best: {best}", xticks=numbers)
    return plot
