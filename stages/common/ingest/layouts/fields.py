"""The fields of a raw row: taken with their type checked, or the row is refused with a reason."""

import json
from collections.abc import Iterable
from typing import Any

from stages.common.core.records import Record


class Malformed(Exception):
    """A row that cannot become a record: `reason` is one of a few words to count by, `detail` says
    where in the row.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


def string(row: Record, key: str) -> str:
    """Return the text under `key`. Raises Malformed."""
    if not isinstance(row.get(key), str):
        raise Malformed(f"bad {key}", "null" if row.get(key) is None else "not text")
    value: str = row[key]
    return value


def optional_string(row: Record, key: str) -> str | None:
    """Return the text under `key`, or None where there is none. Raises Malformed."""
    return None if row.get(key) is None else string(row, key)


def optional_strings(row: Record, key: str) -> list[str] | None:
    """Return the list of texts under `key`, or None where there is none. Raises Malformed."""
    value = row.get(key)
    if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise Malformed(f"bad {key}", "not a list of texts")
    return value


def first(row: Record, keys: Iterable[str]) -> str | None:
    """Return the first of `keys` under which the row has something, or None."""
    for key in keys:
        if row.get(key) is not None:
            return key
    return None


def as_json(value: Any) -> str:
    """Return `value` as JSON, every character as it is."""
    return json.dumps(value, ensure_ascii=False)
