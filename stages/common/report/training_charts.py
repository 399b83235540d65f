"""What trainings did, as charts: loss curves, PPO's rounds, SFT by epoch."""

import csv
from pathlib import Path
from typing import Any

from markupsafe import Markup

from stages.common.report import charts
from stages.common.report.charts import Point


def selected(path: Path) -> list[Markup]:
    """Return validation loss and reward by SFT epoch, side by side."""
    rows = [row for row in _floats(path) if "reward" in row]  # picked by loss: nothing to see beside it
    if not rows:
        return []
    losses = [Point(row["epoch"], *[row["eval_loss"]] * 3) for row in rows]
    rewards = [Point(row["epoch"], row["reward"], row["low"], row["high"]) for row in rows]
    colours = charts.colours(["loss", "reward"])
    return [
        charts.lines({"loss": losses}, colours, "validation loss"),
        charts.lines({"reward": rewards}, colours, "reward, held-out prompts"),
    ]


def learnt(folder: Path) -> dict[str, Any]:
    """Return PPO's reward by step, and against the KL it was bought with, of every round."""
    tables = {file.stem: rows for file in sorted(folder.glob("*.csv")) if (rows := _floats(file))}
    if not tables:
        return {"charts": []}
    colours = charts.colours(list(tables))
    drawn = [
        charts.lines(
            {name: [Point(row[x], *[row["reward"]] * 3) for row in rows] for name, rows in tables.items()},
            colours,
            title,
        )
        for x, title in (("step", "reward by step"), ("kl", "reward by KL, nats a sequence"))
    ]
    return {"colours": colours, "charts": drawn}


def trained(paths: list[Path]) -> dict[str, Any]:
    """Return the loss curves of all trainers."""
    colours = charts.colours(["training", "validation"])
    return {"colours": colours, "charts": [drawn for path in paths if (drawn := curve(path, colours))]}


def curve(path: Path, colours: dict[str, str]) -> Markup:
    """Return a trainer's loss over steps, and its validation loss at each epoch's end; "" where
    none was trained.
    """
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    if not rows:
        return Markup()
    series = {
        name: charts.thinned([Point(float(row["step"]), *[float(row[key])] * 3) for row in rows if row.get(key)])
        for name, key in (("training", "loss"), ("validation", "eval_loss"))
    }
    title = " ".join(path.with_suffix("").parts[1:]) or path.stem  # reports/reward/r1.csv: reward r1
    return charts.lines(series, colours, title)


def _floats(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(handle)]
