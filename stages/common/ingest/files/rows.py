"""One raw row, whatever file it stands in."""

import json
from typing import Any, Literal, NamedTuple

Kind = Literal[
    "text",
    "rows",
    "array",
    "objects",
    "wrapped",
    "table",
    "pairs",
    "cornell",
    "parquet",
    "arrow",
    "dataset",
    "unknown",
]
MEBIBYTE = 1 << 20
ROW_BYTES = 64 * MEBIBYTE


class Row(NamedTuple):
    """A raw row: the 1-based line it starts on, its bytes as UTF-8, and why it cannot be read
    (empty when it can).

    A row of a table comes with its `value`, an object; one from a binary file has no bytes.
    """

    line: int
    data: bytes
    fault: str = ""
    detail: str = ""
    value: dict[str, Any] | None = None

    def text(self) -> str:
        """Return the row for reading; a byte that is no UTF-8 as \\x.., what JSON does not know as
        its text.
        """
        if self.value is not None and not self.data:
            written = json.dumps(self.value, ensure_ascii=False, default=str)
            return written.encode("utf-8", "backslashreplace").decode("utf-8")
        return self.data.decode("utf-8", "backslashreplace")
