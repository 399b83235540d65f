"""Ingested records -> clean, unique, free of test questions, split into train and validation; every drop is kept aside.

Reads --ingested/<shape>. Writes --out/<shape>/{train,validation} (questions: --out/questions, whole),
--dropped/<reason>.jsonl (the record with its id) and --report. A record's split is decided by a hash of its first user
turn (a document's: of its text), so the same prompt never falls in two splits and no run or order changes a split.

    python -m stages.curate --ingested data/ingested --out data/curated --dropped data/dropped
        --report reports/curate.json
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from stages.common import content, params, process, records, tracking, turns
from stages.common.errors import DataError
from stages.common.figures import bars
from stages.common.params import StageParams
from stages.common.progress import Progress
from stages.common.records import SHAPES, Record, Shape
from stages.common.shards import JsonLines, Shards, row_count, write_json

HASHES = 2**64
ROWS_WITH_VALIDATION = 20


class Splits(StageParams):
    """The share of each split but `train`, which gets the rest."""

    validation: Annotated[float, Field(ge=0, lt=1)]
    """Share of records held out; 20 records or more give at least one, unless it is 0."""


class ShapeSplits(StageParams):
    """Splits by shape."""

    documents: Splits
    """Held out for perplexity."""
    conversations: Splits
    """Held out for the loss curve of SFT."""
    comparisons: Splits
    """Held out for the accuracy of the reward model."""
    prompts: Splits
    """Held out for choosing a checkpoint by reward."""


class Params(StageParams):
    """The section `curate` of params.yaml."""

    splits: ShapeSplits
    """How much of each shape is held out."""


@dataclass
class Count:
    """What became of a shape's records, by source: `rows` = `kept` + the sum of `dropped`."""

    rows: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    hashes: set[int] = field(default_factory=set)
    """The smallest and the largest hash that decided a split."""

    def add(self, source: str, reason: str) -> None:
        """Count one record, kept when there is no reason to drop it."""
        self.rows[source] += 1
        if reason:
            self.dropped[source, reason] += 1
        else:
            self.kept[source] += 1

    def summary(self) -> dict[str, Any]:
        """Return the shape's part of the report."""
        reasons: Counter[str] = Counter()
        sources = {name: {"rows": self.rows[name], "kept": self.kept[name], "dropped": {}} for name in self.rows}
        for (name, reason), number in self.dropped.items():
            reasons[reason] += number
            sources[name]["dropped"] |= {reason: number}  # type: ignore[operator]  # the values are of two types
        rows, kept = self.rows.total(), self.kept.total()
        return {"rows": rows, "kept": kept, "dropped": reasons, "splits": self.splits, "sources": sources}


def fault(shape: Shape, record: Record) -> str:
    """Return why a record is of no use by itself, or nothing."""
    if shape == "documents":
        return "" if record["text"] else "empty"
    messages = record[content.TURNS[shape]]
    if shape == "conversations" and messages and not any(turn["role"] == "assistant" for turn in messages):
        return "no_answer"
    if turns.empty(messages):
        return "empty_turn"
    if not turns.in_order(messages):
        return "bad_role_order"
    if shape == "conversations":
        return "" if turns.answered(messages) else "cut"
    if not turns.awaits_answer(messages, of=("user", "tool") if shape == "comparisons" else ("user",)):
        return "no_question"
    if shape == "comparisons" and not all(record["responses"]):
        return "empty_answer"
    return "no_reference" if shape == "questions" and not record["reference"] else ""


def drop_reason(shape: Shape, record: Record, seen: set[bytes], questions: set[bytes]) -> str:
    """Return why a clean record is dropped, or nothing and remember it as seen."""
    reason = fault(shape, record)
    if reason:
        return reason
    if questions and any(question in questions for question in content.asked(shape, record)):
        return "leaked_question"
    identity = content.identity(shape, record)
    if identity in seen:
        return "duplicate"
    seen.add(identity)
    return ""


def sort(shape: Shape, folder: Path, out: Path, limit: int, questions: set[bytes], drops: JsonLines | None) -> Count:
    """Sort the records of one shape into its splits (hashes below `limit` are held out) and `drops`.

    Memory holds a digest a record. Raises DataError should the counts not add up.
    """
    count, seen = Count(), set[bytes]()
    places = {"whole": out} if shape == "questions" else {split: out / split for split in records.SPLITS}
    progress = Progress(row_count(folder))
    with Shards({place: shape for place in places.values()}) as shards:
        for raw in progress.over(records.read(folder)):
            record = content.clean(shape, raw)
            reason = drop_reason(shape, record, seen, questions)
            count.add(record["source"], reason)
            if reason:
                if drops is not None:
                    drops.add(reason, {"reason": reason, "shape": shape} | raw)
                continue
            value = int.from_bytes(content.split_digest(shape, record)[:8], "big")
            split = "whole" if shape == "questions" else "validation" if value < limit else "train"
            shards.add(places[split], record)
            count.splits[split] += 1
            count.hashes = {min(count.hashes | {value}), max(count.hashes | {value})}
    if progress.total != max(count.kept.total() + count.dropped.total(), 1):
        raise DataError(f"{progress.total} records in, but {count.summary()}", where=folder)
    return count


def curate(ingested: Path, out: Path, dropped: Path, shares: dict[str, float]) -> dict[Shape, Count]:
    """Curate the questions first, then every shape that must not contain them; return the counts by shape."""
    counts: dict[Shape, Count] = {}
    questions: set[bytes] = set()
    with JsonLines(dropped) as drops:
        for shape in sorted(SHAPES, key=lambda shape: shape != "questions"):
            source, target, limit = ingested / shape, out / shape, int(shares.get(shape, 0) * HASHES)
            counts[shape] = sort(shape, source, target, limit, questions, drops)
            if limit and _validation_is_missing(counts[shape]):
                process.log.info("%s: by chance nothing was held out; holding out the smallest hash", shape)
                counts[shape] = sort(shape, source, target, min(counts[shape].hashes) + 1, questions, drops=None)
            if shape == "questions":
                questions = {asked for record in records.read(target) for asked in content.asked(shape, record)}
    return counts


def _validation_is_missing(count: Count) -> bool:
    enough = count.splits["train"] >= ROWS_WITH_VALIDATION and len(count.hashes) > 1
    return enough and not count.splits["validation"]


def main(
    ingested: Annotated[Path, typer.Option(help="Folder with one folder a shape.")],
    out: Annotated[Path, typer.Option(help="Folder for the same shapes, in splits.")],
    dropped: Annotated[Path, typer.Option(help="Folder for the dropped records.")],
    report: Annotated[Path, typer.Option(help="JSON file of counts.")],
) -> None:
    """Clean, drop, split, count."""
    settings = params.load(Params, "curate").model_dump()
    shares = {shape: splits["validation"] for shape, splits in settings["splits"].items()}
    with tracking.start("curate", params={"curate": settings}, inputs={"ingested": ingested}) as run:
        result = {shape: count.summary() for shape, count in curate(ingested, out, dropped, shares).items()}
        write_json(report, result)
        reasons = sum((shape["dropped"] for shape in result.values()), Counter[str]())
        kept = {f"kept/{shape}": counts["kept"] for shape, counts in result.items()}
        run.metrics(kept | {f"dropped/{reason}": number for reason, number in reasons.items()})
        run.figure("dropped", bars(reasons, "records dropped by reason"))
        process.report(f"{sum(kept.values()):,} records kept, {reasons.total():,} dropped")


if __name__ == "__main__":
    process.run("curate", main)
