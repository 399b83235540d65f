"""The process contract: one writer a stage, dies with its parent, saves on SIGTERM, own log file,
says what failed.

Every stage file ends with `process.run("name", main)`. Exit codes are in `errors.py`.
"""

import atexit
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from stages.common.runtime import disk_space, environment, errors, libraries, locks, logs, parent_death

PARAMS_FILE = Path("params.yaml")
GRACE_SECONDS = 25.0
RESTARTS = 4
"""Most restarts of the grace after one request: an epoch's model and a checkpoint, each written and
then hashed.
"""

_stop = threading.Event()
_grace = GRACE_SECONDS
_watchdog: threading.Timer | None = None
_restarts = 0
_graceful = False
_owner = 0
continuation: list[str] = []


def run(stage: str, *mains: Callable[..., Any], again: str = "") -> None:
    """Parse the command line into a main's arguments and run it under the contract; never returns.

    Several mains are commands of their names. `DVC_STAGE` (set by DVC, `evaluate@sft` for an item
    of a foreach) names lock and log; `stage` when run by hand. `again` is the command that
    continues, without its arguments, for what is not in dvc.yaml; nohup lets that outlive its
    parent. `--metrics` names a file for what `logs.report` got.
    """
    import typer

    name = os.environ.get("DVC_STAGE", stage)
    environment.complete()
    libraries.quiet()
    parent_death.die_with_parent(unless_nohup=bool(again))
    install_signal_handlers()
    about = sys.modules[mains[0].__module__].__doc__
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, help=about)
    for main in mains:
        app.command(help=about if len(mains) == 1 else main.__doc__)(main)
    continuation[:] = [shlex.join([*again.split(), *sys.argv[1:]]) if again else f"dvc repro {name}"]
    started, given = process_start(), sys.argv[1:]
    code = _guarded(name, logs.comparing(lambda: app(standalone_mode=False), is_main_process()))
    if is_main_process() and code != errors.EXIT_RUNNING:
        logs.write_execution(name, started, code)
        logs.with_suppressed_io(lambda: logs.reports(given, code))
    leave(code)


def leave(code: int) -> NoReturn:
    """End the process with its exit handlers run, but without taking down what threads run on.

    A library's thread that woke up in that moment has aborted the process (SIGABRT, "GIL is
    released"), and with it the exit code that says whether to resume.
    """
    logging.shutdown()
    atexit._run_exitfuncs()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def process_start() -> float:
    """Return when this process began, in seconds since the epoch: imports count too."""
    import psutil

    return float(psutil.Process().create_time())


def _guarded(name: str, work: Callable[[], Any]) -> int:
    """Run `work` with lock and log, and return the exit code; a failure is one line on stderr."""
    from typer.exceptions import TyperException

    global _grace
    try:
        _grace = grace_seconds()
        if set(sys.argv[1:]) & {"--help"}:
            work()
            return errors.EXIT_DONE
        with locked(name), logs.own_log(name, is_main_process()):
            try:
                result = work()
                return result if isinstance(result, int) else errors.EXIT_DONE
            except Exception:  # raised again: here only the traceback goes to the log
                logs.log.debug("traceback", exc_info=True)
                raise
    except errors.StopRequested:
        return _fail(name, f"stopped {parent_death.why()}, everything up to here is saved", errors.EXIT_STOPPED)
    except errors.StageError as error:
        return _fail(name, str(error), error.code)
    except TyperException as error:
        return _fail(
            name, f"{error.format_message()}; see python -m stages.{name.split('@')[0]} --help", errors.EXIT_PARAMS
        )
    except MemoryError:
        return _fail(name, "out of memory; lower the batch size", errors.EXIT_MEMORY)
    except Exception as error:  # the boundary: whatever it is, the user gets one line and the log the traceback
        if "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower():
            return _fail(name, "out of memory; lower the batch size", errors.EXIT_MEMORY)
        if disk_space.is_full(error):
            place = Path(getattr(error, "filename", None) or Path.cwd())
            left = f"{disk_space.free(place) / disk_space.MEBIBYTE:.1f} MiB are free"
            return _fail(name, f"{place}: no space left on the disk, {left}; free some", errors.EXIT_AGAIN)
        return _fail(name, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", 1)


def _fail(name: str, what: str, code: int) -> int:
    ended = "stopped" if code == errors.EXIT_STOPPED else "failed"
    line = f"lathe: {name} {ended} ({code}): {what}; then continue with: {continuation[0]}"
    line += f"  (log: {logs.log_file(name)})"
    print(line, file=sys.stderr, flush=True)
    logs.with_suppressed_io(lambda: logs.append(name, line))
    return code


@cache
def threads() -> int:
    """Return how many threads torch had when first asked: who changes the number later changes it
    for the process.
    """
    import torch

    return torch.get_num_threads()


def is_main_process() -> bool:
    """Whether this is rank 0 (or the only process) of the stage."""
    return os.environ.get("RANK", "0") == "0"


def grace_seconds(file: Path = PARAMS_FILE) -> float:
    """Return `run.grace_seconds` of params.yaml, GRACE_SECONDS where it says nothing. Raises
    ParamsError.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        section = YAML(typ="safe").load(file.read_text(encoding="utf-8"))["run"]
        value = section.get("grace_seconds", GRACE_SECONDS)
    except (OSError, YAMLError, KeyError, TypeError, AttributeError):
        return GRACE_SECONDS  # who reads a section of the file says what is wrong with it
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < threading.TIMEOUT_MAX:
        raise errors.ParamsError(f"'run.grace_seconds': no number of seconds above 0 (got {value!r})", where=file)
    return float(value)


def longest_stop_seconds() -> float:
    """Return in how many seconds a stage that was asked to stop has left; then it may be killed."""
    try:
        return (1 + RESTARTS) * grace_seconds() + 5
    except errors.ParamsError:  # edited meanwhile; who is to end others must not fail here
        return (1 + RESTARTS) * GRACE_SECONDS + 5


def restart_grace() -> None:
    """Give a stage that was asked to stop its whole grace again: a save has begun, or its files are
    to be hashed.

    Every rank calls it, also those that wait for the one that writes.
    """
    global _restarts
    if _stop.is_set() and _restarts < RESTARTS:
        _restarts += 1
        _arm()


def _arm() -> None:
    global _watchdog
    if _watchdog is not None:
        _watchdog.cancel()
    _watchdog = threading.Timer(_grace, lambda: os._exit(errors.EXIT_STOPPED))
    _watchdog.daemon = True
    _watchdog.start()


def install_signal_handlers() -> None:
    """SIGTERM, SIGINT and a closed terminal mean: save and leave within `run.grace_seconds`; a save
    starts it anew.
    """
    global _owner
    _owner = os.getpid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_signal)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # under nohup it is ignored, and stays so
        signal.signal(signal.SIGHUP, parent_death.on_hangup)


def _on_signal(number: int, frame: Any) -> None:
    if os.getpid() != _owner:  # a forked worker: it has nothing to save, and an exception while it forks is lost
        if number == signal.SIGTERM or not _graceful:
            os._exit(errors.EXIT_STOPPED)
        return  # Ctrl-C reaches a trainer's workers too, and it needs them to end its step
    if _stop.is_set():
        return
    parent_death.requested.append(number)
    _stop.set()
    _arm()
    if not _graceful:
        raise errors.StopRequested


def stop_requested() -> bool:
    """Whether SIGTERM or SIGINT has arrived; a trainer looks after each step."""
    return _stop.is_set()


@contextmanager
def graceful_stop() -> Iterator[None]:
    """Inside, a stop request only sets the flag; the body asks `stop_requested()`, saves and raises
    StopRequested.
    """
    global _graceful
    _graceful = True
    try:
        yield
    finally:
        _graceful = False


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the stage's lock; the kernel frees it however the process ends. Raises
    AlreadyRunningError.
    """
    if not is_main_process():
        yield
        return
    with locks.exclusive(locks.FOLDER / f"{name}.lock"):
        yield
