"""From a raw file to what becomes of each of its rows: kept as a record, or refused with a reason."""

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from stages.common import formats, plain_text
from stages.common.raw_files import RawFile, Row
from stages.common.records import Record, Shape

T = TypeVar("T")


class Kept(NamedTuple):
    """A record without id and source, the line it starts on and the number of raw rows in it."""

    format: str
    shape: Shape
    line: int
    record: Record
    rows: int = 1


class Refused(NamedTuple):
    """A raw row for the quarantine."""

    row: Row
    reason: str
    detail: str = ""


def parse_row(row: Row) -> Kept | Refused:
    """Return what becomes of one JSON row."""
    if row.fault:
        return Refused(row, row.fault)
    try:
        value = json.loads(row.data.decode("utf-8"))
        if b"\\u" in row.data:  # an escape can hide half of a surrogate pair, which no UTF-8 file can hold
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        return Refused(row, "not UTF-8", error.reason)
    except (ValueError, RecursionError) as error:
        return Refused(row, "not valid JSON", str(error))
    if not isinstance(value, dict):
        return Refused(row, "not an object")
    name = formats.recognise(value)
    if name is None:
        return Refused(row, "unknown format", "keys: " + ", ".join(list(value)[:10]))
    shape, parse = formats.FORMATS[name]
    try:
        return Kept(name, shape, row.line, parse(value))
    except formats.Malformed as error:
        return Refused(row, error.reason, error.detail)


def parse_text(
    found: Iterable[plain_text.Paragraph | plain_text.Unreadable], characters: int
) -> Iterator[Kept | Refused]:
    """Yield the documents of a plain text file, each of several rows (paragraphs), and its unreadable paragraphs."""
    refused: list[Refused] = []

    def readable() -> Iterator[plain_text.Paragraph]:
        for paragraph in found:
            if isinstance(paragraph, plain_text.Paragraph):
                yield paragraph
            else:
                refused.append(Refused(paragraph.row, paragraph.reason))

    for document in plain_text.documents(readable(), characters):
        yield Kept("plain text", "documents", document.line, {"text": document.text}, document.paragraphs)
        yield from refused
        refused.clear()
    yield from refused


class Reader:
    """Reads one raw file; `rows` counts what was read, apart from what then becomes of it."""

    def __init__(self, file: RawFile, characters: int) -> None:
        self.file, self.characters, self.rows = file, characters, 0

    def outcomes(self) -> Iterator[Kept | Refused]:
        """Yield what becomes of each row; a file of an unknown kind is one row, refused whole."""
        if self.file.kind == "text":
            paragraphs = plain_text.paragraphs(self.file.rows(), self.characters)
            yield from parse_text(self._counted(paragraphs), self.characters)
        elif self.file.kind == "unknown":
            yield from (Refused(row, "unknown format", "the whole file") for row in self._counted([Row(1, b"")]))
        else:
            yield from (parse_row(row) for row in self._counted(self.file.rows()))

    def _counted(self, rows: Iterable[T]) -> Iterator[T]:
        for row in rows:
            self.rows += 1
            yield row
