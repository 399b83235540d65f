"""Locks on files: the kernel frees them however their holder ends, and no child of the holder keeps
them.

A flock belongs to the open file. `exec` closes it (Python's descriptors are close-on-exec), but a
forked child shares it: without `_let_go` a data loader's worker would hold the lock of a stage that
was killed.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from stages.common.runtime.errors import AlreadyRunningError

FOLDER = Path(".lathe/locks")

_held: set[int] = set()


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold the file `lock`, with our process id in it. Raises AlreadyRunningError with the
    holder's.
    """

    def refuse(holder: str) -> None:
        what = f"already running as process {holder}"
        raise AlreadyRunningError(what, where=lock, remedy=f"wait for it, or: kill {holder}")

    with waiting(lock, refuse):
        yield


@contextmanager
def waiting(lock: Path, busy: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the file `lock`, with our process id in it; `busy` gets the holder's before we wait for
    it.
    """
    with _opened(lock) as descriptor:
        if not take(descriptor, wait=False):
            if busy:
                busy(os.pread(descriptor, 32, 0).decode().strip() or "unknown")
            take(descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield


@contextmanager
def attempt(lock: Path) -> Iterator[bool]:
    """Hold the file `lock` if nobody does; yield whether we do."""
    with _opened(lock) as descriptor:
        yield take(descriptor, wait=False)


@contextmanager
def writing(descriptor: int) -> Iterator[None]:
    """Hold an open file that several processes append to; what is written inside is flushed
    inside.
    """
    take(descriptor)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        _held.discard(descriptor)


def take(descriptor: int, *, wait: bool = True) -> bool:
    """Lock an open file and return whether we hold it; `close` is the only way to close it
    afterwards.
    """
    _children_let_go()
    _held.add(descriptor)  # before we hold it: another thread may fork in between
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        _held.discard(descriptor)
        return False
    except BaseException:
        _held.discard(descriptor)
        raise
    return True


def close(descriptor: int) -> None:
    """Close an open file, which frees its lock."""
    _held.discard(descriptor)
    os.close(descriptor)


@contextmanager
def _opened(lock: Path) -> Iterator[int]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield descriptor
    finally:
        close(descriptor)


@cache
def _children_let_go() -> None:
    os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    """In a forked child, put an unreadable nothing in the place of each locked file: its number
    stays taken.
    """
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor in _held:
        os.dup2(nothing, descriptor, inheritable=False)
    _held.clear()
    os.close(nothing)
