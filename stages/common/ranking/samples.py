"""Answers drawn from a policy: a prompt of the shape `prompts` with its K responses, in its split.

Drawing takes long: finished parts are kept whole or not at all, and taken after a stop.
"""

import hashlib
import heapq
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from stages.common.core import checkpoints, records
from stages.common.core.records import SCHEMAS, Record
from stages.common.runtime.logs import log
from stages.common.text.parquet_writer import Shards

SCHEMA = pa.schema([*SCHEMAS["prompts"], ("responses", pa.list_(pa.string())), ("cut", pa.list_(pa.bool_()))])
"""`cut` says of each response whether it ran into the longest length allowed, without an end of
turn.
"""


PART_COUNTS = "counts.json"
"""What a finished part adds to the report's counts."""


class Sample(NamedTuple):
    """A prompt with its different responses, in the order they were drawn; `cut` as in SCHEMA."""

    record: Record
    responses: list[str]
    cut: list[bool]

    @property
    def question(self) -> str:
        """The last user turn."""
        return next((turn["content"] for turn in reversed(self.record["messages"]) if turn["role"] == "user"), "")


def read(folder: Path, split: str) -> Iterator[Sample]:
    """Yield the samples of a split, equal responses once (cut only if every copy is)."""
    for record in records.read(folder / split):
        ended: dict[str, bool] = {}
        for response, cut in zip(record["responses"], record["cut"], strict=True):
            ended[response] = ended.get(response, True) and cut
        yield Sample(record, list(ended), list(ended.values()))


def first_questions(folder: Path, count: int) -> list[Record]:
    """Return up to `count` conversations as prompts, their turns before the first answer; smallest
    hashes first.

    Those with tools are left out: a prompt has none.
    """
    rows = (row for row in records.read(folder) if not row["tools"]) if count else iter(())
    prompts = (
        {
            "id": row["id"],
            "source": row["source"],
            "messages": opening(row["messages"]),
            "reference": None,
            "category": None,
        }
        for row in rows
    )
    return heapq.nsmallest(count, (row for row in prompts if row["messages"]), key=_digest)


def opening(messages: Sequence[Record]) -> list[Record]:
    """Return the turns before the first answer when the last of them is the user's, else none."""
    turns = list(messages)[: next((at for at, one in enumerate(messages) if one["role"] == "assistant"), None)]
    return turns if turns and turns[-1]["role"] == "user" else []


def keep_part(folder: Path, number: int, rows: list[Record], counts: dict[str, int], schema: pa.Schema) -> None:
    """Keep part `number` with what it adds to the report's counts; killed here, there is no such
    part.
    """
    temporary = folder / f".part-{number}"
    shutil.rmtree(temporary, ignore_errors=True)
    with Shards({temporary / "rows": schema}) as shards:
        for row in rows:
            shards.add(temporary / "rows", row)
    (temporary / PART_COUNTS).write_text(json.dumps(counts), encoding="utf-8")
    checkpoints.seal(temporary, folder / f"part-{number}")


def has_part(folder: Path, number: int) -> bool:
    """Whether part `number` is there whole; if not, it is to be made again."""
    part = folder / f"part-{number}"
    if not part.exists():
        return False
    if wrong := checkpoints.fault(part):
        log.warning("a finished part is not usable and is made again: %s", wrong)
        return False
    log.info("taking %s, finished before", part)
    return True


def read_part(folder: Path, number: int) -> tuple[list[Record], dict[str, int]]:
    """Return the rows and counts of part `number`."""
    part = folder / f"part-{number}"
    return list(records.read(part / "rows")), json.loads((part / PART_COUNTS).read_text(encoding="utf-8"))


def _digest(row: Record) -> str:
    return hashlib.sha256("\n".join(turn["content"] for turn in row["messages"]).encode()).hexdigest()
