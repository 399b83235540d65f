"""A written checkpoint is hashed and sealed beside the training, by all processes: each hashes its
share of the files while the next steps go on.

Until it is sealed it is not there: who is killed meanwhile resumes from the one before.
"""

import json
import threading
import time
from pathlib import Path

from stages.common.core import checkpoints
from stages.common.runtime import disk_space, kill_points
from stages.common.tracking.shared_checkpoints import Sender

SHARES = ".hashes"
"""Folder beside the unsealed checkpoint in which processes leave their hashes."""
LOOK_SECONDS = 0.02


class Sealing:
    """A checkpoint that is being hashed; `wait` for its end before the next one is written."""

    def __init__(
        self, temporary: Path, final: Path, keep: int, rank: int, world: int, sender: Sender | None = None
    ) -> None:
        """Start to hash this process's share of the files in `temporary`, which all processes have
        written; the main one seals it as `final`, keeps the `keep` newest and hands it to `sender`.
        """
        self.temporary, self.final, self.keep, self.rank, self.world = temporary, final, keep, rank, world
        self.sender = sender
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, name="seal", daemon=True)
        self.thread.start()

    def wait(self) -> None:
        """Return when the checkpoint is sealed. Raises what went wrong with that."""
        self.thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self._seal()
        except Exception as error:  # raised again by `wait`
            self.error = error

    def _seal(self) -> None:
        hashes = checkpoints.hashes(self.temporary, self.rank, self.world)
        if self.rank == 0:
            for rank in range(1, self.world):
                hashes |= self._hashes_of(rank)
            with disk_space.told(self.temporary.parent, disk_space.size(self.temporary)):
                checkpoints.seal(self.temporary, self.final, hashes)
            checkpoints.rotate(self.final.parent, self.keep)
            kill_points.point("checkpoint:after_rotate")
            if self.sender is not None:
                self.sender.sealed(self.final)
        else:
            self._share(self.rank).parent.mkdir(exist_ok=True)
            written = self._share(self.rank).with_suffix(".writing")
            written.write_text(json.dumps(hashes), encoding="utf-8")
            written.rename(self._share(self.rank))

    def _hashes_of(self, rank: int) -> dict[str, str]:
        while not self._share(rank).exists():
            time.sleep(LOOK_SECONDS)
        return dict(json.loads(self._share(rank).read_text(encoding="utf-8")))

    def _share(self, rank: int) -> Path:
        return self.temporary.parent / SHARES / f"{rank}.json"
