"""Which GPUs of this host a stage runs on: the server's slots say how many, a file lock per device
says which.
"""

import getpass
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from stages.common.runtime import locks
from stages.common.runtime.errors import TryAgainError

WAIT_SECONDS = 1.0


def visible() -> list[str]:
    """Return the devices this process may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


@contextmanager
def held(count: int, devices: Sequence[str], cancel: threading.Event) -> Iterator[list[str]]:
    """Hold `count` of `devices`, free again however this process ends; waits until so many are
    free.

    Raises TryAgainError when `cancel` is set meanwhile.
    """
    if count == 0:
        yield []
        return
    folder = Path(tempfile.gettempdir()) / f"lathe-gpu-{getpass.getuser()}"
    folder.mkdir(exist_ok=True)
    while True:
        with ExitStack() as stack:
            taken: list[str] = []
            for name in devices:
                if len(taken) < count and stack.enter_context(locks.attempt(folder / f"{name}.lock")):
                    taken.append(name)
            if len(taken) == count:
                yield taken
                return
        if cancel.wait(WAIT_SECONDS):
            raise TryAgainError("cancelled while waiting for a GPU", where=folder)
