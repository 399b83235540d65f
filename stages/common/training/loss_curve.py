"""The loss curve of a training, as CSV and as a figure."""

from pathlib import Path
from typing import Any


def write(history: list[dict[str, float]], path: Path) -> None:
    """Write the loss of every step and the validation loss of every epoch as CSV, for `dvc plots`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ["step,epoch,loss,learning_rate,eval_loss"]
    for row in history:
        if "loss" in row:
            rows.append(f"{row['step']},{row['epoch']:.6g},{row['loss']:.6g},{row['learning_rate']:.6g},")
        elif "eval_loss" in row:
            rows.append(f"{row['step']},{row['epoch']:.6g},,,{row['eval_loss']:.6g}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def figure(history: list[dict[str, float]], title: str) -> Any:
    """Return the loss curve as a matplotlib figure."""
    from matplotlib.figure import Figure

    plot = Figure(figsize=(7, 4))
    axes = plot.subplots()
    for key, style in (("loss", "-"), ("eval_loss", "o-")):
        points = [(row["step"], row[key]) for row in history if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=key, linewidth=1)
    axes.set(xlabel="step", ylabel="nats per token", title=title)
    axes.legend()
    return plot
