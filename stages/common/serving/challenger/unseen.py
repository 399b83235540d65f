"""Answers that nobody sees: the other model's, to a question that one of the two has answered, and
how the two compare.

They wait in a short queue until nobody waits for either model, and are left out where that takes
too long: people's answers go first.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from stages.common.core.records import Record
from stages.common.runtime.errors import StageError
from stages.common.runtime.logs import log
from stages.common.serving.challenger.comparers import Compare, Said
from stages.common.serving.challenger.conversations import Conversations
from stages.common.serving.engine.champions import Champion
from stages.common.serving.engine.requests import BusyError, ClosedError, pieces
from stages.common.text import content_hash
from stages.common.text.refusals import refuses

WAITING_AT_MOST = 64
PATIENCE_SECONDS = 30.0
LOOK_SECONDS = 0.02


class Trial(NamedTuple):
    """The champion and a challenger in memory, and what is known of them."""

    champion: Champion
    challenger: Champion
    counts: Conversations


class Unseen:
    """The queue and its thread; `share` of the questions are answered by both. `trial` says who the
    two are now, `compare` whose answer is better.
    """

    def __init__(self, share: float, trial: Callable[[], Trial | None], compare: Compare) -> None:
        self.share, self.trial, self.compare = share, trial, compare
        self.dropped, self.compared, self.different, self.undecided = 0, 0, 0, 0
        self._told = ""
        self._waiting: queue.Queue[Said] = queue.Queue(WAITING_AT_MOST)
        self._ended = threading.Event()
        threading.Thread(target=self._work, name="unseen", daemon=True).start()

    def offer(self, said: Said) -> None:
        """Let the other model answer too, if this question is one of those and there is room."""
        asked_for = said.question
        special = asked_for.tools or asked_for.form or asked_for.scores_prompt or asked_for.alternatives is not None
        if special or asked_for.beams > 1 or not is_drawn(asked_for.messages, self.share):
            return
        try:
            self._waiting.put_nowait(said)
        except queue.Full:
            self.dropped += 1

    def waiting(self) -> int:
        """Return how many questions wait."""
        return self._waiting.qsize()

    def close(self) -> None:
        """Answer no more."""
        self._ended.set()

    def _work(self) -> None:
        while not self._ended.is_set():
            try:
                said = self._waiting.get(timeout=0.5)
            except queue.Empty:
                continue
            try:
                trial = self.trial()
                if trial is None or not self._is_idle(trial):
                    self.dropped += 1
                else:
                    self._compare(trial, said)
            except Exception as error:  # the thread's boundary: nobody waits for it
                self.dropped += 1
                log.debug("an unseen answer was left out: %s: %s", type(error).__name__, error)

    def _is_idle(self, trial: Trial) -> bool:
        """Wait until nobody waits for either model; return whether that came."""
        end = time.monotonic() + PATIENCE_SECONDS
        while any(trial.champion.engine.load()) or any(trial.challenger.engine.load()):
            if self._ended.is_set() or time.monotonic() > end:
                return False
            time.sleep(LOOK_SECONDS)
        return True

    def _compare(self, trial: Trial, said: Said) -> None:
        other = trial.champion if said.takes else trial.challenger
        text, finish, tokens, began = "", None, 0, time.monotonic()
        try:
            for piece in pieces(other.ask, said.question)[1]:
                text, finish, tokens = text + piece.text, piece.finish, piece.tokens
        except (BusyError, ClosedError):
            self.dropped += 1
            return
        except Exception as error:  # the other model's own fault: it counts as an answer that failed
            log.debug("an unseen answer failed: %s: %s", type(error).__name__, error)
            text = ""
        if finish == "cancelled":
            return
        was_alone = not any(trial.champion.engine.load()) and not any(trial.challenger.engine.load())
        pace = (time.monotonic() - began) / tokens if tokens and was_alone else None
        unseen = Said(said.question, not said.takes, text, finish == "length")
        champion, challenger = (unseen, said) if said.takes else (said, unseen)
        difference, faults = self._difference(champion, challenger), (not text.strip(), refuses(text))
        self.compared, self.different = self.compared + 1, self.different + (said.text != text)
        trial.counts.unseen(said.question.messages, unseen.takes, *faults, difference, pace)

    def _difference(self, champion: Said, challenger: Said) -> float | None:
        """Return whose answer is better, or None where what compares does not answer: said once."""
        try:
            return self.compare(champion, challenger)
        except StageError as error:
            self.undecided += 1
            if str(error) != self._told:
                self._told = str(error)
                log.warning("answers of both models are not compared: %s", error)
            return None


def is_drawn(messages: Sequence[Record], share: float) -> bool:
    """Whether both models answer this question: for one question always the same."""
    return content_hash.draw("unseen", content_hash.digest([str(one["content"]) for one in messages])) < share
