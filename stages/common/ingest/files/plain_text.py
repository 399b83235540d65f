"""Plain text as documents: paragraphs, in order and verbatim, joined to about the wanted length."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from stages.common.ingest.files.rows import Row

HEADING_CHARACTERS = 80
UNDECODABLE = "not UTF-8"
SENTENCE_ENDS = tuple(".!?;,。！？；，…\"'”’)）」』")


class Paragraph(NamedTuple):
    """Lines that belong together; `opens` says whether a blank line stood before it."""

    line: int
    text: str
    opens: bool


class Unreadable(NamedTuple):
    """A paragraph that could not be decoded, or a row that could not be read at all."""

    row: Row
    reason: str


class Document(NamedTuple):
    """A text, the line it starts on and the number of paragraphs in it."""

    line: int
    text: str
    paragraphs: int


def paragraphs(rows: Iterable[Row], characters: int) -> Iterator[Paragraph | Unreadable]:
    """Yield the paragraphs of a text file.

    Blank lines separate them. Where there are none, or a block is longer than `characters`, each
    line is a paragraph: such text is a list, or has one paragraph a line, as much Chinese text
    does.
    """
    block: list[Row] = []
    size, by_line, opens, gap, parted, started = 0, False, False, False, False, False
    for row in rows:
        if not row.data.strip() and not row.fault:
            gap = started
            continue
        if gap:
            yield from _block(block, opens, by_line)
            block, size, by_line, opens, gap, parted = [], 0, False, True, False, True
        block.append(row)
        size, started = size + len(row.data.decode("utf-8", "ignore")), True
        if by_line or size > characters or row.fault:
            yield from _block(block, opens, by_line=True)
            block, by_line, opens = [], True, False
    yield from _block(block, opens, by_line or not parted)


def documents(found: Iterable[Paragraph], characters: int) -> Iterator[Document]:
    """Join paragraphs until the next one would make the document longer than `characters`.

    A heading opens the next document instead of closing this one, so none is left alone. A
    paragraph stays whole.
    """
    closed: list[Paragraph] = []
    waiting: list[Paragraph] = []
    for paragraph in found:
        if waiting and sum(len(part.text) for part in waiting) + len(paragraph.text) > characters:
            body, headings = _headings_at_the_end(waiting)
            if body or is_heading(paragraph.text):
                if closed:
                    yield _join(closed)
                closed, waiting = body or headings, headings if body else []
        waiting.append(paragraph)
    if _headings_at_the_end(closed)[0] and not _headings_at_the_end(waiting)[0]:
        closed, waiting = closed + waiting, []
    yield from (_join(parts) for parts in (closed, waiting) if parts)


def is_heading(text: str) -> bool:
    """Whether a paragraph is one short line that does not end like a sentence."""
    line = text.strip()
    return "\n" not in line and len(line) <= HEADING_CHARACTERS and not line.endswith(SENTENCE_ENDS)


def _block(rows: list[Row], opens: bool, by_line: bool) -> Iterator[Paragraph | Unreadable]:
    groups = [[row] for row in rows] if by_line else [rows] if rows else []
    for number, group in enumerate(groups):
        data = b"\n".join(row.data for row in group)
        whole = Row(group[0].line, data)
        fault = next((row.fault for row in group if row.fault), "")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            fault = fault or UNDECODABLE
        yield Unreadable(whole, fault) if fault else Paragraph(whole.line, text, opens and number == 0)


def _headings_at_the_end(waiting: list[Paragraph]) -> tuple[list[Paragraph], list[Paragraph]]:
    cut = len(waiting)
    while cut and is_heading(waiting[cut - 1].text):
        cut -= 1
    return waiting[:cut], waiting[cut:]


def _join(parts: list[Paragraph]) -> Document:
    rest = "".join(("\n\n" if part.opens else "\n") + part.text for part in parts[1:])
    return Document(parts[0].line, parts[0].text + rest, len(parts))
