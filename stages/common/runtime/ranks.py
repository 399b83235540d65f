"""The processes of one stage: a launcher starts the same command several times, and each takes its
share of the work.

Work is cut into pieces that do not depend on the number of processes. One process does a piece
whole, and all get the results in the order of the pieces: they are those of one process, to the
bit, however a batch rounds.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

from stages.common.runtime import process
from stages.common.runtime.errors import StageError, StopRequested, TryAgainError

LONGEST_WAIT = timedelta(days=7)
"""How long a process waits for the others' pieces. One that has ended is noticed at once."""
P = TypeVar("P")
R = TypeVar("R")


def count() -> int:
    """Return the number of processes that the launcher started; it tells each its place on the
    machine, which a cluster that only counts its jobs does not.
    """
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def device() -> str:
    """Return the device of this process: the GPU that accelerate has chosen for it, else the
    CPU.
    """
    if count() > 1:
        return str(_joined().device)
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def shared(pieces: Iterable[P], do: Callable[[Iterator[P]], Iterable[R]]) -> list[R]:
    """Return the result of every piece, in order, in every process.

    Every process calls this with the same pieces; `do` gets those of this process and gives a
    result for each. What one process raises, all raise. Raises TryAgainError when another process
    has ended.
    """
    if count() == 1:
        return list(do(iter(pieces)))
    rank = _joined().process_index
    parts = _gathered(lambda: list(do(islice(pieces, rank, None, count()))))
    return [parts[at % count()][at // count()] for at in range(sum(map(len, parts)))]


def once(work: Callable[[], R]) -> R:
    """Return in every process what `work` returns in the main one, which alone does it; raises as
    `shared` does.
    """
    if count() == 1:
        return work()
    found: list[Any] = _gathered(lambda: work() if process.is_main_process() else None)
    main: R = found[0]
    return main


def _joined() -> Any:
    """Return accelerate's state of this process, which has a device and knows the others then.

    A trainer's arguments make that state by their own; it is taken as it is.
    """
    import torch
    from accelerate import PartialState

    if not PartialState._shared_state:
        backend = {} if torch.cuda.is_available() else {"cpu": True, "backend": "gloo"}
        PartialState(timeout=LONGEST_WAIT, **backend)
    return PartialState()


def _gathered(work: Callable[[], R]) -> list[R]:
    """Return what `work` returns in each process."""
    from accelerate.utils import gather_object

    _joined()
    failed: Exception | None = None
    found = None
    try:
        found = work()
    except Exception as error:  # raised again, here and in the other processes
        failed = error
    try:
        parts = gather_object([(found, _sendable(failed))])
    except RuntimeError as error:
        if process.stop_requested():
            raise StopRequested from error
        raise failed or TryAgainError("another process of this stage has ended") from error
    if failed is not None:
        raise failed
    for _, wrong in parts:
        if wrong is not None:
            raise wrong
    return [one for one, _ in parts]


def _sendable(error: Exception | None) -> Exception | None:
    """Return an error in a form that another process can read."""
    if error is None or isinstance(error, StageError):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")
