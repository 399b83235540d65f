"""Extracted records on their way: passages in, a table of records with their spans, conversations
out.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.common.core import records
from stages.common.core.records import Record, message
from stages.common.extraction import spans
from stages.common.extraction.schemas import TEMPLATE, Wanted
from stages.common.extraction.spans import Value
from stages.common.text import content_hash
from stages.common.text.normalisation import normalise

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "source", "document", "passage")),
        ("offset", pa.int64()),
        *((name, pa.string()) for name in ("record", "values")),
        ("to_review", pa.bool_()),
    ]
)
"""Of the table of records: `document` is the id of what it is from, `passage` the part that was
read, which begins at character `offset` of it; `record` and `values` are JSON (`spans.Value`)."""


@dataclass(frozen=True)
class Extracted:
    """One row of the table."""

    id: str
    source: str
    document: str
    passage: str
    offset: int
    record: dict[str, Any]
    values: list[Value]
    to_review: bool = False

    def row(self) -> Record:
        """Return it as it is kept."""
        found = {name: getattr(self, name) for name in SCHEMA.names}
        text = json.dumps(self.record, ensure_ascii=False)
        return found | {"record": text, "values": spans.as_json(self.values)}

    @classmethod
    def of_row(cls, row: Record) -> "Extracted":
        """Return what a row holds."""
        return cls(**row | {"record": json.loads(row["record"]), "values": spans.from_json(row["values"])})

    @cached_property
    def shown(self) -> str:
        """The record with its spans, as people read and edit it."""
        return json.dumps(spans.wrapped(self.record, self.values), ensure_ascii=False, indent=1)


def read(folder: Path) -> list[Extracted]:
    """Return the table that `extract` wrote. Raises DataError."""
    return [Extracted.of_row(row) for row in records.read(folder)]


def passages(text: str, characters: int) -> Iterator[tuple[int, str]]:
    """Yield a document's parts of at most so many characters with where each begins: whole
    paragraphs, then whole lines, sentences or words, as far as they fit.
    """
    start = 0
    while len(text) - start > characters:
        end = start + characters
        for mark in ("\n\n", "\n", "。", ". ", " "):
            place = text.rfind(mark, start + characters // 2, end)
            if place >= 0:
                end = place + len(mark)
                break
        yield start, text[start:end]
        start = end
    if text[start:].strip():
        yield start, text[start:]


def is_sampled(one: Extracted, share: float) -> bool:
    """Whether a record belongs to a sample of that share: by its content, so a new run asks for the
    same ones.
    """
    return content_hash.draw("extract review", json.dumps([one.id, one.record], ensure_ascii=False)) < share


def conversations(wanted: Wanted, accepted: Sequence[Extracted]) -> Iterator[Record]:
    """Yield what becomes of accepted records: by each template one of a record, or without
    templates one of all records of a passage.
    """
    if wanted.conversations:
        for one in accepted:
            made = [filled(turns, one, wanted) for turns in wanted.conversations]
            for number, turns in enumerate(filter(None, made), 1):
                yield _conversation(one, turns, number)
        return
    by_passage: dict[tuple[str, int], list[Extracted]] = {}
    for one in accepted:
        by_passage.setdefault((one.document, one.offset), []).append(one)
    for some in by_passage.values():
        answer = [one.record for one in some] if wanted.many else some[0].record
        asked = f"{wanted.instruction}\n\n{normalise(some[0].passage)}"
        yield _conversation(some[0], [asked, json.dumps(answer, ensure_ascii=False)], 1)


def filled(turns: Sequence[str], one: Extracted, wanted: Wanted) -> list[str]:
    """Return a template's turns with the record's fields in them; nothing when one of them is not
    there.
    """
    known = {"document": one.passage, "instruction": wanted.instruction}

    def field(path: str) -> str:
        node: Any = one.record
        for part in path.split("/"):
            node = node[int(part)] if isinstance(node, list) else node[part]
        return node if isinstance(node, str) else json.dumps(node, ensure_ascii=False)

    try:
        return [TEMPLATE.sub(lambda match: known.get(match[1]) or field(match[1]), turn) for turn in turns]
    except (KeyError, IndexError, ValueError, TypeError):
        return []


def _conversation(one: Extracted, turns: Sequence[str], number: int) -> Record:
    said = [message(("user", "assistant")[at % 2], text) for at, text in enumerate(turns)]
    name = one.id if number == 1 else f"{one.id}.{number}"
    return {"id": name, "source": f"extracted/{one.source}", "messages": said, "tools": None}
