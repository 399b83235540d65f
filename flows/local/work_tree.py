"""A git work tree of this project in a folder of its own, with its own DVC cache and MLflow store,
and the pipeline run in it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from stages.common.runtime.errors import DataError, TryAgainError


def git(*arguments: str, given: str | None = None) -> str:
    """Run git and return what it prints. Raises DataError with its last line."""
    done = subprocess.run(["git", *arguments], input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise DataError(f"git {' '.join(arguments[:2])} failed: {said}")
    return done.stdout.strip()


def git_fails(*arguments: str) -> bool:
    """Whether git refuses."""
    return subprocess.run(["git", *arguments], capture_output=True, check=False).returncode != 0


def make(tree: Path, commit: str) -> None:
    """Make `tree` a fresh work tree of `commit`; what stood there is removed."""
    if tree.exists():
        git_fails("worktree", "remove", "--force", str(tree))
        shutil.rmtree(tree, ignore_errors=True)
    git("worktree", "prune")
    git("worktree", "add", "--detach", "--quiet", str(tree), commit)


def repro(tree: Path, stages: Sequence[str]) -> None:
    """Bring stages up to date in `tree`, with its own code, cache and store. Raises
    TryAgainError.
    """
    environment = {
        name: value for name, value in os.environ.items() if name not in ("DVC_STAGE", "MLFLOW_TRACKING_URI")
    }
    environment |= {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": str(tree.absolute()),
        "DVC_NO_ANALYTICS": "1",
    }
    command = [sys.executable, "-m", "dvc", "repro", *stages]
    done = subprocess.run(command, cwd=tree, env=environment, check=False)
    if done.returncode:
        what = f"`dvc repro {' '.join(stages)}` ended with {done.returncode}"
        raise TryAgainError(what, where=tree, remedy="its last line says why; the same command goes on there")
