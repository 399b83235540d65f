"""The closing table of `make demo` and `make flow`: stage, time, peak memory, key figure, and where
to look.

Command: python -m flows.cli.summary
"""

import json
from collections.abc import Mapping, Sequence

from flows.repro import Outcome
from stages.common.runtime import logs

HEAD = ("stage", "time", "peak memory", "key figure")
WHERE = """\
  decision and why     reports/report.html
  chat                 make serve    http://127.0.0.1:7860
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
    return f"\n{table(rows(stages, states), head)}\n\n{WHERE}\n"


def artifact(outcome: Outcome, link: str) -> str:
    """Return the Markdown that a task leaves in Prefect: state, time, key figure, and its run in
    MLflow.
    """
    lines = {
        "state": outcome.state,
        "time": clock(outcome.seconds),
        "key figure": outcome.figure.replace("|", "\\|") or "none",
        "MLflow": f"[run]({link})" if link else "no run",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in lines.items())])


def main() -> None:
    """Print the table of the pipeline in the working folder."""
    from flows import pipeline

    print(show([stage.name for stage in pipeline.load()]))


if __name__ == "__main__":
    main()
