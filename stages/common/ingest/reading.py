"""A raw file read to its end: rows, the rows inside of rows, and rows that belong together."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from stages.common.ingest.files import encodings, plain_text
from stages.common.ingest.files.rows import Kind, Row
from stages.common.ingest.layout_table import TREE_MESSAGE, Records
from stages.common.ingest.layouts import dialogues, meaning, trees
from stages.common.ingest.layouts.fields import Malformed
from stages.common.ingest.parsing import Kept, Refused, Said, parse_row, parts, texts_of, undecodable

T = TypeVar("T")


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
                wrong = paragraph.reason == plain_text.UNDECODABLE
                refused.append(Refused(paragraph.row, undecodable(encoding) if wrong else paragraph.reason))

    for document in plain_text.documents(readable(), characters):
        yield Kept("plain text", document.line, [("documents", {"text": document.text})], document.paragraphs)
        yield from refused
        refused.clear()
    yield from refused


def with_dialogues(outcomes: Iterable[Kept | Refused | Said]) -> Iterator[Kept | Refused]:
    """Join the parts of a dialogue or a tree that stand together; a row that is in no record of it
    is refused.
    """
    group: list[Said] = []
    for one in outcomes:
        if group and not (isinstance(one, Said) and _goes_on(group, one)):
            yield from _joined(group)
            group = []
        if isinstance(one, Said):
            group.append(one)
        else:
            yield one
    yield from _joined(group)


def _goes_on(group: list[Said], one: Said) -> bool:
    return one.group == group[0].group and len(group) < dialogues.LONGEST_DIALOGUE


def _joined(group: list[Said]) -> Iterator[Kept | Refused]:
    if not group:
        return
    name = group[0].group[0]
    try:
        if name == TREE_MESSAGE:
            found, used = trees.joined([(said.row.line, said.value) for said in group])
        else:
            joined = dialogues.joined([dialogues.line(said.row.line, said.value) for said in group])
            used = set(joined.used)
            found = [("conversations", {"messages": joined.messages, "tools": None})] if used else []
        unused = _unused_of([said for said in group if said.row.line in used], found)
    except Malformed as error:
        yield from (Refused(said.row, error.reason, error.detail) for said in group)
        return
    except RecursionError:
        yield from (Refused(said.row, "nested too deep") for said in group)
        return
    if used:
        yield Kept(name, min(used), found, len(used), unused)
    left = [said for said in group if said.row.line not in used]
    yield from (Refused(said.row, "no answer", "the dialogue ends here") for said in left)


def _unused_of(group: list[Said], found: Records) -> tuple[str, ...]:
    """Return the keys of joined rows that went nowhere, as often as they stand there."""
    texts = [text for _, record in found for text in texts_of(record)]
    shape = "conversations"
    return tuple(path for said in group for path in meaning.check(said.value.untaken(), shape, texts))


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
            yield from with_dialogues(self._parsed(encoding))

    def _parsed(self, encoding: str) -> Iterator[Kept | Refused | Said]:
        for row in self._counted(self.file.rows()):
            outcome = parse_row(row, encoding)
            inside = parts(row) if isinstance(outcome, Refused) else []
            if inside:
                self.rows += len(inside) - 1
                yield from (parse_row(part, encoding) for part in inside)
            else:
                yield outcome

    def _counted(self, rows: Iterable[T]) -> Iterator[T]:
        for row in rows:
            self.rows += 1
            yield row
