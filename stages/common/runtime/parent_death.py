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
from typing import TYPE_CHECKING

from stages.common.runtime import errors

if TYPE_CHECKING:
    import psutil

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.5


def die_with_parent() -> None:
    """Ask for SIGTERM when the parent, or the DVC above it, dies."""
    parent = os.getppid()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(errors.EXIT_STOPPED)
    if "DVC_STAGE" in os.environ:
        threading.Thread(target=_watch, name="parent", daemon=True).start()


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
