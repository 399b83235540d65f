"""From a raw file to what becomes of each of its rows: kept as a record, or refused with a
reason.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

import orjson

from stages.common.core.records import Record, Shape
from stages.common.ingest.files import encodings, plain_text
from stages.common.ingest.files.rows import Kind, Row
from stages.common.ingest.layouts import dialogues
from stages.common.ingest.layouts.fields import Malformed
from stages.common.ingest.layouts.recognise import FORMATS, UTTERANCE, recognise

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


class Source(Protocol):
    """What rows come from: a raw file or a data set."""

    kind: Kind
    encoding: str

    def rows(self) -> Iterator[Row]:
        """Yield its rows."""
        ...

    def position(self) -> int:
        """Return how many of its bytes have been read."""
        ...


class Said(NamedTuple):
    """A row that is one line of a dialogue; it becomes a record together with its neighbours."""

    row: Row
    line: dialogues.Line


def parse_row(row: Row, encoding: str = encodings.UTF_8) -> Kept | Refused | Said:
    """Return what becomes of one row; `encoding` is the one its file had before it became UTF-8."""
    if row.fault:
        return Refused(row, row.fault, row.detail)
    try:
        value = _value(row)
        if not isinstance(value, dict):
            return Refused(row, "not an object")
        name = recognise(value)
        if name is None:
            return Refused(row, "unknown format", _keys(value))
        if name == UTTERANCE:
            return Said(row, dialogues.line(row.line, value))
        shape, parse = FORMATS[name]
        record = parse(value)
        if b"\\u" in row.data or not row.data:  # an escape can hide half of a surrogate pair, which is no character
            json.dumps(record, ensure_ascii=False).encode("utf-8")
        return Kept(name, shape, row.line, record)
    except Malformed as error:
        return Refused(row, error.reason, error.detail)
    except UnicodeError as error:
        return Refused(row, _undecodable(encoding), str(error)[-100:])
    except RecursionError:
        return Refused(row, "nested too deep")
    except ValueError as error:
        return Refused(row, "not valid JSON", str(error))


def _value(row: Row) -> Any:
    """Return a row's value. NaN and infinity, which are no JSON but which Python writes,
    are null.
    """
    if row.value is not None:
        row.data.decode("utf-8")
        return row.value
    try:
        value = orjson.loads(row.data)
        if not _has_numbers(row.data, value):
            return value
    except orjson.JSONDecodeError:
        pass  # Python's own parser takes more, and says better what is wrong
    return json.loads(row.data.decode("utf-8"), parse_constant=lambda name: None)


def _has_numbers(data: bytes, value: Any) -> bool:
    """Whether numbers of the row come into its record; orjson reads a whole number over 64 bits as
    a fraction.
    """
    tools = value.get("tools") if isinstance(value, dict) else None
    return b'"arguments"' in data or not (tools is None or isinstance(tools, str))


def _keys(value: dict[str, Any]) -> str:
    """Return the first keys of a row for reading, with those that hold nothing marked."""
    names = [f"{key} (null)" if value[key] is None else key for key in list(value)[:10]]
    return ("keys: " + ", ".join(names))[:500]


def _undecodable(encoding: str) -> str:
    return "not UTF-8" if encoding in ("", encodings.UTF_8, "utf-8-sig") else f"not {encoding}"


def parse_text(
    found: Iterable[plain_text.Paragraph | plain_text.Unreadable], characters: int, encoding: str = encodings.UTF_8
) -> Iterator[Kept | Refused]:
    """Yield the documents of a plain text file, each of several rows (paragraphs), and its
    unreadable paragraphs.
    """
    refused: list[Refused] = []

    def readable() -> Iterator[plain_text.Paragraph]:
        for paragraph in found:
            if isinstance(paragraph, plain_text.Paragraph):
                yield paragraph
            else:
                undecodable = paragraph.reason == plain_text.UNDECODABLE
                refused.append(Refused(paragraph.row, _undecodable(encoding) if undecodable else paragraph.reason))

    for document in plain_text.documents(readable(), characters):
        yield Kept("plain text", "documents", document.line, {"text": document.text}, document.paragraphs)
        yield from refused
        refused.clear()
    yield from refused


def with_dialogues(outcomes: Iterable[Kept | Refused | Said]) -> Iterator[Kept | Refused]:
    """Join the lines of a dialogue that stand together; a line that no answer follows is
    refused.
    """
    group: list[Said] = []
    for one in outcomes:
        if group and not (isinstance(one, Said) and _goes_on(group, one)):
            yield from _dialogue(group)
            group = []
        if isinstance(one, Said):
            group.append(one)
        else:
            yield one
    yield from _dialogue(group)


def _goes_on(group: list[Said], one: Said) -> bool:
    return one.line.conversation == group[0].line.conversation and len(group) < dialogues.LONGEST_DIALOGUE


def _dialogue(group: list[Said]) -> Iterator[Kept | Refused]:
    try:
        joined = dialogues.joined([said.line for said in group])
    except Malformed as error:
        yield from (Refused(said.row, error.reason, error.detail) for said in group)
        return
    if joined.used:
        record = {"messages": joined.messages, "tools": None}
        yield Kept(UTTERANCE, "conversations", min(joined.used), record, len(joined.used))
    left = set(joined.unanswered)
    yield from (Refused(said.row, "no answer", "the dialogue ends here") for said in group if said.line.number in left)


class Reader:
    """Reads one source of rows; `rows` counts what was read, apart from what then becomes of it."""

    def __init__(self, file: Source, characters: int) -> None:
        self.file, self.characters, self.rows = file, characters, 0

    def outcomes(self) -> Iterator[Kept | Refused]:
        """Yield what becomes of each row; a file of an unknown kind is one row, refused whole."""
        encoding = self.file.encoding
        if self.file.kind == "text":
            paragraphs = plain_text.paragraphs(self.file.rows(), self.characters)
            yield from parse_text(self._counted(paragraphs), self.characters, encoding)
        else:
            yield from with_dialogues(parse_row(row, encoding) for row in self._counted(self.file.rows()))

    def _counted(self, rows: Iterable[T]) -> Iterator[T]:
        for row in rows:
            self.rows += 1
            yield row
