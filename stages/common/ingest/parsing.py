"""What becomes of a row: kept as one record or several, or refused with a reason; and of each of
its keys.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from stages.common.core.records import Record
from stages.common.ingest.files import encodings
from stages.common.ingest.files.rows import Row
from stages.common.ingest.layout_table import LAYOUTS, TREE_MESSAGE, UTTERANCE, Records, nearest, renamed
from stages.common.ingest.layouts import dialogues, meaning
from stages.common.ingest.layouts.fields import Fields, Malformed
from stages.common.ingest.layouts.recognise import recognise

UNKNOWN = "unknown format"
GAP = re.compile(r"[ \t,]*")


class Kept(NamedTuple):
    """Records without id and source, the line they start on, the number of raw rows in them, and
    the keys of these rows that went nowhere.
    """

    format: str
    line: int
    records: Records
    rows: int = 1
    unused: tuple[str, ...] = ()


class Refused(NamedTuple):
    """A raw row for the quarantine; `nearest` is the layout that an unknown one comes nearest to,
    and what it lacks.
    """

    row: Row
    reason: str
    detail: str = ""
    nearest: str = ""


class Said(NamedTuple):
    """A row that is a part of a dialogue or a tree; it becomes records together with its
    neighbours of the same `group`.
    """

    row: Row
    group: tuple[str, str]
    value: Fields


def parse_row(row: Row, encoding: str = encodings.UTF_8) -> Kept | Refused | Said:
    """Return what becomes of one row; `encoding` is the one its file had before it became UTF-8."""
    if row.fault:
        return Refused(row, row.fault, row.detail)
    try:
        value = _value(row)
        if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
            value = {"messages": value}
        if not isinstance(value, dict):
            return Refused(row, "not an object")
        value = renamed(value)
        name = recognise(value)
        if name is None:
            layout, lacks = nearest(value)
            near = f"{layout}, lacks {lacks}" if lacks else layout
            return Refused(row, UNKNOWN, _keys(value) + (f"; nearest: {near}" if near else ""), near)
        fields = Fields(value)
        if name == UTTERANCE:
            return Said(row, (name, dialogues.line(row.line, fields).conversation), fields)
        if name == TREE_MESSAGE:
            return Said(row, (name, str(value["message_tree_id"])), fields)
        return kept(name, row, fields)
    except Malformed as error:
        return Refused(row, error.reason, error.detail)
    except UnicodeError as error:
        return Refused(row, undecodable(encoding), f"{str(error)[-100:]}{_perhaps(row.data)}")
    except RecursionError:
        return Refused(row, "nested too deep")
    except ValueError as error:
        return Refused(row, "not valid JSON", str(error))


def kept(name: str, row: Row, fields: Fields) -> Kept:
    """Return the records of a row of a known layout. Raises Malformed where it does not hold what
    the layout says, or a key beside it makes it mean something else.
    """
    layout = LAYOUTS[name]
    found = layout.records(fields)
    if layout.shape == "conversations":
        desirable = meaning.label(fields)
        found = found if desirable is None else labelled(found, desirable)
    meaning.learned(fields)
    unused = meaning.check(fields.untaken(), layout.shape, (text for _, record in found for text in texts_of(record)))
    if b"\\u" in row.data or not row.data:  # an escape can hide half of a surrogate pair, which is no character
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    return Kept(name, row.line, found, unused=tuple(unused))


def labelled(found: Records, desirable: bool) -> Records:
    """Return conversations whose last answer somebody liked, or did not, as labelled answers.

    One that was liked stays a conversation as well; one that was not is none. Raises Malformed.
    """
    made: Records = []
    for _, record in found:
        *prompt, last = record["messages"]
        if last["role"] != "assistant" or last["tool_calls"] or not prompt:
            raise Malformed("bad label", "what is labelled is no answer in words")
        about = {"response": meaning.answer_text(last), "desirable": desirable, "tools": record["tools"]}
        made.append(("labelled", {"prompt": prompt} | about))
    return [*found, *made] if desirable else made


def texts_of(record: Record) -> Iterator[str]:
    """Yield the texts of a record."""
    for said in [*(record.get("messages") or ()), *(record.get("prompt") or ())]:
        yield said["content"].strip()
    for text in (*(record.get("responses") or ()), record.get("response") or "", record.get("text") or ""):
        yield text.strip()


def parts(row: Row) -> list[Row]:
    """Return the rows that stand in a refused one, or nothing: several objects in a line, objects
    under numbers, columns of equal length.
    """
    if row.fault or not row.data:
        return []
    try:
        text = row.data.decode("utf-8")
        found: list[Any] = []
        end = 0
        while end < len(text):
            value, end = json.JSONDecoder(parse_constant=lambda name: None).raw_decode(text, end)
            found.append(value)
            gap = GAP.match(text, end)
            end = gap.end() if gap else end
    except (ValueError, RecursionError):
        return []
    if len(found) == 1:
        spread = _spread(found[0]) if isinstance(found[0], dict) else []
        if not spread and not text.rstrip().endswith(","):
            return []
        found = spread or found
    return [row._replace(value=one) for one in found] if all(isinstance(one, dict) for one in found) else []


def _spread(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects under numbers, or the rows of columns, that an object is; else nothing."""
    columns = list(whole.values())
    if whole and all(key.isdecimal() and isinstance(value, dict) for key, value in whole.items()):
        return columns
    length = len(columns[0]) if len(columns) > 1 and isinstance(columns[0], list) else 0
    if length and all(_is_column(column, length) for column in columns):
        return [dict(zip(whole, cells, strict=True)) for cells in zip(*columns, strict=True)]
    return []


def _is_column(value: Any, length: int) -> bool:
    """Whether a value is a list of plain values, so many."""
    return (
        isinstance(value, list) and len(value) == length and not any(isinstance(cell, (dict, list)) for cell in value)
    )


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


def _perhaps(data: bytes) -> str:
    """Return where to name the encoding of bytes that are text in another one."""
    name = next((name for name in ("gb18030", "big5") if encodings.decodable(data, name)), "")
    return f"; it is text in {name}: if that is right, name it in ingest.encodings" if name else ""


def undecodable(encoding: str) -> str:
    """Return the reason of a row that is no text in its file's encoding."""
    return "not UTF-8" if encoding in ("", encodings.UTF_8, "utf-8-sig") else f"not {encoding}"
