"""Room on the disk: looked for before something large is written; where it runs out in the middle,
nothing torn stays.

Whatever a library makes of "no space left" (an OSError, an error of Rust's safetensors, a text) is
recognised here.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.common.runtime.errors import TryAgainError

MEBIBYTE = 2**20
FULL = (errno.ENOSPC, errno.EDQUOT)
SAYS_FULL = ("no space left on device", "disk quota exceeded")


@contextmanager
def made(temporary: Path, expected: int) -> Iterator[None]:
    """Clear what a killed write left at `temporary`, and hold it to `expected` bytes of room while
    the body fills it.

    Raises TryAgainError with what is needed, where, and what is free: before the body, or when the
    disk fills up in it. Then the folder is cleared again, or its half would take the room that the
    next attempt needs.
    """
    shutil.rmtree(temporary, ignore_errors=True)
    check(temporary.parent, expected)
    with told(temporary, expected):
        yield


@contextmanager
def told(temporary: Path, expected: int) -> Iterator[None]:
    """Raise TryAgainError as `made` does when the disk fills up in the body."""
    try:
        yield
    except Exception as error:
        left, written = free(temporary.parent), size(temporary)
        if not is_full(error) and left >= expected - written:  # torch.save says "unexpected pos 64 vs 0"
            raise
        expected = max(expected, written + 1)
        shutil.rmtree(temporary, ignore_errors=True)
        raise TryAgainError(_what(expected, left), where=temporary.parent, remedy=_remedy(expected)) from error


def check(folder: Path, expected: int) -> None:
    """Raise TryAgainError when the file system of `folder` has less than `expected` bytes free."""
    left = free(folder)
    if left < expected:
        raise TryAgainError(_what(expected, left), where=folder, remedy=_remedy(expected))


def free(folder: Path) -> int:
    """Return the bytes that are free where `folder` is, or will be."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def size(folder: Path) -> int:
    """Return the bytes of all files under `folder`; of a folder that is not there, none."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def is_full(error: BaseException) -> bool:
    """Whether an exception, or what it was raised from, says that the disk or the quota is full."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in FULL:
            return True
        if any(text in str(seen).lower() for text in SAYS_FULL):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _what(expected: int, left: int) -> str:
    return f"no room on the disk: {_mib(expected)} MiB are needed, {left / MEBIBYTE:.1f} MiB are free"


def _remedy(expected: int) -> str:
    return f"free {_mib(expected)} MiB; what was saved before is whole"


def _mib(count: int) -> str:
    return f"{count / MEBIBYTE + 0.05:.1f}"
