"""The watch over a policy that is trained on a reward: from time to time it answers the same
held-out prompts as at the start, and what the reward pays for is compared with what the rules say.

It can end a training, so it is a part of what shapes a model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import NonNegativeInt, PositiveInt

from stages.common.core.params import StageParams
from stages.common.core.statistics import distinct
from stages.common.monitor import hacking, signs
from stages.common.monitor.hacking import Answered
from stages.common.reward import checked
from stages.common.reward.checked import Asked
from stages.common.runtime import ranks, whole_files
from stages.common.runtime.errors import DataError
from stages.common.runtime.logs import log
from stages.common.text.units import units
from stages.common.training import kept_models
from stages.common.training.resumable import Resumable

if TYPE_CHECKING:
    from transformers import TrainerState

    from stages.common.tracking.run import Run

START = "watched.json"
"""In a training's folder: what its start answered."""
LOOK, HACKING = "watch/reward", "hacking"
"""Keys of a look's row in the history: one that each has, and the signs in words."""
Row = dict[str, Any]


class WatchParams(StageParams):
    """Keys of a stage whose reward is watched."""

    on_hacking: Literal["warn", "stop"] = "warn"
    """What a sign that the reward is played does: a warning, or the end of the training; what comes
    out is then the policy of the last look before the sign.
    """
    watch_prompts: NonNegativeInt = 256
    """Held-out prompts, the first, that are answered at each look; 0: none is taken."""
    watch_every: PositiveInt = 3
    """Rollouts of PPO, optimiser steps of GRPO, between two looks."""


class Answers(NamedTuple):
    """What a policy answers to the watched prompts."""

    texts: Sequence[str]
    cut: Sequence[bool]
    """Whether an answer has no end of turn."""
    rewards: Sequence[float]
    tokens: Sequence[Sequence[int]]
    log_probs: Sequence[float]
    """Of each whole answer, in nats, by the policy that gave it."""


@dataclass
class Watch:
    """What a training's looks are compared by."""

    stage: str
    settings: WatchParams
    asked: Sequence[Asked]
    run: "Run"
    start: Answers | None = None

    @property
    def stops(self) -> bool:
        """Whether a sign ends the training."""
        return self.settings.on_hacking == "stop"


class Watched(Resumable):
    """Mixin before `Resumable`, of a trainer that says how its policy answers the watched
    prompts.
    """

    watch: Watch | None = None
    """None: nothing is watched."""

    if TYPE_CHECKING:

        def watched_answers(self) -> Answers:
            """Return what the policy of now answers, with the random numbers of every look."""

        def drift(self, start: Answers) -> float:
            """Return KL to the policy that gave the start's answers, in nats a sequence."""

    def is_over(self, reached: "TrainerState") -> bool:
        """Whether a state is that of a training at its end, or one that a sign ended."""
        return bool(self.watch and self.watch.stops and alarms(reached.log_history)) or super().is_over(reached)

    def look(self, interval: int) -> None:
        """Look at the policy, once in a step; `interval` is the optimiser steps between two looks.

        A look without a sign keeps the policy where a sign would end the training.
        """
        watch, state = self.watch, self.state
        if watch is None or any(LOOK in row and row["step"] == state.global_step for row in state.log_history):
            return
        answers = self.watched_answers()
        if state.global_step == 0:
            keep_start(Path(self.args.output_dir), answers)
        watch.start = watch.start or read_start(Path(self.args.output_dir))
        kl = self.drift(watch.start) if state.global_step else 0.0
        looks, known = -(-state.max_steps // interval), {one["sign"] for one in alarms(state.log_history)}
        row, found = ranks.once(lambda: compare(watch, answers, looks))
        if watch.stops and state.global_step and not found and not known:
            kept_models.keep_step(self)
        self._say(row | {"watch/kl": kl}, [one for one in found if one["sign"] not in known])

    def _say(self, row: Row, found: list[Row]) -> None:
        """Add a look to the history, and its new signs to the log and the run."""
        from transformers import Trainer

        watch = self.watch
        assert watch is not None
        Trainer.log(self, row | ({HACKING: found} if found else {}))  # TRL's own would add, and empty, its means
        for one in found:
            log.warning("step %d: the reward pays for %s", self.state.global_step, one["said"])
            watch.run.metrics({f"hacking/{one['sign']}": one["paid"]}, self.state.global_step)
        if found:
            watch.run.tags({HACKING: "; ".join(one["said"] for one in found)})
            self.control.should_training_stop |= watch.stops


def begin(stage: str, settings: WatchParams, prompts: Sequence[Asked], run: "Run") -> Watch | None:
    """Return the watch of a training over its held-out prompts; None where none is to be taken."""
    asked = prompts[: settings.watch_prompts]
    return Watch(stage, settings, asked, run) if asked else None


def keep_start(folder: Path, answers: Answers) -> None:
    """Write what the start answered, for looks after a resume."""

    def write() -> None:
        with whole_files.written_whole(folder / START) as path:
            path.write_text(json.dumps(answers._asdict(), ensure_ascii=False), encoding="utf-8")

    ranks.once(write)


def read_start(folder: Path) -> Answers:
    """Return what `keep_start` wrote. Raises DataError where it is not there."""

    def read() -> Answers:
        try:
            return Answers(**json.loads((folder / START).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            what = f"what the start answered cannot be read: {error}"
            raise DataError(what, where=folder / START, remedy=f"train anew: rm -r {folder}") from error

    return ranks.once(read)


def measured(asked: Sequence[Asked], answers: Answers) -> list[Answered]:
    """Return each answer with its reward, its rules and its signs."""
    columns = signs.columns(asked, answers.texts, answers.cut)
    return [
        Answered(reward, checked.rules(one, text, cut), {name: values[at] for name, values in columns.items()})
        for at, (one, text, cut, reward) in enumerate(
            zip(asked, answers.texts, answers.cut, answers.rewards, strict=True)
        )
    ]


def compare(watch: Watch, answers: Answers, looks: int) -> tuple[Row, list[Row]]:
    """Return a look's figures, and the signs that it found, in words too."""
    assert watch.start is not None
    was, now = measured(watch.asked, watch.start), measured(watch.asked, answers)
    count = len(now)
    figures = {
        LOOK: sum(one.reward for one in now) / count,
        "watch/rules": sum(one.rules for one in now) / count,
        "watch/win_rate": hacking.win_rate(was, now),
        "watch/distinct_2": distinct([units(text) for text in answers.texts], 2),
        **{f"watch/{name}": sum(one.signs[name] for one in now) / count for name in signs.NAMES},
    }
    found = [
        {"sign": one.sign, "said": one.sentence(count), "paid": one.paid, "mirror": one.mirror}
        | {"p": float(f"{one.p:.3g}")}
        for one in hacking.judge(was, now, looks)
    ]
    return {name: float(f"{value:.6g}") for name, value in figures.items()}, found


def alarms(history: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the signs that a history has, each with its step, in order."""
    return [{"step": row["step"], **one} for row in history for one in row.get(HACKING, [])]
