"""Which GPUs of this host a stage runs on: slots of a limit on the Prefect server say how many, a
file lock per device says which.
"""

import os
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows.pipeline import Stage
from stages.common.runtime import locks
from stages.common.runtime.errors import ParamsError, TryAgainError

LOOK_SECONDS = 1.0
WAIT_SECONDS, LEASE_SECONDS = 30.0, 60.0
SLOTS = f"gpu:{socket.gethostname()}"


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
    folder = Path(tempfile.gettempdir()) / f"lathe-gpu-{os.getuid()}"
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
        if cancel.wait(LOOK_SECONDS):
            raise TryAgainError("cancelled while waiting for a GPU", where=folder)


def reserve(stages: list[Stage]) -> list[str]:
    """Return this host's GPUs, declared as slots to the server; none are looked for when no stage
    wants one.

    Raises ParamsError when a stage wants more than there are.
    """
    greediest = max(stages, key=lambda stage: stage.gpus, default=None)
    if greediest is None or greediest.gpus == 0:
        return []
    gpus = visible()
    if greediest.gpus > len(gpus):
        what = f"stage '{greediest.name}' wants {greediest.gpus} GPUs, {socket.gethostname()} has {len(gpus)}"
        raise ParamsError(what, where="params.yaml", remedy="lower run.gpus")
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(SLOTS, limit=len(gpus))
    return gpus


@contextmanager
def slots(stage: Stage, cancel: threading.Event) -> Iterator[None]:
    """Hold the stage's GPU slots; a server that is away for a while does not stop the training.

    Raises TimeoutError when `cancel` is set while it waits.
    """
    from prefect.concurrency.sync import concurrency

    with ExitStack() as taken:
        while stage.gpus:
            wanted = concurrency(
                SLOTS,
                occupy=stage.gpus,
                timeout_seconds=WAIT_SECONDS,
                lease_duration=LEASE_SECONDS,
                strict=True,
                raise_on_lease_renewal_failure=False,
            )
            try:
                taken.enter_context(wanted)
                break
            except TimeoutError:
                if cancel.is_set():
                    raise
        yield
