"""A stage dies with the `dvc` that started it, however many shells and launchers stand between
them.

The kernel tells a child only of its own parent's death, and a shell (`sh -c`, which DVC starts)
outlives DVC quietly.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from stages.common.runtime import errors

if TYPE_CHECKING:
    import psutil

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.5


REQUESTS = {
    signal.SIGINT: "on request (SIGINT, as Ctrl-C sends)",
    signal.SIGTERM: "on request (SIGTERM)",
    signal.SIGHUP: "because its terminal was closed (SIGHUP); started with nohup it lives on",
}

requested: list[int] = []
"""The signals that asked this process to stop, the first one first."""
_parent: tuple[int, str] = (0, "")


def die_with_parent(unless_nohup: bool = False) -> None:
    """Ask for SIGTERM when the parent, or the DVC above it, dies. `unless_nohup`: not where nohup
    started it.
    """
    global _parent
    if unless_nohup and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        return
    parent = os.getppid()
    _parent = parent, _name(parent)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(errors.EXIT_STOPPED)
    if "DVC_STAGE" in os.environ:
        threading.Thread(target=_watch, name="parent", daemon=True).start()


def ended() -> str:
    """Return which parent has ended since `die_with_parent`, "" while it lives."""
    number, name = _parent
    return f"{name}, process {number}" if number and os.getppid() != number else ""


def why() -> str:
    """Return what ended this process."""
    parent = ended()
    if parent and requested[:1] != [signal.SIGINT]:
        hint = "" if "DVC_STAGE" in os.environ else "; started with nohup it lives on"
        return f"because its parent ended ({parent}){hint}"
    return REQUESTS[signal.Signals(requested[0])] if requested else "on request"


def on_hangup(number: int, frame: Any) -> None:
    """Go on as at SIGTERM, which a server handles in its own way."""
    requested.append(number)
    os.kill(os.getpid(), signal.SIGTERM)


def _name(number: int) -> str:
    import psutil

    try:
        return str(psutil.Process(number).name())
    except psutil.Error:
        return "unknown"


def _watch() -> None:
    """Send this process SIGTERM once one of the processes between it and DVC, or DVC itself, has
    ended.
    """
    above = _up_to_dvc()
    while all(_alive(process) for process in above):
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _alive(process: "psutil.Process") -> bool:
    """Whether a process runs; one that has ended and is not yet asked for its exit code
    does not.
    """
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _up_to_dvc() -> list["psutil.Process"]:
    """Return the ancestors that carry our DVC_STAGE, and the next one above them, which gave it:
    DVC.
    """
    import psutil

    above: list[psutil.Process] = []
    for ancestor in psutil.Process().parents():
        above.append(ancestor)
        try:
            if ancestor.environ().get("DVC_STAGE") != os.environ["DVC_STAGE"]:
                break
        except psutil.Error:
            break
    return above
