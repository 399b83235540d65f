"""Tables as rows: Parquet, CSV and TSV with a head of known columns, lines of `question<tab>answer`
without one.
"""

import csv
import io
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.ingest.files.rows import MEBIBYTE, Kind, Row
from stages.common.ingest.layouts.recognise import COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET_MAGIC = b"PAR1"
ROWS_AT_ONCE = 256
"""Of a Parquet file, in memory."""
SUFFIXES = (".csv", ".tsv", ".tab")
DELIMITERS = (",", "\t", ";", "|")
RECORD_BYTES = 16 * MEBIBYTE
"""A cell left open takes in what follows, up to here; then its first line is refused and the next
is read afresh.
"""
LINES_LOOKED_AT = 100
NESTED = frozenset(
    {
        *("conversations", "conversation", "messages", "history", "tools", "chat", "dialog", "dialogue"),
        *("responses", "ranks", "scores", "categories"),
    }
)
"""Columns that hold lists or objects: their cells are JSON."""
PERHAPS_TURNS = frozenset({"prompt", "chosen", "rejected", "response_chosen", "response_rejected"})
"""Columns of texts that may hold turns: a cell is read as JSON where that gives an object, or a
list of objects.
"""


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


def sniff(text: bytes, name: str) -> Kind | None:
    """Return the kind of table that begins with `text`, or None."""
    first = text.partition(b"\n")[0].decode("utf-8", "replace").rstrip("\r")
    head = cells(first, delimiter(first)) or []
    known = sum(cell in COLUMNS for cell in head)
    if len(head) > 1 and known == len(head):
        return "table"
    named = text and name.endswith(SUFFIXES)
    if (named or name.endswith(".txt")) and not known and _all_pairs(text):
        return "pairs"
    return "table" if named else None


def delimiter(head: str) -> str:
    """Return what parts the cells of a table's head: the one that gives the most known columns,
    then most cells.
    """

    def found(one: str) -> tuple[int, int]:
        parts = cells(head, one) or []
        return sum(part in COLUMNS for part in parts), len(parts)

    return max(DELIMITERS, key=found)


def cells(line: str, separator: str) -> list[str] | None:
    """Return the cells of one line, or None where it is no table's line."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, strict=True), [])]
    except csv.Error:
        return None


def rows(lines: Iterator[Row]) -> Iterator[Row]:
    """Yield the rows below a table's head, each with its cells by column; an empty cell is null."""
    head = next(lines, None)
    if head is None:
        return
    text = head.data.decode("utf-8", "replace")
    separator = delimiter(text)
    names = cells(text, separator) or []
    for record, found in _records(lines, separator):
        first = Row(record[0].line, b"\n".join(row.data for row in record))
        if isinstance(found, str):
            yield first._replace(fault="not valid CSV", detail=found)
        elif fault := next((row.fault for row in record if row.fault), ""):
            yield first._replace(fault=fault)
        elif len(found) != len(names):
            yield first._replace(fault="not valid CSV", detail=f"{len(found)} cells in a table of {len(names)} columns")
        else:
            yield first._replace(value={name: _cell(name, cell) for name, cell in zip(names, found, strict=True)})


def pairs(lines: Iterator[Row]) -> Iterator[Row]:
    """Yield lines of `question<tab>answer` as rows of these two columns."""
    for row in lines:
        parts = row.data.decode("utf-8", "surrogateescape").split("\t")
        if row.fault or len(parts) != 2:
            yield row if row.fault else row._replace(fault="bad pair", detail=f"{len(parts) - 1} tabs in the line")
        else:
            yield row._replace(value={"question": parts[0].strip(), "answer": parts[1].strip()})


def _records(lines: Iterator[Row], separator: str) -> Iterator[tuple[list[Row], list[str] | str]]:
    """Yield the lines of each record with its cells, or with what is wrong; a line is lost to no
    other's fault.
    """
    waiting: deque[Row] = deque()
    csv.field_size_limit(RECORD_BYTES)
    while True:
        taken: list[Row] = []
        try:
            found: list[str] | str = next(
                csv.reader(_feed(lines, waiting, taken), delimiter=separator, strict=True), []
            )
        except csv.Error as error:
            waiting.extendleft(reversed(taken[1:]))
            del taken[1:]
            found = str(error)
            if separator == "\t" and taken:  # most tables parted by tabs know no quotes: such a line is as it stands
                found = taken[0].data.decode("utf-8", "surrogateescape").split("\t")
        if not taken:
            return
        yield taken, found


def _feed(lines: Iterator[Row], waiting: deque[Row], taken: list[Row]) -> Iterator[str]:
    size = 0
    while size < RECORD_BYTES:
        row = waiting.popleft() if waiting else next(lines, None)
        if row is None:
            return
        taken.append(row)
        size += len(row.data)
        yield row.data.decode("utf-8", "surrogateescape") + "\n"


def _cell(name: str, cell: str) -> Any:
    if not cell.strip():
        return None
    if name not in NESTED and name not in PERHAPS_TURNS:
        return cell
    if not cell.lstrip().startswith(("[", "{")):
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    turns = value if isinstance(value, list) else [value]
    return value if name in NESTED or all(isinstance(turn, dict) for turn in turns) else cell


def _all_pairs(text: bytes) -> bool:
    """Whether each of a file's first lines has one tab, and something on either side of it."""
    first = text.split(b"\n", LINES_LOOKED_AT)
    lines = [line.split(b"\t") for line in (first[:-1] or first) if line.strip()]
    return bool(lines) and all(len(parts) == 2 and all(part.strip() for part in parts) for parts in lines)


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
