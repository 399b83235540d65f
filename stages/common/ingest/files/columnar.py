"""Parquet and Arrow files as rows, and how far a file has been read."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.ingest.files.rows import Kind, Row

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET_MAGIC, ARROW_FILE_MAGIC, ARROW_STREAM_MAGIC = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
ROWS_AT_ONCE = 256
"""Of a file, in memory."""


@dataclass
class Position:
    """How many of a file's bytes have been read: the disk says so, or a reader that jumps counts
    for itself.
    """

    size: int = 0
    share: float = 0.0
    disk: io.BufferedReader | None = None

    def __call__(self) -> int:
        """Return the bytes read; compressed ones where the file is compressed."""
        return self.disk.tell() if self.disk else int(self.size * self.share)


def sniff(head: bytes, name: str) -> Kind | None:
    """Return the kind of a binary table by its first bytes, or None."""
    if head.startswith(PARQUET_MAGIC):
        return "parquet"
    stream = head.startswith(ARROW_STREAM_MAGIC) and name.endswith(".arrow")
    return "arrow" if head.startswith(ARROW_FILE_MAGIC) or stream else None


def arrow_rows(path: Path, position: Position) -> Iterator[Row]:
    """Yield the rows of an Arrow file or stream (what `save_to_disk` writes), numbered from 1; what
    cannot be read is one faulty row.
    """
    import pyarrow as pa

    number = 1
    try:
        with pa.memory_map(str(path)) as source:
            if path.open("rb").read(len(ARROW_FILE_MAGIC)) == ARROW_FILE_MAGIC:
                file = pa.ipc.open_file(source)
                batches = (file.get_batch(at) for at in range(file.num_record_batches))
            else:
                batches = iter(pa.ipc.open_stream(source))
            for batch in batches:
                for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                    part = batch.slice(start, ROWS_AT_ONCE)
                    yield from _rows_of_batch(part, number)
                    number += part.num_rows
                position.share = source.tell() / max(position.size, 1)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        yield Row(number, b"", "damaged Arrow file", str(error))


def parquet_rows(path: Path, position: Position) -> Iterator[Row]:
    """Yield the rows of a Parquet file, numbered from 1; a part that cannot be read is one faulty
    row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    damage = (pa.ArrowException, OSError, ValueError, MemoryError)  # a changed byte can ask for any amount of memory
    try:
        file = pq.ParquetFile(path)
    except damage as error:
        yield Row(1, b"", "damaged Parquet file", str(error))
        return
    with file:
        start, total = 1, max(file.metadata.num_rows, 1)
        for group in range(file.metadata.num_row_groups):
            number, start = start, start + file.metadata.row_group(group).num_rows
            why = "they are not there"
            try:
                for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=[group]):
                    yield from _rows_of_batch(batch, number)
                    number += batch.num_rows
                    position.share = (number - 1) / total
            except damage as error:
                why = str(error)
            if number < start:
                yield Row(number, b"", "damaged Parquet file", f"rows {number} to {start - 1}: {why}")


def _rows_of_batch(batch: "pa.RecordBatch", first: int) -> list[Row]:
    try:
        return [Row(number, b"", value=value) for number, value in enumerate(batch.to_pylist(), first)]
    except (ValueError, OverflowError):
        return [_row_of_batch(batch, at, first + at) for at in range(batch.num_rows)]


def _row_of_batch(batch: "pa.RecordBatch", at: int, number: int) -> Row:
    """Return one row of a batch that holds some that Python has no value for: text that is not
    UTF-8, a date.
    """
    try:
        value: dict[str, Any] = batch.slice(at, 1).to_pylist()[0]
    except UnicodeDecodeError as error:
        return Row(number, b"", "not UTF-8", error.reason)
    except (ValueError, OverflowError) as error:
        return Row(number, b"", "no Python value", str(error))
    return Row(number, b"", value=value)
