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

from stages.common import content, faults, journal, params, process, records, tracking
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
    """What became of a shape's records: outcomes (`kept` or a reason to drop) by source, and how they were split."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    smallest_hash: int = HASHES
    largest_hash: int = 0

    def summary(self) -> dict[str, Any]:
        """Return the shape's part of the report; `rows` = `kept` + the sum of `dropped`, also for each source."""
        sources = {source: self._part({source}) for source, _ in sorted(self.outcomes)}
        return self._part(set(sources)) | {"splits": self.splits, "sources": sources}

    def _part(self, sources: set[str]) -> dict[str, Any]:
        dropped: Counter[str] = Counter()
        for (source, outcome), number in self.outcomes.items():
            dropped[outcome] += number if source in sources else 0
        rows, kept = dropped.total(), dropped.pop("kept", 0)
        return {"rows": rows, "kept": kept, "dropped": +dropped}


def drop_reason(shape: Shape, record: Record, seen: set[bytes], questions: set[bytes]) -> str:
    """Return why a clean record is dropped, or nothing and remember it as seen."""
    reason = faults.fault(shape, record)
    if reason:
        return reason
    if questions and not questions.isdisjoint(content.asked(shape, record)):
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
    progress = Progress(rows := row_count(folder))
    with Shards({place: shape for place in places.values()}) as shards:
        for raw in progress.over(records.read(folder)):
            record = content.clean(shape, raw)
            reason = drop_reason(shape, record, seen, questions)
            count.outcomes[record["source"], reason or "kept"] += 1
            if reason:
                if drops is not None:
                    drops.add(reason, {"reason": reason, "shape": shape} | raw)
                continue
            value = int.from_bytes(content.split_digest(shape, record)[:8], "big")
            split = "whole" if shape == "questions" else "validation" if value < limit else "train"
            shards.add(places[split], record)
            count.splits[split] += 1
            count.smallest_hash, count.largest_hash = min(count.smallest_hash, value), max(count.largest_hash, value)
    if rows != count.outcomes.total():
        raise DataError(f"{rows} records in, but {count.summary()}", where=folder)
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
                journal.log.info("%s: by chance nothing was held out; holding out the smallest hash", shape)
                counts[shape] = sort(shape, source, target, counts[shape].smallest_hash + 1, questions, drops=None)
            if shape == "questions":
                questions = {asked for record in records.read(target) for asked in content.asked(shape, record)}
    return counts


def _validation_is_missing(count: Count) -> bool:
    enough = count.splits["train"] >= ROWS_WITH_VALIDATION and count.smallest_hash < count.largest_hash
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
        journal.report(f"{sum(kept.values()):,} records kept, {reasons.total():,} dropped")


if __name__ == "__main__":
    process.run("curate", main)
