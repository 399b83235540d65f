"""Stores of what people say: JSON lines of one kind, read line by line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from stages.common.runtime.errors import DataError

T = TypeVar("T")


def entries(file: Path, kind: TypeAdapter[T]) -> Iterator[tuple[int, T | str]]:
    """Yield each line's number with what it says, or with what is wrong with it; a store not begun
    yet has none.

    A line ends at a line feed alone: a text may hold the other ends of lines that Unicode knows.
    """
    if not file.exists():
        return
    with file.open("rb") as handle:
        for number, text in enumerate(handle, 1):
            if not text.strip():
                continue
            try:
                yield number, kind.validate_python(json.loads(text))
            except ValidationError as error:
                yield number, str(error.errors()[0]["msg"])
            except (ValueError, RecursionError) as error:
                yield number, str(error)


def read(file: Path, kind: TypeAdapter[T], what: str) -> Iterator[T]:
    """Yield what the lines say. Raises DataError with file and line for one that is not `what`."""
    for number, line in entries(file, kind):
        if isinstance(line, str):
            raise DataError(f"not {what}: {line}", where=f"{file}:{number}", remedy="take it out")
        yield line
