"""Conversations between people and the two models: whose each is, and what was seen of it.

A conversation is known by its beginning, which every later question of it carries: the system
prompt and the first message. The same beginning again is answered by the same model, and counts
once. It is over when nothing was heard of it for a while.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stages.common.core.records import Record
from stages.common.release.traffic import challenge, evidence, moves
from stages.common.release.traffic.challenge import Challenge
from stages.common.release.traffic.evidence import COUNTED, GUARDS, Rules
from stages.common.text import content_hash, normalisation

IDLE_SECONDS = 600.0
NOT_ASKED = float("nan")
PACE_WEIGHT, SLOW_FACTOR = 0.05, 2.0
"""An answer is slow that takes this many times as long for a token as the champion's last ones,
averaged with that weight.
"""
Sign = Literal["like", "dislike", "edit", "regeneration"]


@dataclass
class Open:
    """A conversation that is not over."""

    takes: bool
    share: float
    heard: float
    compared: float = 0.0
    count: int = 0
    likes: int = 0
    complaints: int = 0


class Conversations:
    """What is known of them, from any thread."""

    def __init__(self, release: Challenge, rules: Rules, canary: bool, idle: float = IDLE_SECONDS) -> None:
        self.release, self.rules, self.canary, self.idle = release, rules, canary, idle
        self.stopped = bool(release.ended)
        """Whether the challenger answers nobody any more, whatever was begun."""
        self._open: dict[str, Open] = {}
        self._pace = 0.0
        self.lock = threading.Lock()  # held for as long as counting takes: answers wait for it
        self._is_changed = False

    def takes(self, messages: Sequence[Record]) -> bool:
        """Whether the challenger answers this conversation; one that is new is decided now."""
        conversation, now = beginning(messages), time.monotonic()
        with self.lock:
            arms = self.release.arms
            if conversation not in arms:
                share = float(moves.share(self.release.known, self.rules)) if self.canary else 0.0
                arms[conversation] = moves.place(self.release.salt, conversation) < share, share
                self._open[conversation] = Open(*arms[conversation], now)
            elif conversation in self._open:
                self._open[conversation].heard = now
            return arms[conversation][0] and self.canary and not self.stopped

    def answered(self, takes: bool, failed: bool, refused: bool, pace: float | None) -> None:
        """Count an answer that somebody got; `pace` is seconds a token."""
        slow = self._slow(pace)
        if pace is not None and not takes:
            self._pace += (PACE_WEIGHT if self._pace else 1.0) * (pace - self._pace)
        self._count(takes, [failed, refused, slow, 0.0, NOT_ASKED])

    def _slow(self, pace: float | None) -> float:
        return NOT_ASKED if pace is None or not self._pace else float(pace > SLOW_FACTOR * self._pace)

    def unseen(
        self,
        messages: Sequence[Record],
        takes: bool,
        failed: bool,
        refused: bool,
        difference: float | None,
        pace: float | None = None,
    ) -> None:
        """Count an answer that nobody saw, of the challenger where `takes`, and how the two answers
        compare: 1 where the challenger's is better, -1 where it is worse, None where nothing could
        say. Of a `pace` only slowness counts: it was alone on the machine.
        """
        lost = NOT_ASKED if difference is None else -difference
        with self.lock:
            one = self._open.get(beginning(messages))
            if difference is not None and one and one.count < COUNTED:
                one.compared, one.count = one.compared + difference, one.count + 1
        if takes:
            self._count(True, [failed, refused, self._slow(pace), NOT_ASKED, lost])
            return
        self._count(False, [failed, refused, NOT_ASKED, NOT_ASKED, NOT_ASKED])
        if difference is not None:
            self._count(True, [NOT_ASKED] * (len(GUARDS) - 1) + [lost])

    def told(self, messages: Sequence[Record], sign: Sign) -> None:
        """Count what a person showed of an answer."""
        with self.lock:
            one = self._open.get(beginning(messages))
            if one is None:
                return
            one.likes, one.complaints = one.likes + (sign == "like"), one.complaints + (sign != "like")
            takes = one.takes
        if sign != "like":
            self._count(takes, [NOT_ASKED, NOT_ASKED, NOT_ASKED, 1.0, NOT_ASKED])

    def ranked(self, difference: float) -> None:
        """Count what a person prefers of both models' answers, unknown: 1 for the challenger's, -1
        for the champion's, else 0.
        """
        with self.lock:
            evidence.ranked(self.release.known, difference)
            self._is_changed = True

    def close_idle(self) -> bool:
        """Count the conversations that are over; return whether anything was counted since."""
        now = time.monotonic()
        with self.lock:
            over = [key for key, one in self._open.items() if now - one.heard >= self.idle]
            for one in [self._open.pop(key) for key in over]:
                seen = evidence.outcome(one.likes, one.complaints)
                told = one.share, (one.compared, one.count)
                evidence.over(self.release.known, self.rules, seen, one.takes, *told)
            changed, self._is_changed = self._is_changed or bool(over), False
            return changed

    def figures(self) -> dict[str, float]:
        """Return the evidence in numbers that people read."""
        with self.lock:
            share = {} if self.canary and not self.stopped else {"share": 0.0}
            return moves.figures(self.release.known, self.rules) | share | {"open": float(len(self._open))}

    def save(self, place: Path) -> None:
        """Write the state of the release."""
        with self.lock:
            held = self.release.held()
        challenge.write(held, place)

    def _count(self, takes: bool, faults: Sequence[float]) -> None:
        nothing = [NOT_ASKED] * len(GUARDS)
        with self.lock:
            known, self._is_changed = self.release.known, True
            evidence.answered(known, self.rules, *((faults, nothing) if takes else (nothing, faults)))
            self.stopped = self.stopped or bool(moves.next_move(known, self.rules) == moves.BACK)


def beginning(messages: Sequence[Record]) -> str:
    """Return what a conversation is known by."""
    first = next((at for at, one in enumerate(messages) if one["role"] == "user"), len(messages) - 1)
    said = [[one["role"], normalisation.key(str(one["content"]))] for one in messages[: first + 1]]
    return content_hash.digest(said).hex()[:16]
