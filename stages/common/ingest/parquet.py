"""Parquet files as rows, a few hundred in memory at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.ingest.rows import Row
from stages.common.ingest.tables import Position

if TYPE_CHECKING:
    import pyarrow as pa

MAGIC = b"PAR1"
ROWS_AT_ONCE = 256


def rows(path: Path, position: Position) -> Iterator[Row]:
    """Yield the rows of a Parquet file, numbered from 1; a part that cannot be read is one faulty row."""
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
                    yield from _batch(batch, number)
                    number += batch.num_rows
                    position.share = (number - 1) / total
            except damage as error:
                why = str(error)
            if number < start:
                yield Row(number, b"", "damaged Parquet file", f"rows {number} to {start - 1}: {why}")


def _batch(batch: "pa.RecordBatch", first: int) -> list[Row]:
    try:
        return [Row(number, b"", value=value) for number, value in enumerate(batch.to_pylist(), first)]
    except (ValueError, OverflowError):
        return [_one(batch, at, first + at) for at in range(batch.num_rows)]


def _one(batch: "pa.RecordBatch", at: int, number: int) -> Row:
    """Return one row of a batch that holds some that Python has no value for: text that is not UTF-8, a date."""
    try:
        value: dict[str, Any] = batch.slice(at, 1).to_pylist()[0]
    except UnicodeDecodeError as error:
        return Row(number, b"", "not UTF-8", error.reason)
    except (ValueError, OverflowError) as error:
        return Row(number, b"", "no Python value", str(error))
    return Row(number, b"", value=value)
