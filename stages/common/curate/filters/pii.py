"""Personal data replaced by typed placeholders: addresses, numbers of people, cards and accounts,
and secret keys.

Every pattern begins where nothing like it stands before, and repeats a bounded number of times (or
possessively), so the time is linear in the text's length, whatever the text.
"""

import json
from bisect import bisect_left
from collections import Counter
from typing import Any

from stages.common.core.records import TURNS, Record, Shape
from stages.common.curate.filters import pii_patterns as kinds
from stages.common.curate.filters.pii_patterns import Span


def scrub(text: str) -> tuple[str, Counter[str]]:
    """Return `text` with placeholders such as `[MAIL]`, and how many of each kind (`mail`)
    it has.
    """
    taken: list[Span] = []
    for span in kinds.spans(text):  # the surest kinds come first
        place = bisect_left(taken, span)
        before = taken[place - 1].end if place else 0
        after = taken[place].start if place < len(taken) else len(text)
        if before <= span.start and span.end <= after:
            taken.insert(place, span)
    if not taken:
        return text, Counter()
    parts, end = [], 0
    for span in taken:
        parts += [text[end : span.start], f"[{span.kind.upper()}]"]
        end = span.end
    return "".join([*parts, text[end:]]), Counter(span.kind for span in taken)


def scrub_record(shape: Shape, record: Record) -> tuple[Record, Counter[str]]:
    """Return the record without personal data in any text a model will read, and how many of each
    kind it had.

    The arguments of tool calls stay valid JSON. Test questions stay as they are: an answer must
    match its reference.
    """
    found: Counter[str] = Counter()
    if shape == "questions":
        return record, found
    changed = dict(record)
    for name in ("text", "reference"):
        if record.get(name):
            changed[name] = _text(record[name], found)
    if shape in TURNS:
        changed[TURNS[shape]] = [_turn(turn, found) for turn in record[TURNS[shape]]]
    if shape == "comparisons":
        changed["responses"] = [_text(response, found) for response in record["responses"]]
    if shape == "labelled":
        changed["response"] = _text(record["response"], found)
    return (changed, found) if found else (record, found)


def scrub_json(text: str) -> tuple[str, Counter[str]]:
    """Return JSON text without personal data in its strings and whole numbers; what is no JSON is
    scrubbed as text.
    """
    found: Counter[str] = Counter()
    try:
        changed = _value(json.loads(text), found)
        escaped = text.isascii() or "\\ud" in text  # half a surrogate pair cannot be written otherwise
        return (json.dumps(changed, ensure_ascii=escaped), found) if found else (text, found)
    except (ValueError, RecursionError):
        return scrub(text)


def _turn(turn: Record, found: Counter[str]) -> Record:
    changed = turn | {"content": _text(turn["content"], found)}
    if turn.get("thought"):
        changed["thought"] = _text(turn["thought"], found)
    if turn.get("tool_calls"):
        changed["tool_calls"] = [call | {"arguments": _json(call["arguments"], found)} for call in turn["tool_calls"]]
    return changed


def _text(text: str, found: Counter[str]) -> str:
    clean, replaced = scrub(text)
    found.update(replaced)
    return clean


def _json(text: str, found: Counter[str]) -> str:
    clean, replaced = scrub_json(text)
    found.update(replaced)
    return clean


def _value(value: Any, found: Counter[str]) -> Any:
    if isinstance(value, str):
        return _text(value, found)
    if isinstance(value, int) and not isinstance(value, bool):
        clean = _text(str(value), found)
        return value if clean == str(value) else clean
    if isinstance(value, list):
        return [_value(item, found) for item in value]
    if isinstance(value, dict):
        changed: dict[str, Any] = {}
        for name, item in value.items():
            clean = _text(name, found)
            changed[f"{clean} {len(changed)}" if clean in changed else clean] = _value(item, found)
        return changed
    return value
