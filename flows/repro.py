"""One stage, through one call of `dvc repro --single-item`: what became of it, or its own error
line.
"""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flows.local import command, devices
from flows.pipeline import Stage
from stages.common.runtime import environment as surroundings
from stages.common.runtime import errors, logs, process

LOGS = Path("logs/flow")
PROGRESS = re.compile(r"ETA \d|\d s left|(?:rows|tokens|it)/s")
PROGRESS_SECONDS = 30.0
RESUMES = (errors.EXIT_AGAIN, errors.EXIT_STOPPED)
State = Literal["ran", "restored", "cached"]
BLOCKED = "is busy, it is being blocked by"
"""What DVC says of a path that another DVC holds; the entry of one that was killed stands until its
process is gone.
"""
HINTS = ("To track the changes", "git add ", "To enable auto staging", "dvc config core.autostage", "Use `dvc push`")


class StageFailed(Exception):
    """A stage ended badly: its own error line, and its exit code."""

    def __init__(self, line: str, code: int) -> None:
        super().__init__(line)
        self.code = code


@dataclass(frozen=True)
class Outcome:
    """What one call did: ran, restored (from DVC's cache) or cached (was up to date); `figure` is
    the stage's own, `metrics` are its files of figures, `curves` its plots by their column y.
    """

    stage: str
    state: State
    seconds: float
    figure: str
    metrics: tuple[str, ...] = ()
    curves: Mapping[str, str] = field(default_factory=dict)


def repro(
    stage: Stage,
    *,
    follow: Callable[[str], None],
    cancel: threading.Event,
    environment: Mapping[str, str],
    gpus: Sequence[str] = (),
    timeout_seconds: float | None = None,
    options: Sequence[str] = (),
) -> Outcome:
    """Bring `stage` up to date in `environment`, on `stage.gpus` of the devices `gpus`; `options`
    are DVC's. Raises StageFailed.
    """
    if cancel.is_set():
        raise StageFailed(f"lathe: {stage.name} was not started: the flow is cancelled", errors.EXIT_STOPPED)
    started, began = time.time(), time.monotonic()  # a clock may be set meanwhile
    log = LOGS / f"{stage.name.replace('/', '_')}.log"
    with devices.held(stage.gpus, gpus, cancel) as held:
        code = command.run(
            [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *options, "--single-item", stage.name],
            log,
            follow=thinned(follow),
            cancel=cancel,
            environment={**environment, **({"CUDA_VISIBLE_DEVICES": ",".join(held)} if held else {})},
            timeout_seconds=timeout_seconds,
        )
    said = log.read_text(encoding="utf-8", errors="replace")
    if code == command.TIMED_OUT:
        raise StageFailed(f"lathe: {stage.name} failed: stopped after {timeout_seconds:.0f} s, its time limit", code)
    if code:
        raise failure(stage.name, said, code, started)
    return outcome(stage, state(said), round(time.monotonic() - began, 1))


def outcome(stage: Stage, what: State, seconds: float) -> Outcome:
    """Return what became of a stage, with its figure and where others stand."""
    return Outcome(stage.name, what, seconds, figure(stage.name), stage.metrics, stage.curves)


def thinned(follow: Callable[[str], None], seconds: float = PROGRESS_SECONDS) -> Callable[[str], None]:
    """Return a follower that leaves out DVC's hints, and of progress lines of one kind all that
    come within `seconds` of the last one that was told.
    """
    told: dict[str, float] = {}

    def some(line: str) -> None:
        if line.strip().startswith(HINTS):
            return
        if PROGRESS.search(line):
            kind, now = re.sub(r"[\d.,:]+", "0", line), time.monotonic()
            if now - told.get(kind, -seconds) < seconds:
                return
            told[kind] = now
        follow(line)

    return some


def stage_environment(flow_run: str) -> dict[str, str]:
    """Return the environment of every stage of a flow run: this interpreter first on the path.

    Taken once, when the flow starts: MLflow's client changes variables of this process while it
    works.
    """
    return {
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": f"{process.longest_stop_seconds():.0f}",  # torchrun's own is 30
        **surroundings.complete(dict(os.environ)),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "LATHE_FLOW_RUN_ID": flow_run,
        "DVC_NO_ANALYTICS": "1",
    }


def state(said: str) -> State:
    """Return what DVC's output says it did."""
    if "didn't change, skipping" in said:
        return "cached"
    return "restored" if "is cached - skipping run" in said else "ran"


def failure(name: str, said: str, code: int, started: float) -> StageFailed:
    """Return the failure with the stage's own line when it wrote one, else DVC's, and the stage's
    exit code.

    A launcher between DVC and the stage has an exit code of its own: what the stage wrote down goes
    before. A path that another DVC holds is no failure but a reason to try again.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    own = [line for line in lines if re.match(r"lathe: \S+ (failed|stopped) \(\d+\): ", line)]
    dvcs = [line for line in lines if line.startswith("ERROR: ")]
    exits = re.findall(r"exited with (-?\d+)", dvcs[-1]) if dvcs else []
    if not own and dvcs and BLOCKED in dvcs[-1]:
        what = f"another DVC works on what this stage needs: {dvcs[-1].removeprefix('ERROR: ').rstrip(':')}"
        again = f"lathe: {name} failed ({errors.EXIT_AGAIN}): {what}; then continue with: dvc repro {name}"
        return StageFailed(again, errors.EXIT_AGAIN)
    line = (own or [f"lathe: {name} failed: {(dvcs or lines or ['without a word'])[-1]}"])[-1]
    facts = logs.execution(name)
    if facts.exists() and facts.stat().st_mtime >= started:
        return StageFailed(line, int(json.loads(facts.read_text(encoding="utf-8"))["exit_code"]))
    return StageFailed(line, int(exits[-1]) if exits else code)


def figure(name: str) -> str:
    """Return the key figure of the stage's last execution; a stage outside the process contract has
    none.
    """
    facts = logs.execution(name)
    return str(json.loads(facts.read_text(encoding="utf-8"))["figure"]) if facts.exists() else ""
