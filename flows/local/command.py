"""A command as a child of the flow: its output in a file that is followed, its whole tree ended
with it.

The output goes to a file and not to a pipe, so that a child that outlives a killed flow has
somewhere to write. Started as `python -m flows.local.command <command>`, it asks the kernel for
SIGTERM when the flow dies, then becomes the command.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from stages.common.runtime import parent_death, process

POLL_SECONDS = 0.2
TIMED_OUT = 124


def run(
    command: list[str],
    log: Path,
    *,
    follow: Callable[[str], None],
    cancel: threading.Event,
    environment: Mapping[str, str],
    timeout_seconds: float | None = None,
) -> int:
    """Run `command`, hand each line it writes to `follow`, and return its exit code (TIMED_OUT
    after the timeout).

    When `cancel` is set, or the timeout has passed, the whole tree gets SIGTERM and time to save.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("wb") as output, log.open("r", encoding="utf-8", errors="replace") as reader:
        arguments = [sys.executable, "-m", "flows.local.command", *command]
        child = subprocess.Popen(
            arguments, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=dict(environment)
        )
        timed_out = False
        try:
            while child.poll() is None:
                _hand_over(reader, follow)
                timed_out = timeout_seconds is not None and time.monotonic() - started > timeout_seconds
                if timed_out or cancel.wait(POLL_SECONDS):
                    break
        finally:
            end_tree(child)
            _hand_over(reader, follow)
    return TIMED_OUT if timed_out else child.returncode


def end_tree(child: "subprocess.Popen[bytes]") -> None:
    """Ask `child` and all below it to save and leave, kill what hangs; harmless when it has
    ended.
    """
    import psutil

    if child.poll() is not None:
        return
    seconds = process.longest_stop_seconds()
    below = psutil.Process(child.pid).children(recursive=True)
    for signal in ("terminate", "kill"):
        for member in [child, *below]:
            with suppress(psutil.NoSuchProcess):
                getattr(member, signal)()
        _, below = psutil.wait_procs(below, timeout=seconds)
        with suppress(subprocess.TimeoutExpired):
            child.wait(seconds)


def _hand_over(reader: IO[str], follow: Callable[[str], None]) -> None:
    """Hand over the lines that are whole; one still being written waits for the next time."""
    while True:
        place = reader.tell()
        line = reader.readline()
        if not line.endswith("\n"):
            reader.seek(place)
            return
        if line.strip():
            follow(line.rstrip())


if __name__ == "__main__":
    parent_death.die_with_parent()
    os.execvp(sys.argv[1], sys.argv[1:])
