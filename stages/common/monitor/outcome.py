"""What the looks of a training come to: which policy comes out after a sign, and what report and
figure say.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.common.monitor import hacking, signs
from stages.common.monitor.watch import LOOK, Row, Watched, alarms
from stages.common.training import kept_models


def before_the_sign(trainer: Watched, start: Path) -> tuple[str, Path] | None:
    """Return name and folder of the policy of the last look before the sign that ended a training,
    the start's among them; None where none ended it.
    """
    history: list[Row] = trainer.state.log_history
    found = alarms(history)
    if not stopped(trainer):
        return None
    step = max((row["step"] for row in history if LOOK in row and row["step"] < found[0]["step"]), default=0)
    if not step:
        return "start", start
    folder = Path(trainer.args.output_dir)
    kept = kept_models.whole(folder / kept_models.KEPT / f"step-{step:06d}", folder)
    return kept.name, kept


def facts(trainer: Watched) -> Row:
    """Return what a report says of the looks; nothing where none was taken."""
    looks: list[Row] = [row for row in trainer.state.log_history if LOOK in row]
    if trainer.watch is None or not looks:
        return {}
    watched: Row = {
        "prompts": len(trainer.watch.asked),
        "with_reference": sum(one.reference is not None for one in trainer.watch.asked),
        "looks": len(looks),
        "false_alarm_rate": hacking.RATE,
        "start": figures(looks[0]),
        "end": figures(looks[-1]),
        "signs": alarms(looks),
        "stopped": stopped(trainer),
    }
    return {"watched": watched}


def stopped(trainer: Watched) -> str:
    """Return which sign ended a training, or nothing."""
    found = alarms(trainer.state.log_history)
    if not (trainer.watch and trainer.watch.stops and found):
        return ""
    return f"step {found[0]['step']}: the reward pays for {found[0]['said']}"


def figures(row: Row) -> Row:
    """Return the figures of one look."""
    return {name.removeprefix("watch/"): value for name, value in row.items() if name.startswith("watch/")}


def figure(history: Sequence[Row]) -> Any:
    """Return reward, rules and win rate of the looks by step, and how far each sign moved, as a
    matplotlib figure.
    """
    from matplotlib.figure import Figure

    looks = [row for row in history if LOOK in row]
    steps = [row["step"] for row in looks]
    plot = Figure(figsize=(10, 4), layout="constrained")
    left, right = plot.subplots(1, 2)
    for name in ("reward", "rules", "win_rate"):
        left.plot(steps, [row[f"watch/{name}"] for row in looks], label=name.replace("_", " "))
    left.set(xlabel="step", title="watched prompts")
    for name in signs.NAMES:
        values = [row[f"watch/{name}"] - looks[0][f"watch/{name}"] for row in looks]
        most = max(map(abs, values))
        if most:
            right.plot(steps, [value / most for value in values], linewidth=1, label=f"{name} (±{most:.2g})")
    right.set(xlabel="step", title="signs against the start")
    for one in alarms(looks)[:1]:
        left.axvline(one["step"], linestyle=":", color="grey")
        right.axvline(one["step"], linestyle=":", color="grey")
    left.legend()
    right.legend(fontsize=6)
    return plot
