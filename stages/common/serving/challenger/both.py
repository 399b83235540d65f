"""The champion and the version that waits beside it, both in memory for reviewers."""

import threading
from typing import NamedTuple

from stages.common.memory import available
from stages.common.release import registry
from stages.common.release.registry import Version
from stages.common.release.traffic import challenge
from stages.common.runtime.errors import DataError
from stages.common.runtime.logs import log
from stages.common.serving.challenger.contested import Contested
from stages.common.serving.challenger.conversations import Conversations
from stages.common.serving.engine.champions import Champion, Champions
from stages.common.serving.engine.engine import Engine
from stages.common.serving.engine.requests import ClosedError

IDLE_SECONDS = 600.0
"""After so long without a question a version that was loaded for reviewers leaves the memory."""
ROOM = 1.5
"""Times what the champion's weights take must be free before another version is loaded."""
HOW = (
    "`make challenge VERSION=4` brings one that passed the gate, and so does `dvc repro` with "
    "`promote.approval: manual` in params.yaml"
)


class Pair(NamedTuple):
    """Two models in memory."""

    champion: Champion
    challenger: Champion

    def facts(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return which two these are."""
        return self.champion.facts(), self.challenger.facts()


class Both:
    """The champion and the version with alias `challenger`. Where that does not answer in traffic
    it is loaded for reviewers, whatever `deploy.challenger.mode` is.
    """

    def __init__(self, champions: Champions, idle: float = IDLE_SECONDS) -> None:
        self.champions, self.idle = champions, idle
        self._lock, self._timer = threading.Lock(), threading.Timer(idle, self.unload)
        self._own: Champion | None = None

    def version(self) -> Version:
        """Return the version that is compared with the champion. Raises DataError where none is."""
        champions = self.champions
        if champions.backend:
            raise DataError("a backend serves one model", remedy="`deploy.backend: transformers` serves two")
        found = registry.with_alias(champions.client, champions.name, registry.CHALLENGER)
        if found is None or found.number == champions.current.version.number:
            raise DataError("no version waits beside the champion", remedy=HOW)
        if said := challenge.against(found):
            raise DataError(f"the version beside the champion may not be tried: {said}", remedy=HOW)
        return found

    def pair(self) -> Pair:
        """Return both, in memory. Raises StageError."""
        with self._lock:
            if self.champions.is_ending:
                raise ClosedError("the server is ending")
            version, champion = self.version(), self.champions.current
            trial = self.champions.trial if isinstance(self.champions, Contested) else None
            if trial and trial.challenger.version.number == version.number:
                self._leave()
                return Pair(champion, trial.challenger)
            if self._own is None or self._own.version.number != version.number:
                self._leave()
                _check_room(champion)
                self._own = self.champions.load(version)
                log.info("version %s is in memory for reviewers", version.number)
            self._timer.cancel()
            self._timer = threading.Timer(self.idle, self.unload)
            self._timer.daemon = True
            self._timer.start()
            return Pair(champion, self._own)

    def counting(self, champion: str, challenger: str) -> Conversations | None:
        """Return what counts a choice between these two versions as a rank in a release by traffic,
        None where there is none of these two.
        """
        return self.champions.counting(champion, challenger) if isinstance(self.champions, Contested) else None

    def unload(self) -> None:
        """Let the version that was loaded for reviewers end what it has begun, and go."""
        with self._lock:
            self._leave()

    def _leave(self) -> None:
        self._timer.cancel()
        if self._own:
            self._own.engine.close()
            log.info("version %s leaves: nobody compares it any more", self._own.version.number)
        self._own = None


def _check_room(champion: Champion) -> None:
    """Raise DataError where a second model would not fit beside the champion."""
    if not isinstance(champion.engine, Engine):
        return
    model = champion.engine.model
    free, needed = available.unused(model.device, 1), ROOM * model.get_memory_footprint()
    if free < needed:
        what = f"no room for a second model: {needed / 1e9:.1f} GB must be free, {free / 1e9:.1f} are"
        raise DataError(what, remedy="serve on a machine with more memory")
