"""What GRPO did: the kept policy of the highest held-out reward, against the one it started from;
curve and figures.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import models
from stages.common.core.statistics import bootstrap_mean
from stages.common.generation.engines import choice
from stages.common.grpo import answers as grpo_answers
from stages.common.monitor import outcome
from stages.common.runtime import logs
from stages.common.runtime.errors import DataError
from stages.common.text import parquet_writer
from stages.common.training import kept_models

if TYPE_CHECKING:
    from stages.common.tracking.run import Run

COLUMNS = ("step", "loss", "reward", "reward_std", "frac_reward_zero_std", "kl", "entropy", "completions/mean_length")
Row = dict[str, Any]


def publish(trainer: Any, kept: list[Path], *, start: Path, out: Path, curve: Path, report: Path, run: "Run") -> None:
    """Copy the best kept policy to `out` and write curve, report and figures. Raises DataError when
    none was kept.
    """
    history = trainer.state.log_history
    epochs = [
        {"epoch": folder.name} | {key.removeprefix("eval_"): value for key, value in row.items() if "eval_" in key}
        for folder, row in zip(kept, (row for row in history if "eval_reward" in row), strict=False)
    ]
    if not epochs:
        raise DataError("no epoch came to its end, so no policy was kept", where="grpo", remedy="train longer")
    best = max(range(len(epochs)), key=lambda index: (epochs[index]["reward"], -index))
    name, chosen = outcome.before_the_sign(trainer, start) or (kept[best].name, kept[best])
    trainer.release()
    before, after = (greedy(trainer, folder) for folder in (start, chosen))
    if not trainer.args.should_save:
        return
    kept_models.copy_model(chosen, out)
    write_curve(history, curve)
    watched = outcome.facts(trainer)
    facts = compare(before, after) | {
        "best": name,
        "epochs": epochs,
        **watched,
        "weights_sha256": models.weights_sha256(out),
    }
    parquet_writer.write_json(report, facts)
    run.figure("reward", figure(history))
    if watched:
        run.figure("watched", outcome.figure(history))
    if stopped := outcome.stopped(trainer):
        logs.log.warning("%s; %s is what comes out", stopped, name)
    run.metrics({f"held_out/{name}": value for name, value in facts.items() if isinstance(value, float)})
    lead, low, high = facts["lead"]
    told = {name: value for name, value in facts.items() if isinstance(value, float)}
    told |= {"lead": lead, "lead/low": low, "lead/high": high, "steps": trainer.state.global_step}
    said = f"held-out reward {facts['start']:.3f} -> {facts['reward']:.3f}: {lead:+.3f} [{low:+.3f}, {high:+.3f}]"
    logs.report(said, told)


def greedy(trainer: Any, folder: Path) -> list[Row]:
    """Return the held-out prompts with the greedy answers of the policy in `folder`, and their
    rewards.
    """
    asked, rows, stops = [dict(one) for one in trainer.eval_dataset], trainer.decode_batch_size, trainer.stops
    answers = grpo_answers.greedy(choice.load(folder, rows), asked, trainer.max_completion_length, stops, rows)
    return grpo_answers.answered(trainer.processing_class, asked, answers, stops, trainer.scored)


def compare(before: list[Row], after: list[Row]) -> Row:
    """Return the mean reward of the policies at start and end, in all and by reward, and the lead
    with its 95 % interval, paired by prompt.
    """
    changes = [now["reward"] - was["reward"] for was, now in zip(before, after, strict=True)]
    names = [name for name in after[0] if name.startswith("reward/")]
    return {
        "start": mean(before, "reward"),
        "reward": mean(after, "reward"),
        "lead": [sum(changes) / len(changes), *bootstrap_mean(changes)],
        "prompts": len(after),
        **{f"start/{name.removeprefix('reward/')}": mean(before, name) for name in names},
        **{name: mean(after, name) for name in names},
        "length": mean(after, "length"),
        "ended": mean(after, "ended"),
    }


def mean(rows: list[Row], name: str) -> float | None:
    """Return the mean of a column where it is known; None where it never is."""
    values = [float(row[name]) for row in rows if row[name] is not None]
    return sum(values) / len(values) if values else None


def write_curve(history: list[Row], path: Path) -> None:
    """Write a row a step, the rewards one by one behind COLUMNS, for `dvc plots`."""
    steps = [row for row in history if "loss" in row]
    own = sorted({key for row in steps for key in row if key.startswith("rewards/") and key.endswith("/mean")})
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join((*COLUMNS, *own))]
    for row in steps:
        values = (row.get(name) for name in (*COLUMNS, *own))
        lines.append(",".join("" if value is None else f"{value:.6g}" for value in values))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def figure(history: list[Row]) -> Any:
    """Return the rewards by step as a matplotlib figure."""
    from matplotlib.figure import Figure

    plot = Figure(figsize=(7, 4))
    axes = plot.subplots()
    steps = [row for row in history if "loss" in row]
    names = sorted({key for row in steps for key in row if key.startswith("rewards/") and key.endswith("/mean")})
    for name in names:
        points = [(row["step"], row[name]) for row in steps if row.get(name) is not None]
        axes.plot(*zip(*points, strict=True), linewidth=1, label=name.split("/")[1])
    held_out = [(row["step"], row["eval_reward"]) for row in history if "eval_reward" in row]
    axes.plot(*zip(*held_out, strict=True), "o-", label="held out, all, weighted")
    axes.set(xlabel="step", ylabel="reward", title="rewards")
    axes.legend()
    return plot
