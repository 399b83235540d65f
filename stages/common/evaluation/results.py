"""An evaluation on disk: written by `evaluate` for one candidate, read by `report` and
`promote`.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.common.core import left_out
from stages.common.evaluation.metrics import Answer, Report, digits
from stages.common.runtime.errors import DataError

Losses = Mapping[str, Sequence[tuple[float, int]]]


class Evaluated(BaseModel):
    """One candidate as measured: who, on what, its numbers, its answers by question id, its losses
    by texts.
    """

    model_config = ConfigDict(frozen=True)

    candidate: str
    before: str
    model: Path
    prompt: str
    weights_sha256: str
    questions_sha256: str
    test_sha256: str
    """Content of all that was asked and read, and how: two candidates with the same one compare."""
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    counts: dict[str, int]
    answers: dict[str, Answer]
    losses: dict[str, list[tuple[float, int]]]
    examples: dict[int, dict[str, Answer]] = {}
    """Its answers again, by the number of worked examples before the question."""


def write(report: Report, answers: list[Answer], shots: list[Answer], losses: Losses, out: Path, facts: Answer) -> None:
    """Write metrics.json, answers.jsonl, shots.jsonl, accuracy.csv, shots.csv and losses.csv."""
    out.mkdir(parents=True, exist_ok=True)
    document = facts | {"metrics": report.metrics, "intervals": report.intervals, "counts": report.counts}
    (out / "metrics.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for name, rows in (("answers", answers), ("shots", shots)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / f"{name}.jsonl").write_text(lines or "\n", encoding="utf-8")  # DVC warns of an empty file
    _table(out / "accuracy.csv", ["candidate", "group", "accuracy", "low", "high", "count"], _accuracy(report, facts))
    _table(
        out / "shots.csv", ["candidate", "group", "shots", "accuracy", "low", "high", "count"], _shots(report, facts)
    )
    _table(out / "losses.csv", ["texts", "nats", "tokens"], _losses(losses))


def write_left_out(candidate: str, why: str, out: Path) -> None:
    """Write an evaluation of a candidate that was left out: the reason, and tables without
    a row.
    """
    write(Report(), [], [], {}, out, {"candidate": candidate, left_out.KEY: why})


def read(folder: Path) -> list[Evaluated]:
    """Return every candidate's evaluation, in name order, without those that were left out.

    Raises DataError for none, or one that is not whole.
    """
    found = [one(file.parent) for file in sorted(folder.glob("*/metrics.json")) if not _is_left_out(file)]
    if not found:
        raise DataError("no */metrics.json here", where=folder, remedy="run `dvc repro evaluate`")
    return found


def one(folder: Path) -> Evaluated:
    """Return the evaluation in `folder`. Raises DataError when it is not whole, naming the file or
    the key.
    """
    remedy = f"run `dvc repro -f evaluate@{folder.name}`"
    try:
        document = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        answers = {row["id"]: row for row in _rows(folder / "answers.jsonl")}
        examples: dict[int, dict[str, Answer]] = {}
        for row in _rows(folder / "shots.jsonl"):
            examples.setdefault(row["shots"], {})[row["id"]] = row
        losses: dict[str, list[tuple[float, int]]] = {}
        with (folder / "losses.csv").open(encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle):
                losses.setdefault(row["texts"], []).append((float(row["nats"]), int(row["tokens"])))
        return Evaluated.model_validate({**document, "answers": answers, "losses": losses, "examples": examples})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{place}: {first['msg']}", where=folder / "metrics.json", remedy=remedy) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"not a whole evaluation: {type(error).__name__} {error}"
        raise DataError(what, where=folder, remedy=remedy) from error


def _rows(path: Path) -> Iterator[Answer]:
    with path.open(encoding="utf-8") as handle:
        yield from map(json.loads, filter(str.strip, handle))


def _is_left_out(file: Path) -> bool:
    try:
        return left_out.KEY in json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, TypeError):
        return False  # `one` says what is wrong with it


def _accuracy(report: Report, facts: Answer) -> Iterator[list[Any]]:
    for name, value in report.metrics.items():
        if name.startswith("accuracy/"):
            group = name.removeprefix("accuracy/")
            yield [facts["candidate"], group, value, *report.intervals[name], report.counts[name]]


def _shots(report: Report, facts: Answer) -> Iterator[list[Any]]:
    for name, value in report.metrics.items():
        if name.startswith("shots-"):
            count, _, group = name.removeprefix("shots-").partition("/")
            yield [facts["candidate"], group, count, value, *report.intervals[name], report.counts[name]]


def _losses(losses: Losses) -> Iterator[list[Any]]:
    for name, scored in losses.items():
        for nats, tokens in scored:
            yield [name, digits(nats), tokens]


def _table(path: Path, columns: list[str], rows: Iterator[list[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)
