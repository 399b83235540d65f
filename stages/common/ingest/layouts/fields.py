"""The fields of a raw row: taken with their type checked, or the row is refused with a reason; what
nobody takes is known at the end.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from stages.common.core.records import Record


class Malformed(Exception):
    """A row that cannot become a record: `reason` is one of a few words to count by, `detail` says
    where in the row.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


class Fields(dict[str, Any]):
    """A row, or an object in it, that remembers which of its keys were taken.

    `row[key]` and `row.get(key)` take; objects taken, alone or in a list, remember in their turn.
    `in`, `peek` and `first` only look.
    """

    def __init__(self, value: Record) -> None:
        super().__init__(value)
        self.taken: set[str] = set()
        self.lost: list[tuple[str, Any]] = []
        self.columns: list[Fields] = []

    def __getitem__(self, key: str) -> Any:
        return self._take(key, super().__getitem__(key))

    def get(self, key: str, default: Any = None) -> Any:
        """Take the value under `key`."""
        return self._take(key, super().get(key, default))

    def _take(self, key: str, value: Any) -> Any:
        if key not in self.taken:
            self.taken.add(key)
            if type(value) is dict:
                value = Fields(value)
                super().__setitem__(key, value)
            elif isinstance(value, list) and any(type(item) is dict for item in value):
                value = [Fields(item) if type(item) is dict else item for item in value]
                super().__setitem__(key, value)
        return value

    def rows(self) -> "list[Fields]":
        """Take lists of one length under all keys as the columns of a table; return its rows.

        Raises Malformed.
        """
        lists = [self[key] for key in self]
        if not lists or not all(isinstance(column, list) and len(column) == len(lists[0]) for column in lists):
            raise Malformed("bad turn", "the turns are an object, and not of lists of one length")
        self.columns = [Fields(dict(zip(self, parts, strict=True))) for parts in zip(*lists, strict=True)]
        return self.columns

    def untaken(self) -> Iterator[tuple[str, Any]]:
        """Yield path (`messages[].name`) and value of what holds something and was not taken."""
        yield from self.lost
        for key, value in self.items():
            if value is None or value == "" or value == [] or value == {}:
                continue
            if key not in self.taken:
                yield key, value
            elif isinstance(value, Fields):
                if value.columns:
                    yield from ((f"{key}[].{path}", left) for row in value.columns for path, left in row.untaken())
                else:
                    yield from ((f"{key}.{path}", left) for path, left in value.untaken())
            elif isinstance(value, list):
                for item in value:
                    if isinstance(item, Fields):
                        yield from ((f"{key}[].{path}", left) for path, left in item.untaken())


def peek(row: Record, key: str) -> Any:
    """Return the value under `key`, or None, without taking it."""
    return dict.get(row, key)


def whole(row: Record, key: str) -> Any:
    """Take the value under `key` with all that is inside."""
    if isinstance(row, Fields):
        row.taken.add(key)
    return dict.get(row, key)


def string(row: Record, key: str) -> str:
    """Return the text under `key`. Raises Malformed."""
    value = row.get(key)
    if not isinstance(value, str):
        raise Malformed(f"bad {key}", "null" if value is None else "not text")
    return value


def optional_string(row: Record, key: str) -> str | None:
    """Return the text under `key`, or None where there is none. Raises Malformed."""
    return None if peek(row, key) is None else string(row, key)


def optional_strings(row: Record, key: str) -> list[str] | None:
    """Return the list of texts under `key`, or None where there is none. Raises Malformed."""
    value = row.get(key)
    if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise Malformed(f"bad {key}", "not a list of texts")
    return value


def first(row: Record, keys: Iterable[str]) -> str | None:
    """Return the first of `keys` under which the row has something, or None."""
    for key in keys:
        if peek(row, key) is not None:
            return key
    return None


def as_json(value: Any) -> str:
    """Return `value` as JSON, every character as it is."""
    return json.dumps(value, ensure_ascii=False)
