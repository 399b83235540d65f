"""The Cornell movie dialogues as their authors wrote them: lines in one file, conversations in
another, cells parted by ` +++$+++ `.

A row of movie_conversations.txt is a conversation; a row of movie_lines.txt is a line that some
conversation holds.
"""

import re
from collections.abc import Callable, Iterator

from stages.common.ingest.files.rows import Row
from stages.common.ingest.layout_table import CORNELL
from stages.common.ingest.layouts import dialogues
from stages.common.ingest.layouts.fields import Malformed

MARK = b" +++$+++ "
LINES, CONVERSATIONS = "movie_lines.txt", "movie_conversations.txt"
NAMES = re.compile(r"\[\s*'L\d+'(?:\s*,\s*'L\d+')*\s*\]")
NAME = re.compile(r"L\d+")
LINES_LEFT = "lines after the last answer"


def rows(own: Iterator[Row], beside: Callable[[str], Iterator[Row] | None]) -> Iterator[Row]:
    """Yield the rows of either file with what they mean; `beside` opens the other one."""
    lines: dict[str, tuple[str, str]] | None = None
    spoken: set[str] | None = None
    for row in own:
        cells = _cells(row)
        if row.fault:
            yield row
        elif len(cells) == 4 and NAMES.fullmatch(cells[3]):
            if lines is None:
                lines = dict(_lines(beside(LINES) or iter(())))
            yield _conversation(row, cells[3], lines)
        elif len(cells) == 5 and NAME.fullmatch(cells[0]):
            if spoken is None:
                spoken = {name for other in beside(CONVERSATIONS) or () for name in NAME.findall(_cells(other)[-1])}
            known = cells[0] in spoken
            detail = f"in no conversation of {CONVERSATIONS}" if spoken else f"{CONVERSATIONS} is not beside it"
            yield row._replace(value={CORNELL: cells[0]}) if known else row._replace(fault="no answer", detail=detail)
        else:
            yield row._replace(fault="unknown format", detail="neither a line nor a conversation of the Cornell corpus")


def _cells(row: Row) -> list[str]:
    text = row.data.decode("utf-8", "surrogateescape")
    return [cell.strip() for cell in text.split(MARK.decode().rstrip())]


def _lines(found: Iterator[Row]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield names, speakers and texts of the lines."""
    for row in found:
        cells = _cells(row)
        if len(cells) == 5:
            yield cells[0], (cells[1], cells[4])


def _conversation(row: Row, listed: str, lines: dict[str, tuple[str, str]]) -> Row:
    names = NAME.findall(listed)
    if not lines:
        return row._replace(fault="bad dialogue", detail=f"{LINES} is not beside it")
    missing = [name for name in names if name not in lines]
    if missing:
        return row._replace(fault="bad dialogue", detail=f"no line {missing[0]} in {LINES}")
    before = [None, *names]
    said = [dialogues.Line(number, "", name, before[number], *lines[name]) for number, name in enumerate(names)]
    try:
        joined = dialogues.joined(said)
    except Malformed as error:
        return row._replace(fault=error.reason, detail=error.detail)
    if not joined.messages:
        return row._replace(fault="no answer", detail="one speaker says it all")
    left = [lines[names[number]][1] for number in joined.unanswered]
    turns = [{"role": one["role"], "content": one["content"]} for one in joined.messages]
    return row._replace(value={"messages": turns, LINES_LEFT: left})
