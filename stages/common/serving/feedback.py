"""What people say of answers: an append-only file of JSON lines, each on the disk before the page thanks for it."""

import fcntl
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.common.errors import DataError
from stages.common.records import Record

BYTES_AT_MOST = 1 << 30
"""Beyond, nothing is taken: a page that is open to many must not fill the disk."""


class Opinion(BaseModel):
    """One line: an answer to a conversation, and whether somebody liked it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    time: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    messages: list[dict[str, str]]
    """The conversation before the answer, each with role and content."""
    response: str
    liked: bool
    model: str
    version: str
    weights_sha256: str
    annotator: str = "page"


def append(file: Path, opinion: Opinion) -> None:
    """Add a line and wait until the disk has it; several processes may write. Raises DataError when it is full."""
    line = (json.dumps(opinion.model_dump(), ensure_ascii=False) + "\n").encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = handle.seek(0, os.SEEK_END)
        if size + len(line) > BYTES_AT_MOST:
            raise DataError("the store of feedback is full", where=file, remedy="move it elsewhere")
        if size and not _ends_whole(file):
            line = b"\n" + line  # a machine that died here left half a line
        handle.write(line)
        handle.flush()
        os.fsync(handle.fileno())


def read(file: Path) -> Iterator[Opinion]:
    """Yield the opinions; a store that does not exist yet has none. Raises DataError with file and line."""
    if not file.exists():
        return
    with file.open(encoding="utf-8") as handle:
        for number, line in enumerate(handle, 1):
            if not line.strip():
                continue
            try:
                content: Any = json.loads(line)
                yield Opinion.model_validate(content)
            except (ValidationError, ValueError) as error:
                what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
                raise DataError(f"not an opinion: {what}", where=f"{file}:{number}", remedy="take it out") from error


def turns(messages: list[Record]) -> list[dict[str, str]]:
    """Return role and content of each message."""
    return [{"role": one["role"], "content": one["content"]} for one in messages]


def _ends_whole(file: Path) -> bool:
    with file.open("rb") as handle:
        handle.seek(-1, os.SEEK_END)
        return handle.read(1) == b"\n"
