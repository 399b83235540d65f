"""A champion with a challenger beside it: who answers, what is counted, and how it ends."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from stages.common.core import params
from stages.common.core.records import Record
from stages.common.ranking.llm_judge import JudgeParams
from stages.common.release.gate import Approval
from stages.common.release.registry import Version
from stages.common.release.traffic import challenge, moves
from stages.common.release.traffic.challenge import Mode
from stages.common.release.traffic.evidence import Rules, rules
from stages.common.runtime.errors import StageError
from stages.common.runtime.logs import log
from stages.common.serving.challenger.comparers import By, Comparer, Said
from stages.common.serving.challenger.conversations import IDLE_SECONDS, Conversations, Sign
from stages.common.serving.challenger.unseen import Trial, Unseen
from stages.common.serving.engine.champions import Asked, Champion, Champions, Question
from stages.common.serving.engine.requests import Deliver, Piece
from stages.common.text.refusals import refuses


@dataclass
class Contested(Champions):
    """Champions of which one may have a challenger: the version with alias `challenger`, where it
    has passed the gate. `compared` is the share of questions that both answer.
    """

    mode: Mode = "shadow"
    approval: Approval = "manual"
    compared: float = 1.0
    rules: Rules = field(default_factory=Rules)
    comparer: Comparer = field(default_factory=Comparer)
    idle: float = IDLE_SECONDS
    state: Path = challenge.STATE

    def __post_init__(self) -> None:
        super().__post_init__()
        self.trial: Trial | None = None
        self._not_loaded = ""
        self.unseen = Unseen(self.compared, lambda: self.trial, self.comparer)
        self._follow()

    def ask(self, question: Question, deliver: Deliver) -> Asked:
        """Ask whose conversation it is, and listen. The champion answers what the challenger cannot
        take.
        """
        trial = self.trial
        if trial is None or question.plain is not None:
            return super().ask(question, deliver)
        takes = trial.counts.takes(question.messages)
        listening = _listening(trial.counts, question, takes, deliver, self.unseen.offer)
        if not takes:
            return super().ask(question, listening)
        try:
            return trial.challenger.ask(question, listening)
        except StageError:  # no room, closed, a shorter context; what is the question's own fault is said again
            return super().ask(question, deliver)

    def told(self, messages: Sequence[Record], sign: Sign) -> None:
        """Count what a person showed of an answer."""
        if trial := self.trial:
            trial.counts.told(messages, sign)

    def counting(self, champion: str, challenger: str) -> Conversations | None:
        """Return what counts a person's choice between these two versions, None where they are not
        the two in traffic.
        """
        trial = self.trial
        if trial is None or (trial.champion.version.number, trial.challenger.version.number) != (champion, challenger):
            return None
        return trial.counts

    def look(self) -> bool:
        """As `Champions.look`; then make the challenger's next move."""
        swapped = super().look()
        self._follow()
        return swapped

    def close(self, seconds: float = 0.0) -> bool:
        """As `Champions.close`; the challenger ends its answers too, and its state is written."""
        self._ended.set()
        self.unseen.close()
        self.comparer.close()
        trial, self.trial = self.trial, None
        if trial:
            self._leave(trial.challenger)
            trial.counts.save(self.state)
        return super().close(seconds)

    @property
    def challenger(self) -> str:
        """The number of the version that challenges, or ""."""
        trial = self.trial
        return trial.challenger.version.number if trial else ""

    def figures(self) -> dict[str, float]:
        """Return what is known of the challenger, for /metrics."""
        trial, unseen = self.trial, self.unseen
        if trial is None:
            return {}
        counts = {"compared": unseen.compared, "different": unseen.different, "dropped": unseen.dropped}
        counts |= {"undecided": unseen.undecided}
        counts |= {"waiting": unseen.waiting()}
        counted = {f"unseen_{key}": float(value) for key, value in counts.items()}
        return trial.counts.figures() | counted | self.comparer.figures()

    def _follow(self) -> None:
        """Count, move, and look for a challenger; what fails is logged, the champion goes on."""
        try:
            if self.trial:
                self._settle(self.trial)
            if self.trial is None and not self.is_ending:
                version = challenge.waits(self.client, self.name, self.current.version.number)
                if version and version.number != self._not_loaded:
                    self._begin(version)
        except Exception as error:  # the thread's boundary, as in `Champions.look`
            what = str(error) if isinstance(error, StageError) else f"{type(error).__name__}: {error}"
            log.warning("the challenger's release waits: %s", what)
            log.debug("traceback", exc_info=True)

    def _settle(self, trial: Trial) -> None:
        """Count what is over and move; the state is on the disk after each of the two."""
        release = trial.counts.release
        if trial.champion is not self.current or not self._is_wanted(release.challenger):
            self.trial = None
            self._leave(trial.challenger)
            trial.counts.save(self.state)
            return
        if trial.counts.close_idle():
            trial.counts.save(self.state)
        move = challenge.settle(self.client, release, self.rules, self.approval, self.mode == "canary")
        if move != "stay":
            trial.counts.save(self.state)
        if release.ended:
            self.trial = None
            self._leave(trial.challenger)
            super().look()

    def _is_wanted(self, number: str) -> bool:
        version = challenge.waits(self.client, self.name, self.current.version.number)
        return version is not None and version.number == number

    def _begin(self, version: Version) -> None:
        """Load a challenger beside the champion."""
        self._not_loaded = version.number
        challenger = self.load(version)
        self._not_loaded = ""
        release = challenge.resumed(self.state, self.name, self.current.version.number, version.number)
        counts = Conversations(release, self.rules, self.mode == "canary", self.idle)
        self.trial = Trial(self.current, challenger, counts)
        share = float(moves.share(release.known, self.rules)) if self.mode == "canary" else 0.0
        log.info("version %s challenges version %s: %.0f %%", version.number, release.champion, 100 * share)

    def _leave(self, challenger: Champion) -> None:
        """Let a challenger end what it has begun."""
        challenger.engine.close()
        self._leaving.append(challenger.engine)


class Challenging(params.StageParams):
    """Key `deploy.challenger`: what the version of that alias does beside the champion."""

    mode: Mode = "off"
    """`off` nothing, `shadow` answers unseen, `canary` answers a share of the conversations that
    grows, and becomes champion or goes back (docs/challenger.md).
    """
    approval: Approval = "manual"
    """Who makes a challenger champion that has won: `manual` a person, `auto` the server."""
    compared: float = Field(default=1.0, ge=0, le=1)
    """Share of the questions that champion and challenger both answer, one of them unseen."""
    compare: By = "rules"
    """What says which of their answers is better where the rules see no flaw: `rules` nothing more,
    `reward` the model in `reward`, `judge` the endpoint of `judge`, which is sent what people ask.
    """
    reward: str = "models/reward/r1"
    """Folder of the reward model that compares."""
    judge: JudgeParams | None = None
    """The endpoint that compares: {url: http://127.0.0.1:8000/v1, model: its-name}."""
    conversations: int = Field(default=2000, ge=1)
    """After so many conversations a challenger that was not shown to be better goes."""

    def contested(self, name: str, rows: int, waiting: int) -> Contested:
        """Return the champion of `name` with a challenger beside it."""
        return Contested(
            name,
            rows,
            waiting,
            mode=self.mode,
            approval=self.approval,
            compared=self.compared,
            rules=rules(self.compared, self.conversations),
            comparer=Comparer(self.compare, Path(self.reward), self.judge),
        )


def _listening(
    counts: Conversations, question: Question, takes: bool, deliver: Deliver, offer: Callable[[Said], None]
) -> Deliver:
    """Return `deliver`, with an answer counted at its end, after its reader has it."""
    heard, began = list[str](), time.monotonic()

    def listening(event: Piece | Exception) -> None:
        deliver(event)
        if isinstance(event, Exception):
            counts.answered(takes, True, False, None)
            return
        heard.append(event.text)
        if event.finish is None or event.finish == "cancelled":
            return
        text, pace = "".join(heard), (time.monotonic() - began) / max(1, event.tokens)
        counts.answered(takes, not text.strip(), refuses(text), pace)
        offer(Said(question, takes, text, event.finish == "length"))

    return listening
