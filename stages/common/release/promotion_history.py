"""The history of a registry's aliases, which MLflow does not keep: one line a change, appended and
never rewritten.

A line says who, when, what (`promoted`, `refused`, `pending`, `approved`, `rejected`, `rolled
back`, `moved by hand`, and of a challenger in traffic `set as challenger`, `challenges`, `won`,
`sent back`, `not shown better`), why, and from which version to which. A line torn by a crash or a
full disk is passed over with a warning.
"""

import getpass
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from stages.common.runtime import locks
from stages.common.runtime.logs import log

HISTORY = Path(".lathe/promotions.jsonl")
CIRCUMSTANCES = frozenset({"time", "who"})


def who() -> str:
    """Return who acts: user@host."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def append(facts: dict[str, Any], *, by: str = "") -> bool:
    """Append `facts` with time and person, on the disk when this returns; return whether a line was
    written.

    None is when the last line of the same version says it already: what a killed call had written,
    the next call does not repeat. Raises OSError when the disk does not take it.
    """
    HISTORY.parent.mkdir(parents=True, exist_ok=True)
    with HISTORY.open("a+b") as handle, locks.writing(handle.fileno()):
        handle.seek(0)
        whole = handle.read()
        if _told(_newest(_lines(whole), facts["name"], facts["version"])) == facts:
            return False
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "who": by or who()} | facts
        torn = b"\n" if whole and not whole.endswith(b"\n") else b""
        handle.write(torn + json.dumps(line, ensure_ascii=False).encode() + b"\n")
        handle.flush()
        os.fsync(handle.fileno())
    return True


def read() -> list[dict[str, Any]]:
    """Return every whole line, oldest first."""
    return _lines(HISTORY.read_bytes()) if HISTORY.exists() else []


def last(name: str, version: str) -> dict[str, Any]:
    """Return the newest line about a version, empty when there is none."""
    return _newest(read(), name, version)


def _newest(lines: list[dict[str, Any]], name: str, version: str) -> dict[str, Any]:
    same = [line for line in lines if (line.get("name"), line.get("version")) == (name, version)]
    return same[-1] if same else {}


def _told(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in CIRCUMSTANCES}


def _lines(whole: bytes) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(whole.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            log.warning("%s:%d is torn and passed over: %s", HISTORY, number, error)
    return found
