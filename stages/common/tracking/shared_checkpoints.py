"""Checkpoints in DVC's default remote (`run.checkpoints: remote`): a training goes on elsewhere
when its machine is gone. A process of its own sends (checkpoint_remote.py); the training does not
wait for it.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from stages.common.core import checkpoints, params
from stages.common.runtime import process
from stages.common.runtime.errors import EXIT_PARAMS, ParamsError
from stages.common.runtime.logs import log
from stages.common.tracking.checkpoint_remote import ANSWER_SECONDS, MODULE, SENDING

HERE, REMOTE = "local", "remote"
LOOK_SECONDS = 0.05


def wanted() -> bool:
    """Whether params.yaml asks for it. Raises ParamsError for what is neither `local` nor
    `remote`.
    """
    if not params.PARAMS_FILE.exists():
        return False
    section = params.read_yaml(params.PARAMS_FILE).get("run")
    chosen = section.get("checkpoints", HERE) if isinstance(section, dict) else HERE
    if chosen not in (HERE, REMOTE):
        what = f"'run.checkpoints' is {chosen!r}, neither {HERE} nor {REMOTE}"
        raise ParamsError(what, where=params.PARAMS_FILE)
    return bool(chosen == REMOTE)


def fetch(folder: Path) -> None:
    """Bring the newest checkpoint of the remote into a training's `folder` when that has none as
    new; of several processes the first one does. A remote that is away is a warning. Raises
    ParamsError where DVC has no default remote, and for processes on several machines.
    """
    if not wanted():
        return
    if os.environ.get("LOCAL_WORLD_SIZE", "1") != os.environ.get("WORLD_SIZE", "1"):
        what = "several machines that train together need a folder of checkpoints that all of them see"
        raise ParamsError(what, where=params.PARAMS_FILE, remedy=f"run.checkpoints: {HERE}")
    done = folder / f".fetched-{os.getppid()}"  # the launcher, which they share
    if not process.is_main_process():
        while not done.exists():
            time.sleep(LOOK_SECONDS)
        return
    for old in folder.glob(".fetched-*"):
        old.unlink()
    asked = subprocess.run(_command("fetch", folder), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    said = (asked.stdout + asked.stderr).strip().splitlines()
    if asked.returncode == EXIT_PARAMS:
        raise ParamsError(said[-1], where=params.PARAMS_FILE, remedy="dvc remote add -d NAME URL")
    if asked.returncode:
        why = f"it said nothing for {ANSWER_SECONDS} s" if asked.returncode == -signal.SIGALRM else said[-1:]
        log.warning("no checkpoint from the remote, going on with what is here: %s", why)
    for line in said if asked.returncode == 0 else []:
        log.info("%s", line)
    if "LOCAL_RANK" in os.environ:
        folder.mkdir(parents=True, exist_ok=True)
        done.touch()


def sender(folder: Path) -> "Sender | None":
    """Return what sends a training's checkpoints, in the process that seals them, or None where
    they stay here.
    """
    return Sender(folder) if process.is_main_process() and wanted() else None


class Sender:
    """Sends what a training seals, one checkpoint at a time; of those that are sealed meanwhile the
    newest is next.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / ".sending.log"
        self.child: subprocess.Popen[bytes] | None = None
        self.newest: Path | None = None
        self.waits = False
        for left in folder.glob(f"{SENDING}*"):
            shutil.rmtree(left, ignore_errors=True)

    def sealed(self, checkpoint: Path) -> None:
        """Begin to send a checkpoint, unless another one is on its way."""
        self.newest, self.waits = checkpoint, True
        if self._is_free():
            self._begin()

    def finish(self) -> None:
        """See the newest on its way at a training's end. One that was asked to stop waits for it,
        for most of the grace that is then left: its machine may be about to go.
        """
        if process.stop_requested():
            process.restart_grace()
            end = time.monotonic() + 0.8 * process.grace_seconds()
            while time.monotonic() < end and (self.waits or not self._is_free()):
                if self._is_free():
                    self._begin()
                time.sleep(LOOK_SECONDS)
            if not self._is_free():
                log.warning("the last checkpoint is not in the remote yet; it stays here")
        elif self.waits:
            self._begin()

    def _is_free(self) -> bool:
        """Whether nothing is on its way; says what went wrong with what was."""
        if self.child is None:
            return True
        if self.child.poll() is None:
            return False
        if self.child.returncode:
            said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            log.warning("checkpoint not sent to the remote, the next one will be: %s", (said or ["no word"])[-1])
        self.child = None
        return True

    def _begin(self) -> None:
        """Link the files, so that they stay, and start the process that sends them."""
        assert self.newest is not None
        self.waits = False
        links = self.folder / f"{SENDING}{checkpoints.step(self.newest)}"
        try:
            shutil.rmtree(links, ignore_errors=True)
            for name in _needed(self.folder, self.newest):
                (links / name).parent.mkdir(parents=True, exist_ok=True)
                os.link(self.folder / name, links / name)
            with self.log.open("wb") as said:
                command = _command("send", links)
                self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        except OSError as error:
            log.warning("checkpoint not sent to the remote: %s", error)


def _command(what: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", MODULE, what, str(folder)]


def _needed(folder: Path, checkpoint: Path) -> list[str]:
    """Return the files of a training's folder that a resume from `checkpoint` needs: its own, kept
    models, and what lies beside them; what is made anew (tables, rollouts) stays.
    """
    found = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        top, *_ = parts = file.relative_to(folder).parts
        passing = top.startswith(".") or top == "lock" or top.endswith(".arrow")
        if top == checkpoint.name or not (passing or top.startswith("checkpoint-")):
            found.append("/".join(parts))
    return found
