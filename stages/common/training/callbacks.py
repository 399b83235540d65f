"""What happens during `fit`, step by step: progress, metrics, checkpoints by time, epochs kept,
stop on request.
"""

import logging
import math
import sys
import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages.common.runtime import process
from stages.common.runtime.errors import DataError, StopRequested
from stages.common.training import fit_params, kept_models

if TYPE_CHECKING:
    from stages.common.tracking.run import Run

PLAIN_LINE_SECONDS = 15.0
LONG_SAVE_SECONDS, SAVES_SHARE = 10.0, 0.05
"""A checkpoint that stops the training for longer is written so seldom that all of them take no
more than this share of the time.
"""
log = logging.getLogger("lathe")


class Life(TrainerCallback):
    """The one callback of every trainer. Nothing here may touch random state: it would change the
    weights.
    """

    def __init__(self, trainer: Any, settings: "fit_params.FitParams", run: "Run", stage: str) -> None:
        self.trainer, self.settings, self.run, self.stage = trainer, settings, run, stage
        self.saved_at = self.shown_at = self.started = time.monotonic()
        self.start_step = 0
        self.tokens = 0
        self.last: dict[str, float] = {}
        self.bar: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock and, on a terminal, the bar."""
        self.saved_at = self.started = time.monotonic()
        self.start_step = state.global_step
        if process.is_main_process() and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.stage, unit="step")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save on request or by time; at the last step of an epoch, or of all, `on_epoch_end` does
        it.
        """
        if state.global_step >= state.max_steps or (state.epoch is not None and float(state.epoch).is_integer()):
            return
        due = time.monotonic() - self.saved_at > interval(self.settings.checkpoint_minutes, self.trainer.saving_seconds)
        if self._agreed(process.stop_requested()):
            control.should_save = control.should_training_stop = True
        elif self._agreed(due):
            control.should_save = True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save at every epoch's end."""
        control.should_save = True
        control.should_training_stop |= self._agreed(process.stop_requested())

    def on_prediction_step(self, *_: Any, **__: Any) -> None:
        """Leave an evaluation at once on request: the epoch's end comes again after the resume."""
        if process.stop_requested() and self.trainer.args.world_size == 1:
            raise StopRequested

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        """Keep the epoch's model, with what it was measured to be."""
        timing = ("_runtime", "_per_second", "_time")
        kept = {key: value for key, value in metrics.items() if key != "epoch" and not key.endswith(timing)}
        kept_models.keep_epoch(self.trainer, self.run, self.stage, kept)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Restart the clock of timed checkpoints."""
        self.saved_at = time.monotonic()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        """Send metrics to the run, stop on a loss that is not a number (training's or
        validation's), show progress.
        """
        numbers = {key: float(value) for key, value in logs.items() if isinstance(value, (int, float))}
        for key, name in (("loss", "loss"), ("eval_loss", "validation loss")):
            if not math.isfinite(numbers.get(key, 0.0)):
                what = f"the {name} is {numbers[key]} at step {state.global_step}"
                remedy = "lower the learning rate; checkpoints before it are kept"
                raise DataError(what, where=self.stage, remedy=remedy)
        speed = self._speed(state)
        self.run.metrics({**numbers, **({"tokens_per_second": speed} if speed else {})}, step=state.global_step)
        if "loss" in numbers or any(key.startswith("eval_") for key in numbers):
            self._show(state, numbers, speed)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()

    def _agreed(self, wish: bool) -> bool:
        """Whether any rank wishes it: ranks that disagreed about saving would wait for each other
        for ever.
        """
        if self.trainer.args.world_size == 1:
            return wish
        import torch

        flag = torch.tensor([int(wish)], device=self.trainer.args.device)
        return bool(self.trainer.accelerator.reduce(flag, reduction="sum").item())

    def _speed(self, state: TrainerState) -> float:
        seconds = time.monotonic() - self.started
        return float(self.trainer.tokens_seen) / seconds if seconds > 1 else 0.0

    def _show(self, state: TrainerState, numbers: dict[str, float], speed: float) -> None:
        held_out = "loss" not in numbers
        names = [f"eval_{name}" for name in self.trainer.headline] if held_out else list(self.trainer.headline)
        self.last |= {name: numbers[name] for name in names if name in numbers}
        facts = ", ".join(f"{name} {self.last[name]:.4f}" for name in names if name in self.last)
        facts += f", {speed:,.0f} tokens/s" if speed else ""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)
            self.bar.set_postfix_str(facts)
            return
        last = state.global_step == state.max_steps
        if time.monotonic() - self.shown_at < PLAIN_LINE_SECONDS and not held_out and not last:
            return
        self.shown_at = time.monotonic()
        done = max(1, state.global_step - self.start_step)
        remaining = (self.shown_at - self.started) / done * (state.max_steps - state.global_step)
        log.info("step %d/%d, %s, ETA %s", state.global_step, state.max_steps, facts, elapsed(remaining))


def interval(minutes: float, saving_seconds: float) -> float:
    """Return the seconds between two checkpoints of which the last stopped the training for
    `saving_seconds`.
    """
    return max(60 * minutes, saving_seconds / SAVES_SHARE if saving_seconds > LONG_SAVE_SECONDS else 0.0)


def elapsed(seconds: float) -> str:
    """Return seconds as `m:ss` or `h:mm:ss`."""
    return time.strftime("%-H:%M:%S" if seconds >= 3600 else "%-M:%S", time.gmtime(seconds))
