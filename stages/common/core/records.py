"""The shapes a record can have, and how they are read."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.runtime.errors import DataError

Shape = Literal["documents", "conversations", "comparisons", "prompts", "questions", "labelled"]
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
            ("tools", pa.string()),
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
    "labelled": pa.schema(
        [
            *_IDENTITY,
            ("prompt", MESSAGES),
            ("response", pa.string()),
            ("desirable", pa.bool_()),
            ("tools", pa.string()),
        ]
    ),
}
SHAPES: tuple[Shape, ...] = ("documents", "conversations", "comparisons", "prompts", "questions", "labelled")
"""The shapes in the order in which they are checked and told of."""
SPLITS = ("train", "validation")
TURNS = {
    "conversations": "messages",
    "comparisons": "prompt",
    "prompts": "messages",
    "questions": "messages",
    "labelled": "prompt",
}
"""The column that holds turns, of the shapes that have some."""


def answers(shape: Shape, record: Record) -> list[str]:
    """Return the answers of a record that stand beside its turns: those of a comparison, or the one
    that is labelled.
    """
    if shape == "labelled":
        return [record["response"]]
    return list(record["responses"]) if shape == "comparisons" else []


def files(folder: Path) -> list[Path]:
    """Return the Parquet files under `folder`, in order. Raises DataError when there are none."""
    found = sorted(folder.rglob("*.parquet"))
    if not found:
        raise DataError("no Parquet files here", where=folder, remedy="run `dvc repro` for the stage that writes it")
    return found


def read(folder: Path) -> Iterator[Record]:
    """Yield the records of every Parquet file under `folder`, in file order."""
    for file in files(folder):
        yield from read_file(file)


def read_file(file: Path, groups: list[int] | None = None) -> Iterator[Record]:
    """Yield the records of one Parquet file, or of some of its row groups, a few thousand in memory
    at a time. Raises DataError.
    """
    with _readable(file):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=2_000, row_groups=groups):
            yield from batch.to_pylist()


def group_bytes(file: Path) -> list[int]:
    """Return the size in memory of each row group of a Parquet file. Raises DataError."""
    with _readable(file):
        metadata = pq.read_metadata(file)
    return [metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)]


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"not a readable Parquet file: {error}", where=file, remedy="run `dvc checkout`") from error


def sha256(folder: Path) -> str:
    """Return the SHA-256 over the records under `folder`: the identity of a data set, whatever its
    files' layout.
    """
    digest = hashlib.sha256()
    for record in read(folder):
        digest.update(json.dumps(record, sort_keys=True, ensure_ascii=False).encode())
    return digest.hexdigest()


def message(role: str, content: str, thought: str | None = None, tool_calls: list[Record] | None = None) -> Record:
    """Return one chat message; `tool_calls` are {name, arguments}, arguments as a JSON string."""
    return {"role": role, "content": content, "thought": thought, "tool_calls": tool_calls}
