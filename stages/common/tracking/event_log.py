"""A run's events in an append-only file: the local truth, which outlives the process and the
tracking store.

`<id>.jsonl` holds the events, `<id>/` beside it the files they name and `state.json`: how far the
store has them. Whoever holds the lock on the events sends them; the kernel frees it when the
process dies.
"""

import errno
import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.common.runtime import locks
from stages.common.runtime.environment import checkout
from stages.common.runtime.logs import log

Event = dict[str, Any]
FOLDER = Path(".lathe/spool")


class Spool:
    """One run's spool, open and locked by this process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor
        self._lock = threading.Lock()
        self._files = 0
        self.state: dict[str, Any] = self._read_state()

    @property
    def id(self) -> str:
        """The spool's unique id, by which the store recognises a run it has already."""
        return self.path.stem

    @property
    def files(self) -> Path:
        """The folder of the files that belong to the events."""
        return self.path.with_suffix("")

    def append(self, kind: str, **fields: Any) -> None:
        """Write one event as one line. Raises OSError; what was there before stays whole."""
        line = json.dumps({"kind": kind, **fields}, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            end = os.fstat(self._descriptor).st_size
            try:
                written = os.write(self._descriptor, line)
                if written < len(line):
                    raise OSError(errno.ENOSPC, "No space left on device", str(self.path))
            except OSError:
                os.ftruncate(self._descriptor, end)
                raise

    def new_file(self, name: str) -> Path:
        """Return a fresh path beside the events for the file `name`."""
        with self._lock:
            self._files += 1
            folder = self.files / f"{self._files:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def read(self, offset: int, limit: int = 1 << 20) -> Iterator[tuple[Event, int]]:
        """Yield the whole events from byte `offset` on, each with the offset after it; about
        `limit` bytes at most.
        """
        block = os.pread(self._descriptor, limit, offset)
        while block and b"\n" not in block and len(block) == limit:
            limit *= 2
            block = os.pread(self._descriptor, limit, offset)
        for line in block.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                event = json.loads(line)
            except ValueError:
                log.warning("%s: a damaged event was left out", self.path)
                continue
            yield event, offset

    def save_state(self, **changes: Any) -> None:
        """Persist `state` with `changes`, atomically."""
        self.state.update(changes)
        self.files.mkdir(parents=True, exist_ok=True)
        temporary = self.files / "state.tmp"
        temporary.write_text(json.dumps(self.state), encoding="utf-8")
        temporary.replace(self.files / "state.json")

    def remove(self) -> None:
        """Delete the spool, once the store has everything: events first, for they make it a
        spool.
        """
        self.path.unlink(missing_ok=True)
        shutil.rmtree(self.files, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Close the spool and free its lock; harmless when done before."""
        if self._descriptor >= 0:
            locks.close(self._descriptor)
            self._descriptor = -1

    def _read_state(self) -> dict[str, Any]:
        file = self.files / "state.json"
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {"offset": 0}


def create(folder: Path | None = None) -> Spool:
    """Return a new, empty, locked spool; it takes its name only when locked. Raises OSError."""
    folder = folder or checkout() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uuid.uuid4().hex}.jsonl"
    unnamed = path.with_suffix(".new")
    descriptor = os.open(unnamed, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
    locks.take(descriptor)
    unnamed.replace(path)
    return Spool(path, descriptor)


def leftovers(folder: Path | None = None) -> Iterator[Spool]:
    """Yield, oldest first and locked, the spools that no live process holds; the caller removes or
    releases each.
    """
    for path in sorted((folder or checkout() / FOLDER).glob("*.jsonl"), key=_modified):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            continue
        if not locks.take(descriptor, wait=False):
            locks.close(descriptor)
            continue
        if os.fstat(descriptor).st_nlink == 0:  # its sender finished between our open and our lock
            locks.close(descriptor)
            continue
        yield Spool(path, descriptor)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
