"""A checkout as a whole: one flow works in it at a time, DVC is asked once what has changed, and
what others have computed comes from the remote and goes there.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from flows.local import command
from flows.pipeline import Stage
from stages.common.runtime import locks
from stages.common.tracking import lineage

LOCK = locks.FOLDER / "flow.lock"
LOGS = Path("logs/flow")
IN_USE = Path(".dvc/tmp/rwlock")
"""DVC's list of the paths that its processes read and write."""
TORN_SECONDS = 5.0
Tell = Callable[[str], None]


@contextmanager
def alone(tell: Tell) -> Iterator[None]:
    """Hold the checkout; a flow that comes second waits for the first, and says so."""

    def busy(holder: str) -> None:
        tell(f"another flow works in this checkout (process {holder}); waiting until it has ended")

    with locks.waiting(LOCK, busy):
        forget_the_dead(tell)
        yield


def forget_the_dead(tell: Tell) -> None:
    """Remove DVC's list of paths in use where none of its processes lives: their numbers are free,
    or were given to others since (in a container soon), which DVC would wait for without end; or a
    kill has torn the list, which DVC would refuse.
    """
    import psutil

    try:
        written = IN_USE.stat().st_mtime
        listed = json.loads(IN_USE.read_text(encoding="utf-8"))
        readers = [one for some in listed.get("read", {}).values() for one in some]
        numbers = {one["pid"] for one in [*listed.get("write", {}).values(), *readers]}
    except FileNotFoundError:
        return
    except (ValueError, TypeError, AttributeError, KeyError):
        numbers = {os.getpid()} if time.time() - written < TORN_SECONDS else {-1}  # it may be being written
    for number in numbers:
        with suppress(psutil.NoSuchProcess, ValueError):
            if psutil.Process(number).create_time() <= written:
                return
    if numbers and IN_USE.stat().st_mtime == written:
        IN_USE.unlink(missing_ok=True)
        tell(f"removed {IN_USE}: what it lists as at work has ended")


def outdated(stages: Sequence[Stage], environment: Mapping[str, str]) -> set[str]:
    """Return the stages that DVC might not skip: what has changed by its own word, and all that
    depends on it. One call for all; where it cannot say, because another DVC works, all of them.
    """
    whole = [sys.executable, "-m", "dvc", "--wait-for-lock", "status", "--json"]
    done = subprocess.run(whole, env=dict(environment), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        return {stage.name for stage in stages}
    changed = set(json.loads(done.stdout or "{}"))
    for stage in stages:  # parents come first
        if not changed.isdisjoint(stage.parents):
            changed.add(stage.name)
    return changed & {stage.name for stage in stages}


def pull(stages: Sequence[Stage], environment: Mapping[str, str], cancel: threading.Event, tell: Tell) -> bool:
    """Fetch what the remote has of the stages' outs, and its cache of runs; return whether it
    answered. One that is away is no reason to stop: what is missing is computed.
    """
    arguments = ("pull", "--run-cache", "--allow-missing", *(stage.name for stage in stages))
    code = _followed(arguments, "pull", environment, cancel, lambda line: None)
    if code:
        tell(
            f"the remote gave not all of it (dvc pull ended with {code}: {_last('pull')}); what is missing is computed"
        )
    return code == 0


def push(stage: Stage, environment: Mapping[str, str], cancel: threading.Event, tell: Tell) -> None:
    """Hand the stage's outs and its run to the remote, for whoever goes on elsewhere. A remote that
    is away is no failure of the stage.
    """
    log = f"push-{stage.name.replace('/', '_')}"
    code = _followed(("push", "--run-cache", stage.name), log, environment, cancel, lambda line: None)
    if code:
        tell(f"not pushed (dvc push ended with {code}: {_last(log)}); later: dvc push --run-cache {stage.name}")


def commit() -> str:
    """Return the short hash of the commit, with a plus where tracked files differ from it."""
    return lineage.commit()[:7] + ("+" if lineage.is_dirty() else "")


def _followed(
    arguments: Sequence[str], name: str, environment: Mapping[str, str], cancel: threading.Event, follow: Tell
) -> int:
    whole = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    return command.run(whole, LOGS / f"{name}.log", follow=follow, cancel=cancel, environment=environment)


def _last(name: str) -> str:
    text = (LOGS / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    return next(
        (line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "without a word"
    )
