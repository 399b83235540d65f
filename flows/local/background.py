"""A command in the background: it outlives the terminal, its record says which process it is, its
log what it said.
"""

import json
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.runtime import process

if TYPE_CHECKING:
    import psutil


def start(command: list[str], environment: dict[str, str], log: Path, record: Path) -> "subprocess.Popen[bytes]":
    """Start `command` in a session of its own and write down which process it is."""
    import psutil

    for file in (log, record):
        file.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        child = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )
    record.write_text(json.dumps({"pid": child.pid, "created": psutil.Process(child.pid).create_time()}))
    return child


def find(record: Path) -> "psutil.Process | None":
    """Return the recorded process if it still runs; another one that was given its number is not
    it.
    """
    import psutil

    if not record.exists():
        return None
    facts = json.loads(record.read_text())
    try:
        found = psutil.Process(facts["pid"])
        return found if found.is_running() and abs(found.create_time() - facts["created"]) < 1 else None
    except psutil.NoSuchProcess:
        return None


def end(record: Path) -> bool:
    """Ask the recorded process and all below it to save and leave, kill what hangs.

    Returns False when it did not run.
    """
    import psutil

    top = find(record)
    if top is None:
        return False
    tree = [top, *top.children(recursive=True)]
    seconds = process.longest_stop_seconds()
    for signal in ("terminate", "kill"):
        for member in tree:
            with suppress(psutil.NoSuchProcess):
                getattr(member, signal)()
        _, tree = psutil.wait_procs(tree, timeout=seconds)
    record.unlink()
    return True


def last_line(log: Path) -> str:
    """Return the last line of `log` that says something."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
