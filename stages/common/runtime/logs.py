"""What a stage leaves in logs/: its own log, and how its last execution went; the few figures that
people compare, where its command asks for them (`--metrics`); and the last reports of a stage whose
parameters were wrong.
"""

import json
import logging
import math
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from stages.common.runtime import errors
from stages.common.runtime.whole_files import written_whole

LOGS = Path("logs")
REPORTS, KEPT = Path("reports"), Path(".lathe/reports")
OUTS = frozenset({"--report", "--out", "--metrics", "--curve", "--card", "--tables", "--docs"})
METRICS = "--metrics"
MOST_COMPARED = 20
log = logging.getLogger("lathe")
key_figure: list[str] = []
compared: dict[str, float] = {}
T = TypeVar("T")


def log_file(name: str) -> Path:
    """Return the stage's own log file."""
    return LOGS / f"{name}.log"


@contextmanager
def own_log(name: str, main: bool) -> Iterator[None]:
    """Send `log` and Python warnings to the stage's own file, and what `main` (rank 0) tells to the
    terminal too.

    The log of the execution before stays as `<stage>.previous.log`.
    """
    LOGS.mkdir(exist_ok=True)
    if main and log_file(name).exists():
        log_file(name).replace(LOGS / f"{name}.previous.log")
    logging.captureWarnings(True)
    to_file = logging.FileHandler(log_file(name), mode="w" if main else "a", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_file.setLevel(logging.DEBUG)
    to_screen = logging.StreamHandler(sys.stdout)
    to_screen.setFormatter(logging.Formatter(f"{name}: %(message)s"))
    to_screen.setLevel(logging.INFO if main else logging.ERROR)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    handlers: list[tuple[logging.Logger, logging.Handler]] = [
        (log, to_file),
        (log, to_screen),
        (logging.getLogger("py.warnings"), to_file),
    ]
    for logger, handler in handlers:
        logger.addHandler(handler)
    logging.getLogger("py.warnings").propagate = False
    try:
        yield
    finally:
        for logger, handler in handlers:
            logger.removeHandler(handler)
        to_file.close()


def report(figure: str, metrics: Mapping[str, float | None] | None = None) -> None:
    """Name the one figure of this execution that `make demo`'s closing table and the flow show.

    `metrics` are those that people compare between commits, equal for equal inputs: no time, no
    speed. What is no number is left out; so is what comes after MOST_COMPARED.
    """
    key_figure[:] = [figure]
    known = [(name, value) for name, value in (metrics or {}).items() if value is not None and math.isfinite(value)]
    compared.clear()
    compared.update(known[:MOST_COMPARED])
    log.info(figure)


def comparing(work: Callable[[], T], main: bool) -> Callable[[], T]:
    """Return `work`, followed by writing what it reported to the file after `--metrics` on the
    command line, which is taken off it. A stage that was left out has no figures.
    """
    file = None
    if METRICS in sys.argv[1:-1]:
        place = sys.argv.index(METRICS)
        file = Path(sys.argv[place + 1])
        del sys.argv[place : place + 2]

    def then_written() -> T:
        result = work()
        if file is not None and main:
            file.parent.mkdir(parents=True, exist_ok=True)
            figures = {name: _short(float(value)) for name, value in sorted(compared.items())}
            with written_whole(file) as own:
                own.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        return result

    return then_written


def _short(value: float) -> float:
    return int(value) if value.is_integer() else float(f"{value:.6g}")


def execution(name: str) -> Path:
    """Return the file that says how the stage's last execution went; times live here, never in an
    out.
    """
    return LOGS / f"{name}.json"


def write_execution(name: str, started: float, code: int) -> None:
    """Write start, seconds, peak memory (MiB), exit code and key figure of this execution."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    facts = {
        "stage": name,
        "started": round(started, 3),
        "seconds": round(time.time() - started, 1),
        "peak_mib": peak // 1024,
        "exit_code": code,
        "figure": key_figure[0] if key_figure else "",
    }
    with_suppressed_io(lambda: execution(name).write_text(json.dumps(facts, ensure_ascii=False) + "\n"))


def append(name: str, line: str) -> None:
    """Add a line to the stage's own log."""
    with log_file(name).open("a", encoding="utf-8") as handle:
        handle.write(line + "\n")


def with_suppressed_io(write: Callable[[], Any]) -> None:
    """Run a write whose failure must not hide the failure it reports (a full disk, say)."""
    try:
        write()
    except OSError as error:
        print(f"lathe: could not write: {error}", file=sys.stderr)


def reports(arguments: Sequence[str], code: int) -> None:
    """Keep a copy of the reports that a stage's arguments name, or after a wrong parameter put the
    last ones back: DVC takes them away before it starts a stage, and nothing was done anew.
    """
    named = [Path(value) for option, value in pairwise(arguments) if option in OUTS]
    for place in (one for one in named if one.parts[:1] == REPORTS.parts):
        kept = KEPT / place.relative_to(REPORTS)
        if code == errors.EXIT_DONE and place.exists():
            _copy(place, kept)
        elif code == errors.EXIT_PARAMS and kept.exists():
            _copy(kept, place, only_missing=True)


def _copy(source: Path, to: Path, only_missing: bool = False) -> None:
    for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
        there = to / file.relative_to(source)
        if file.is_file() and not (only_missing and there.exists()):
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, there)
