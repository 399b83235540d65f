"""What a checkout keeps and no longer needs: checkpoints of other params, data or code, trained
tokens, evaluations of former champions, work trees, copies of released models, and DVC's cache.

Command: python -m flows.cli.clean_up [--keep 1] [--remove]; without --remove it only says what it
would do. `make gc`, `make gc REMOVE=1`
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from stages.common.core import checkpoints
from stages.common.release import artifacts, champion_evaluation
from stages.common.runtime import disk_space, locks
from stages.common.tracking import event_log
from stages.common.tracking.forwarder import REPLAY
from stages.common.training import token_cache

WORK_TREES = (Path(".lathe/reproduce"), Path(".lathe/experiments"))
DAYS = 7.0
"""What others may be at work on, or will want again soon, is younger."""
DVC = ("gc", "--workspace", "--all-branches", "--all-tags", "--all-experiments", "--force")


@dataclass(frozen=True)
class Leftover:
    """A folder that may go, and why."""

    path: Path
    why: str
    size: int


def leftovers(keep: int, days: float, now: float) -> Iterator[Leftover]:
    """Yield what may go, of what nobody has touched for `days`: of each stage's checkpoints all but
    the `keep` newest trainings, and the rest. What a live process holds stays.
    """
    tokens = checkpoints.ROOT / token_cache.FOLDER
    for stage in sorted(path for path in checkpoints.ROOT.glob("*") if path.is_dir() and path != tokens):
        trainings = sorted((path for path in stage.iterdir() if path.is_dir()), key=_touched, reverse=True)
        for training in trainings[keep:]:
            if now - _touched(training) > days * 86_400 and not _held(training):
                yield _leftover(training, "a training of other params, data or code")
    old = [(tokens, "tokens, made again where they are wanted"), (artifacts.CACHE, "a copy of a released model")]
    old += [(champion_evaluation.KEPT, "an evaluation that is made again where it is wanted")]
    old += [(folder, "a work tree of an earlier run") for folder in WORK_TREES]
    for folder, why in old:
        for path in sorted(folder.glob("*")):
            if path.is_dir() and now - _touched(path) > days * 86_400:
                yield _leftover(path, why)


def _leftover(path: Path, why: str) -> Leftover:
    return Leftover(path, why, disk_space.size(path))


def _touched(path: Path) -> float:
    """Return when anything in a folder was last written or read by name."""
    return max(item.stat().st_mtime for item in [path, *path.iterdir()])


def _held(training: Path) -> bool:
    lock = training / "lock"
    if not lock.exists():
        return False
    with locks.attempt(lock) as free:
        return not free


def dvc(*, remove: bool) -> str:
    """Return what `dvc gc` says; it keeps what workspace, branches, tags and experiments use."""
    command = [sys.executable, "-m", "dvc", *DVC, *([] if remove else ["--dry"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return said[-1] if said else "without a word"


def main(
    keep: Annotated[int, typer.Option(min=1, help="trainings of each stage that stay")] = 1,
    days: Annotated[float, typer.Option(min=0, help="what was touched since stays")] = DAYS,
    remove: Annotated[bool, typer.Option("--remove", help="do it")] = False,
) -> None:
    """Say what may go, and remove it where that is asked for."""
    found = list(leftovers(keep, days, time.time()))
    for one in found:
        print(f"{'removed' if remove else 'would go':8}  {one.size / 2**20:9,.1f} MiB  {one.path}: {one.why}")
        if remove:
            shutil.rmtree(one.path)
    total = sum(one.size for one in found) / 2**20
    print(f"lathe: {len(found)} folders, {total:,.1f} MiB{'' if remove else '; to remove them: make gc REMOVE=1'}")
    waiting = len(list(event_log.FOLDER.glob("*.jsonl")))
    if waiting:
        print(
            f"lathe: {waiting} runs wait in {event_log.FOLDER} for the MLflow store, and stay; to send them: {REPLAY}"
        )
    print(f"lathe: dvc gc: {dvc(remove=remove)}")


if __name__ == "__main__":
    typer.run(main)
