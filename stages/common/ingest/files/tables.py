"""Tables as rows: CSV and TSV with a head of known columns, lines of `question<tab>answer` without
one.
"""

import csv
import itertools
import json
from collections import deque
from collections.abc import Iterator
from typing import Any

from stages.common.ingest.files.rows import MEBIBYTE, Kind, Row
from stages.common.ingest.layout_table import COLUMNS, KNOWN

SUFFIXES = (".csv", ".tsv", ".tab")
DELIMITERS = (",", "\t", ";", "|")
RECORD_BYTES = 16 * MEBIBYTE
"""A cell left open takes in what follows, up to here; then its first line is refused and the next
is read afresh.
"""
NO_HEAD = "no cell of the table's first line is a known column"
LINES_LOOKED_AT = 100
NESTED = frozenset(
    {
        *("conversations", "conversation", "messages", "history", "tools", "chat", "dialog", "dialogue"),
        *("responses", "ranks", "scores", "categories", "choices", "answers", "completions", "instances", "info"),
        *("summaries", "items", "rejected_messages", "chosen_messages", "turns"),
    }
)
"""Columns that hold lists or objects: their cells are JSON."""
PERHAPS_TURNS = frozenset({"prompt", "completion", "chosen", "rejected", "response_chosen", "response_rejected"})
"""Columns of texts that may hold turns: a cell is read as JSON where that gives an object, or a
list of objects.
"""


def sniff(text: bytes, name: str) -> Kind | None:
    """Return the kind of table that begins with `text`, or None."""
    first = text.partition(b"\n")[0].decode("utf-8", "replace").rstrip("\r")
    head = cells(first, delimiter(first)) or []
    known = sum(cell in COLUMNS for cell in head)
    if len(head) > 1 and known == len(head):
        return "table"
    named = text and name.endswith(SUFFIXES)
    known = sum(map(_is_known, head)) if named else known
    if (named or name.endswith(".txt")) and not known and _all_pairs(text):
        return "pairs"
    return "table" if named else None


def delimiter(head: str) -> str:
    """Return what parts the cells of a table's head: the one that gives the most known columns,
    then most cells.
    """

    def found(one: str) -> tuple[int, int]:
        parts = cells(head, one) or []
        return sum(map(_is_known, parts)), len(parts)

    return max(DELIMITERS, key=found)


def _is_known(cell: str) -> bool:
    return cell in KNOWN or cell.lower() in KNOWN


def cells(line: str, separator: str) -> list[str] | None:
    """Return the cells of one line, or None where it is no table's line."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, strict=True), [])]
    except csv.Error:
        return None


def rows(lines: Iterator[Row]) -> Iterator[Row]:
    """Yield the rows below a table's head, each with its cells by column; an empty cell is null.

    Where no cell of the first line is a known column, it is no head, and nobody knows what the
    cells mean.
    """
    head = next(lines, None)
    if head is None:
        return
    text = head.data.decode("utf-8", "replace")
    separator = delimiter(text)
    names = cells(text, separator) or []
    if not any(map(_is_known, names)):
        for row in itertools.chain([head], lines):
            yield (
                row
                if row.fault
                else row._replace(fault="unknown format", detail=f"{NO_HEAD}: {', '.join(names)}"[:300])
            )
        return
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
