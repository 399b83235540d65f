"""The closing table of `make demo` and `make flow`: stage, time, peak memory, key figure, and where
to look.

Command: python -m flows.cli.summary
"""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.repro import Outcome
from stages.common.runtime import logs

BARS = "▁▂▃▄▅▆▇█"
DEPLOYED = Path("reports/deploy.json")
HEAD = ("stage", "time", "peak memory", "key figure")
WHERE = """\
  decision and why     reports/report.html
  chat                 {chat}
  runs and models      make up       http://127.0.0.1:5000   (with it: Prefect on 4200, the chat on 7860)
  curves, accuracy     make plots
  one record's way     make trace ID=demo/conversations_openai.jsonl:12
  what the data holds  reports/data_docs/index.html"""


def rows(stages: Sequence[str], states: Mapping[str, str] | None = None) -> list[tuple[str, ...]]:
    """Return one row a stage from what its last execution left in logs/; with `states`, what this
    flow did to it.
    """
    found: list[tuple[str, ...]] = []
    for name in stages:
        file = logs.execution(name)
        if file.exists():
            facts = json.loads(file.read_text(encoding="utf-8"))
            state = () if states is None else (states.get(name, ""),)
            found.append((name, *state, clock(facts["seconds"]), f"{facts['peak_mib']:,} MiB", facts["figure"]))
    return found


def clock(seconds: float) -> str:
    """Return seconds as people read them: 4.2 s, 3 min 05 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def table(lines: Sequence[tuple[str, ...]], head: tuple[str, ...]) -> str:
    """Return the rows under their head, in columns as wide as their widest cell; times and memory
    flush right.
    """
    columns = []
    for name, *cells in zip(head, *lines, strict=True):
        width = max(len(cell) for cell in [name, *cells])
        adjust = str.rjust if name in ("time", "peak memory") else str.ljust
        columns.append([adjust(cell, width) for cell in [name, *cells]])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def show(stages: Sequence[str], states: Mapping[str, str] | None = None) -> str:
    """Return the whole closing message."""
    head = HEAD if states is None else (HEAD[0], "state", *HEAD[1:])
    return f"\n{table(rows(stages, states), head)}\n\n{WHERE.format(chat=chat())}\n"


def chat() -> str:
    """Return how to chat: where the first version waits for a person, that it does."""
    try:
        waits = json.loads(DEPLOYED.read_text(encoding="utf-8")).get("review") == "pending"
    except (OSError, ValueError, AttributeError):
        waits = False
    return ("make review, then " if waits else "") + "make serve    http://127.0.0.1:7860"


def artifact(outcome: Outcome, link: str) -> str:
    """Return the Markdown that a task leaves in Prefect: state, time, key figure, its run in
    MLflow, the figures that people compare, and the curve.
    """
    lines = {
        "state": outcome.state,
        "time": clock(outcome.seconds),
        "key figure": cell(outcome.figure) or "none",
        "MLflow": f"[run]({link})" if link else "no run",
    }
    found = {name: f"{value:,.6g}" for name, value in figures(outcome.metrics).items()}
    bars = {f"curve of {y}": line for file, y in outcome.curves.items() if (line := drawn(Path(file), y))}
    rows = lines | found | bars
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items())])


def closing(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the Markdown that a flow leaves in Prefect: what became of each stage, those that
    failed first.
    """
    order = {"failed": 0, "not run": 1, "ran": 2, "restored": 3, "cached": 4}
    lines = ["| stage | state | time | key figure | MLflow |", "|---|---|---|---|---|"]
    for one in sorted(found, key=lambda one: order[one["state"]]):
        took = "" if one["seconds"] is None else clock(one["seconds"])
        link = f"[run]({one['link']})" if one["link"] else ""
        lines.append(f"| {one['stage']} | {one['state']} | {took} | {cell(one['figure'])} | {link} |")
    counts = Counter(one["state"] for one in found)
    return "\n".join([", ".join(f"{counts[state]} {state}" for state in order if counts[state]), "", *lines])


def cell(text: str) -> str:
    """Return text that stays within a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def figures(metrics: Sequence[str]) -> dict[str, float]:
    """Return the figures of a stage's files of metrics, those that are there."""
    found: dict[str, float] = {}
    for file in map(Path, metrics):
        if file.exists():
            found |= json.loads(file.read_text(encoding="utf-8"))
    return found


def drawn(file: Path, column: str) -> str:
    """Return a column of a CSV file as a line of bars."""
    if not file.exists():
        return ""
    with file.open(encoding="utf-8", newline="") as handle:
        return sparkline(numbers(csv.DictReader(handle), column))


def numbers(rows: Iterable[Mapping[str, str]], column: str) -> list[float]:
    """Return the finite numbers of a column."""
    found = []
    for row in rows:
        try:
            found.append(float(row.get(column) or "nan"))
        except ValueError:
            return []
    return [value for value in found if math.isfinite(value)]


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Return numbers as a line of bars between the lowest and the highest, with the first and the
    last; nothing for fewer than two.
    """
    if len(values) < 2:
        return ""
    parts = [values[at * len(values) // width : (at + 1) * len(values) // width] for at in range(width)]
    means = [sum(part) / len(part) for part in parts if part]
    low, high = min(means), max(means)
    bars = "".join(BARS[round((mean - low) / (high - low or 1) * (len(BARS) - 1))] for mean in means)
    return f"{values[0]:.4g} {bars} {values[-1]:.4g}"


def main() -> None:
    """Print the table of the pipeline in the working folder."""
    from flows import pipeline

    print(show([stage.name for stage in pipeline.load()]))


if __name__ == "__main__":
    main()
