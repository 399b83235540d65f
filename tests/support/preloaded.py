"""Processes that start with the slow imports done: forked from a server that has them, and killed
like any other.
"""

import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

MODULES = [
    *("torch", "transformers.trainer", "transformers.models.llama.modeling_llama", "trl", "peft", "datasets"),
    *("mlflow", "mlflow.store.tracking.sqlalchemy_store", "tests.support.preloaded"),
]


def context() -> Any:
    """Return a multiprocessing context; the server is one for the whole session, so everybody asks
    here.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process that has threads cannot be forked
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(MODULES)
    return made


def stage(name: str, arguments: list[str], folder: Path, **environment: str) -> Any:
    """Start a stage's command line in `folder`, as `python -m stages.<name>` would; what it says
    goes to said.log.
    """
    process = context().Process(target=_stage, args=(name, arguments, str(folder), environment))
    process.start()
    return process


def ended(process: Any, seconds: float = 300) -> int | None:
    """Return the exit code, or nothing when the process still runs after `seconds`."""
    process.join(seconds)
    return None if process.exitcode is None else int(process.exitcode)


def _stage(name: str, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    import importlib

    os.chdir(folder)
    for variable in ("MLFLOW_TRACKING_URI", "DVC_STAGE", "LATHE_CRASH_AT"):
        os.environ.pop(variable, None)
    os.environ.update(environment)
    sys.argv = [f"stages.{name}", *arguments]
    with open("said.log", "a") as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
    from stages.common.runtime import process

    process.run(name, importlib.import_module(f"stages.{name}").main)
