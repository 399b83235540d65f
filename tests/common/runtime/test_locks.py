"""Locks: one holder, named to the others, free again however it ends, and never kept by its
children.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from stages.common.runtime import locks
from stages.common.runtime.errors import EXIT_RUNNING, AlreadyRunningError
from tests.support.counts import times

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]
SPAWNED = get_context("forkserver")


def hold(lock: Path, children: str, said: Connection) -> None:
    """Hold `lock` with a live child of a kind, tell the child's id, and wait to be killed."""
    with locks.exclusive(lock):
        child = 0
        if children == "forked":
            if os.fork():
                time.sleep(300)
            child = os.getpid()
        elif children:
            child = subprocess.Popen(["sleep", "300"], close_fds=children == "executed").pid
        said.send(child)
        time.sleep(300)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "lock"


def started(lock: Path, children: str = "") -> tuple[Any, int]:
    """Start a holder of `lock`; return it and its child's id."""
    ours, theirs = SPAWNED.Pipe()
    process = SPAWNED.Process(target=hold, args=(lock, children, theirs))
    process.start()
    return process, ours.recv()


@pytest.fixture
def holder(lock: Path) -> Iterator[Any]:
    process, _ = started(lock)
    yield process
    process.kill()
    process.join()


def test_the_second_taker_is_told_the_process(lock: Path, holder: Any) -> None:
    with pytest.raises(AlreadyRunningError) as refused, locks.exclusive(lock):
        pass
    assert str(refused.value) == f"{lock}: already running as process {holder.pid}; wait for it, or: kill {holder.pid}"
    assert refused.value.code == EXIT_RUNNING
    with locks.attempt(lock) as ours:
        assert not ours
    assert lock.read_text() == str(holder.pid)


def test_who_waits_is_told_the_process_and_gets_the_lock_when_it_ends(lock: Path, holder: Any) -> None:
    told: list[str] = []

    def kill(process: str) -> None:
        told.append(process)
        threading.Timer(0.2, holder.kill).start()

    with locks.waiting(lock, kill):
        assert lock.read_text() == str(os.getpid())
    assert told == [str(holder.pid)]


@pytest.mark.parametrize("children", ["", "executed", "executed with our files", "forked"])
def test_kill_frees_the_lock_and_no_child_keeps_it(lock: Path, children: str) -> None:
    for _ in range(times(5, 200)):
        process, child = started(lock, children)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        try:
            with locks.exclusive(lock):
                assert lock.read_text() == str(os.getpid())
            if child:
                os.kill(child, 0)
        finally:
            if child:
                os.kill(child, signal.SIGKILL)


def test_a_forked_child_has_nothing_in_the_place_of_the_file(lock: Path) -> None:
    with locks.exclusive(lock), lock.open("a+b") as other:
        (descriptor,) = locks._held
        child = os.fork()
        if child == 0:
            wrote = os.read(descriptor, 10)
            try:
                os.write(descriptor, b"child")
            except OSError:
                os._exit(len(wrote) if os.fstat(other.fileno()).st_ino == os.stat(lock).st_ino else 3)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with locks.attempt(lock) as ours:
            assert not ours, "the child's end freed the parent's lock"
    assert locks._held == set()


def append(file: Path, lines: int) -> None:
    for number in range(lines):
        with file.open("ab") as handle, locks.writing(handle.fileno()):
            handle.write(f"{os.getpid()} ".encode())
            handle.flush()
            time.sleep(0.001)
            handle.write(f"{number}\n".encode())
            handle.flush()


def test_lines_of_several_writers_stay_whole(tmp_path: Path) -> None:
    writers = [SPAWNED.Process(target=append, args=(tmp_path / "lines", 50)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = (tmp_path / "lines").read_text().splitlines()
    assert sorted(lines) == sorted(f"{writer.pid} {number}" for writer in writers for number in range(50))


def test_a_signal_ends_the_wait_and_leaves_nothing_held(lock: Path, holder: Any) -> None:
    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt), locks.waiting(lock):
            pass
    finally:
        signal.signal(signal.SIGALRM, before)
    assert locks._held == set()
