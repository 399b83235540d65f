"""A small training, killed as soon as it has a checkpoint, against one that nobody stops."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.gpu.__main__ import Check

STEPS, FIRST = 30, 5


def compared(check: "Check") -> str:
    """Return what became of the killed one."""
    whole, why = life(check, "undisturbed")
    if why:
        return why
    step = kill(check)
    if not step:
        return "it was over before it could be killed"
    resumed, why = life(check, "killed")
    if why:
        return why
    return f"{'same bits' if resumed == whole else 'OTHER BITS'} after a kill at step {step} of {STEPS}"


def command(check: "Check", name: str) -> list[str]:
    """Return the command of a life in a folder of its own."""
    folder = check.folder / name
    folder.mkdir(exist_ok=True)
    return ["-m", "bench.gpu.life", str(folder), str(STEPS)]


def life(check: "Check", name: str) -> tuple[str, str]:
    """Let a training go to its end; return the hash of its weights, and why it has none."""
    lines, why = check.run("resume", command(check, name))
    return (lines[-1] if lines else ""), why


def kill(check: "Check") -> int:
    """Begin a training and kill it once a checkpoint is whole; return that step, 0 when it came too
    late.
    """
    log = check.folder / "killed.log"
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, *command(check, "killed")],
            cwd=check.folder,
            env=check.environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        while process.poll() is None and time.monotonic() < check.ends:
            if (step := newest(check.folder / "killed")) >= FIRST:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return step if step < STEPS else 0
            time.sleep(0.02)
        process.kill()
        process.wait()
    return 0


def newest(folder: Path) -> int:
    """Return the step of the newest checkpoint that is whole, 0 for none."""
    steps = [int(file.name.rpartition("-")[2]) for file in folder.glob("checkpoints/*/*/checkpoint-*")]
    return max(steps, default=0)
