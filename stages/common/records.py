"""The five shapes a record can have, as Parquet files that stream in and out."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.errors import DataError

Shape = Literal["documents", "conversations", "comparisons", "prompts", "questions"]
Record = dict[str, Any]

TOOL_CALLS = pa.list_(pa.struct([("name", pa.string()), ("arguments", pa.string())]))
MESSAGES = pa.list_(
    pa.struct([("role", pa.string()), ("content", pa.string()), ("thought", pa.string()), ("tool_calls", TOOL_CALLS)])
)
_IDENTITY = [("id", pa.string()), ("source", pa.string())]

SCHEMAS: dict[str, pa.Schema] = {
    "documents": pa.schema([*_IDENTITY, ("text", pa.string())]),
    "conversations": pa.schema([*_IDENTITY, ("messages", MESSAGES), ("tools", pa.string())]),
    "comparisons": pa.schema(
        [
            *_IDENTITY,
            ("prompt", MESSAGES),
            ("responses", pa.list_(pa.string())),
            ("ranks", pa.list_(pa.int32())),
            ("annotator", pa.string()),
            ("categories", pa.list_(pa.string())),
        ]
    ),
    "prompts": pa.schema([*_IDENTITY, ("messages", MESSAGES), ("reference", pa.string()), ("category", pa.string())]),
    "questions": pa.schema(
        [
            *_IDENTITY,
            ("messages", MESSAGES),
            ("reference", pa.string()),
            ("group", pa.string()),
            ("category", pa.string()),
        ]
    ),
}
SHAPES: tuple[Shape, ...] = ("documents", "conversations", "comparisons", "prompts", "questions")
SPLITS = ("train", "validation")


def write(records: Iterable[Record], folder: Path, shape: Shape, *, records_per_file: int = 100_000) -> int:
    """Write `records` to `folder/part-00000.parquet`, … and return how many there were.

    Streams: memory holds one row group. An empty iterable still writes one file, so that a reader finds the schema.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = part = 0
    writer: pq.ParquetWriter | None = None
    try:
        for batch in _batches(records, size=2_000):
            if writer is None or count // records_per_file > part:
                part = count // records_per_file
                if writer is not None:
                    writer.close()
                writer = _open(folder, part, shape)
            writer.write_table(pa.Table.from_pylist(batch, schema=SCHEMAS[shape]))
            count += len(batch)
        if writer is None:
            writer = _open(folder, 0, shape)
    finally:
        if writer is not None:
            writer.close()
    return count


def files(folder: Path) -> list[Path]:
    """Return the Parquet files under `folder`, in order. Raises DataError when there are none."""
    found = sorted(folder.rglob("*.parquet"))
    if not found:
        raise DataError("no Parquet files here", where=folder, remedy="run `dvc repro` for the stage that writes it")
    return found


def read(folder: Path) -> Iterator[Record]:
    """Yield the records of every Parquet file under `folder`, in file order, one row group in memory at a time."""
    for file in files(folder):
        try:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=2_000):
                yield from batch.to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"not a readable Parquet file: {error}", where=file, remedy="run `dvc checkout`") from error


def sha256(folder: Path) -> str:
    """Return the SHA-256 over the records under `folder`: the identity of a data set, whatever its files' layout."""
    digest = hashlib.sha256()
    for record in read(folder):
        digest.update(json.dumps(record, sort_keys=True, ensure_ascii=False).encode())
    return digest.hexdigest()


def message(role: str, content: str, thought: str | None = None, tool_calls: list[Record] | None = None) -> Record:
    """Return one chat message; `tool_calls` are {name, arguments}, arguments as a JSON string."""
    return {"role": role, "content": content, "thought": thought, "tool_calls": tool_calls}


def _open(folder: Path, part: int, shape: Shape) -> pq.ParquetWriter:
    return pq.ParquetWriter(folder / f"part-{part:05d}.parquet", SCHEMAS[shape], compression="zstd")


def _batches(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    batch: list[Record] = []
    for record in records:
        batch.append(record)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
