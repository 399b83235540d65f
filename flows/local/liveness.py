"""Which flow runs of this checkout live: each holds a lock of its name, which the kernel frees
however its process ends. A run that the server believes to be at work and that nobody holds has
crashed.

Command, for the supervisor: python -m flows.local.liveness
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from stages.common.runtime import locks

FOLDER = Path(".lathe/flows")
GONE = "its process is gone; run it again to go on"
AT_WORK = ("RUNNING", "PENDING", "PAUSED", "CANCELLING")


@contextmanager
def held(flow_run: str) -> Iterator[None]:
    """Hold the run's lock while the body works."""
    lock = FOLDER / f"{flow_run}.lock"
    with locks.waiting(lock):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def dead() -> list[Path]:
    """Return the locks that no live process holds."""
    return [lock for lock in sorted(FOLDER.glob("*.lock")) if _is_free(lock)]


def _is_free(lock: Path) -> bool:
    with locks.attempt(lock) as free:
        return free


def end_the_dead() -> list[str]:
    """Tell the server which runs of this checkout have crashed, or are cancelled by now; return
    their names. A server that is away is told at the next time.
    """
    locks_left = dead()
    if not locks_left:
        return []
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import State
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Cancelled, Crashed

    ended = []
    with get_client(sync_client=True) as client:
        for lock in locks_left:
            try:
                run = client.read_flow_run(UUID(lock.stem))
            except (ObjectNotFound, ValueError):  # of another server, or of none
                lock.unlink(missing_ok=True)
                continue
            if run.state and run.state.type.value in AT_WORK and _is_free(lock):  # one just begun has it by now
                cancelling = run.state.type.value == "CANCELLING"
                state: State[None] = Cancelled() if cancelling else Crashed(message=GONE)
                client.set_flow_run_state(run.id, state, force=True)
                print(f"lathe: run {run.name} was left by its process: now {state.name}", file=sys.stderr, flush=True)
                ended.append(run.name)
            lock.unlink(missing_ok=True)
    return ended


if __name__ == "__main__":
    end_the_dead()
