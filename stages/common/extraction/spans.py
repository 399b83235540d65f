"""A reply's values and the spans they come from: found in the passage word for word, or told as
missing.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from stages.common.extraction.schemas import SPAN, VALUE, Wanted
from stages.common.text.normalisation import key

GONE: Any = object()
"""Stands for a value whose span is not there."""


class Value(NamedTuple):
    """A value, where it stands in its record (`people/0`), and the span of the passage that it
    comes from.
    """

    path: str
    value: Any
    span: str
    start: int
    end: int
    is_in_span: bool
    """Whether the span says the value itself; true of what is no text or number."""


class Fault(NamedTuple):
    """A value, or a whole record, that is put aside."""

    reason: str
    detail: str
    raw: Any


class Found(NamedTuple):
    """A record whose values all have their spans."""

    record: dict[str, Any]
    values: list[Value]


def read(text: str, passage: str, wanted: Wanted, cut: bool = False) -> Iterator[Found | Fault]:
    """Yield the records of a reply, and what of it is put aside, with the reason: `cut`,
    `not_json`, `schema`, `span_missing`, `repeated`.
    """
    try:
        said = json.loads(text)
        proposed = said["records"]
        if not isinstance(proposed, list):
            raise TypeError("'records' is no list")
        json.dumps(proposed, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raw = text.encode("utf-8", "backslashreplace").decode()
        yield Fault("cut" if cut else "not_json", f"{type(error).__name__}: {error}"[:300], raw)
        return
    seen: set[str] = set()
    for one in proposed:
        if wrong := wanted.faults(one, with_spans=True):
            yield Fault("schema", wrong, one)
            continue
        faults: list[Fault] = []
        values: list[Value] = []
        record = _unwrapped(one, "", passage, wanted, values, faults)
        yield from faults
        wrong = "nothing is left of it" if record is GONE or record == {} else wanted.faults(record)
        content = json.dumps(record, sort_keys=True, ensure_ascii=False) if not wrong else ""
        if wrong:
            reason = "span_missing" if faults else "schema"
            yield Fault(reason, f"the whole record: {wrong}", one)
        elif content in seen:
            yield Fault("repeated", "the record stands in this reply already", one)
        else:
            seen.add(content)
            yield Found(record, values)


def wrapped(record: Any, values: list[Value]) -> Any:
    """Return the record as a reply gives it: each value beside its span."""
    spans = {one.path: one.span for one in values}

    def build(node: Any, path: str) -> Any:
        if path in spans:
            return {SPAN: spans[path], VALUE: node}
        if isinstance(node, dict):
            return {name: build(one, _below(path, name)) for name, one in node.items()}
        if isinstance(node, list):
            return [build(one, _below(path, at)) for at, one in enumerate(node)]
        return node

    return build(record, "")


def as_json(values: list[Value]) -> str:
    """Return values as they are kept in a table."""
    return json.dumps([list(one) for one in values], ensure_ascii=False)


def from_json(text: str) -> list[Value]:
    """Return the values that `as_json` wrote."""
    return [Value(*one) for one in json.loads(text)]


def _unwrapped(node: Any, path: str, passage: str, wanted: Wanted, values: list[Value], faults: list[Fault]) -> Any:
    """Return the plain value; of a list or an object, without what has no span in the passage."""
    if isinstance(node, Mapping) and set(node) == {SPAN, VALUE} and isinstance(node[SPAN], str):
        span, value = node[SPAN], node[VALUE]
        start = passage.find(span) if span else -1
        if start < 0:
            faults.append(Fault("span_missing", f"{path}: the document does not say {span[:200]!r}", node))
            return GONE
        says = path.rpartition("/")[2] in wanted.own_words or _says(span, value)
        values.append(Value(path, value, span, start, start + len(span), says))
        return value
    if isinstance(node, Mapping):
        inner = {
            name: _unwrapped(one, _below(path, name), passage, wanted, values, faults) for name, one in node.items()
        }
        return {name: one for name, one in inner.items() if one is not GONE}
    if isinstance(node, list):
        kept: list[Any] = []
        for one in node:  # an item's path is where it stands once the missing ones are gone
            item = _unwrapped(one, _below(path, len(kept)), passage, wanted, values, faults)
            kept += [] if item is GONE else [item]
        return kept
    return node


def _below(path: str, name: Any) -> str:
    return f"{path}/{name}" if path else str(name)


def _says(span: str, value: Any) -> bool:
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, int | float):
        return f"{value:g}" in span.replace(",", "")
    return key(str(value)).rstrip(".。!！?？") in key(span)
