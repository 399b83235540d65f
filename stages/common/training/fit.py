"""The life of a trainer, the same for every method: resume exactly, train, save whole, stop on request, tell how far.

A stage builds a trainer whose class has `Resumable` first among its bases and calls `fit`.
"""

import logging
import math
import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import checkpoints, params
from stages.common.core.models import refuse_pickles, tied_once, weights_sha256
from stages.common.core.params import StageParams
from stages.common.memory import preflight
from stages.common.runtime import disk_space, kill_points, logs, process
from stages.common.runtime.errors import DataError, StopRequested
from stages.common.training import loss_curve, optimizer_state

if TYPE_CHECKING:
    from stages.common.tracking.run import Run

log = logging.getLogger("lathe")
KEPT = "kept"
WHOLE = 32
"""Bits of a weight as it is trained."""
# Set by the stage itself for every trainer. Loss is logged at each step, because a mean over several steps would differ
# after a resume; TRL and transformers write training_args.bin (a pickle) and cards, which `Resumable` leaves out.
OWN: dict[str, Any] = {
    "save_strategy": "no",
    "eval_strategy": "epoch",
    "logging_steps": 1,
    "logging_nan_inf_filter": False,
    "report_to": "none",
    "disable_tqdm": True,
}


class FitParams(StageParams):
    """Keys every trainer stage has beside `training`, which belongs to the library's config class."""

    training: dict[str, Any]
    """The training library's own config, under its own names."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; one is also written at each epoch's end and on SIGTERM."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept for resuming."""

    def adapters(self, section: str) -> Any:
        """Return peft's LoraConfig of the stage whose params these are; None where all weights are trained."""
        del section
        return None

    def weight_bits(self) -> int:
        """Return how many bits a weight of the base model's matrices takes."""
        return WHOLE


class Resumable:
    """Mixin before a `transformers.Trainer`: checkpoints are atomic, hashed and free of pickles.

    Under DeepSpeed the engine writes its own shards, inside the same sealed folder.
    """

    _run_folder: Path | None = None
    keep_checkpoints = 2
    tokens_seen = 0
    headline: tuple[str, ...] = ("loss",)
    """What a line of progress shows."""

    def training_step(self: Any, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        """Count the tokens over all ranks (taken as equally loaded)."""
        self.tokens_seen += self.count_tokens(inputs) * self.args.world_size
        return super().training_step(model, inputs, *rest, **named)  # type: ignore[misc]  # mixin

    def count_tokens(self: Any, inputs: dict[str, Any]) -> int:
        """Return the tokens of a batch that are not padding."""
        mask = inputs.get("attention_mask")
        return inputs["input_ids"].numel() if mask is None else int(mask.sum())

    def is_over(self: Any, reached: Any) -> bool:
        """Whether a `TrainerState` is that of a training at its end."""
        return bool(reached.global_step >= reached.max_steps)

    def _get_output_dir(self: Any, trial: Any) -> str:
        return str(self._run_folder or self.args.output_dir)

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        self._run_folder = folder / ".checkpoint-writing"
        try:
            room = disk_space.made(self._run_folder, checkpoints.next_size(folder, self.model))
            with room if self.args.should_save else nullcontext():
                self.accelerator.wait_for_everyone()
                super()._save_checkpoint(model, trial)  # type: ignore[misc]  # mixin: the Trainer comes after it
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    checkpoints.seal(self._run_folder / name, folder / name)
                    checkpoints.rotate(folder, self.keep_checkpoints)
        finally:
            self._run_folder = None
        kill_points.point("checkpoint:after_rotate")
        self.accelerator.wait_for_everyone()

    def create_model_card(self: Any, *_: Any, **__: Any) -> None:
        """Write no card: the registry's version page carries ours."""

    def _save(self: Any, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if state_dict is not None:
            state_dict = tied_once(self.accelerator.unwrap_model(self.model), state_dict)
        super()._save(output_dir, state_dict)  # type: ignore[misc]  # mixin
        if self.args.should_save:
            Path(output_dir or self.args.output_dir, "training_args.bin").unlink(missing_ok=True)

    def _save_optimizer_and_scheduler(self: Any, output_dir: str) -> None:
        kill_points.point("checkpoint:after_weights")
        if self.is_deepspeed_enabled:
            super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]  # mixin
        elif self.args.should_save:
            optimizer_state.save_state(self.optimizer.state_dict(), Path(output_dir), "optimizer")
            optimizer_state.save_state(self.lr_scheduler.state_dict(), Path(output_dir), "scheduler")

    def _load_from_checkpoint(self: Any, resume_from_checkpoint: str, model: Any = None) -> None:
        refuse_pickles(Path(resume_from_checkpoint))
        super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]  # mixin

    def _load_optimizer_and_scheduler(self: Any, checkpoint: str | None) -> None:
        if self.is_deepspeed_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]  # mixin
        elif checkpoint is not None:
            self.optimizer.load_state_dict(optimizer_state.load_state(Path(checkpoint), "optimizer"))
            self.lr_scheduler.load_state_dict(optimizer_state.load_state(Path(checkpoint), "scheduler"))

    def _save_rng_state(self: Any, output_dir: str) -> None:
        kill_points.point("checkpoint:after_optimizer")
        optimizer_state.save_state(
            optimizer_state.random_state(), Path(output_dir), f"random-{self.args.process_index}"
        )

    def _load_rng_state(self: Any, checkpoint: str | None) -> None:
        if checkpoint is not None:
            optimizer_state.set_random_state(
                optimizer_state.load_state(Path(checkpoint), f"random-{self.args.process_index}")
            )


def config(cls: type, settings: FitParams, stage: str, fingerprint: str, **own: Any) -> Any:
    """Return the library's config from params.yaml, this stage's own keys and the hardware's.

    Hardware is not a parameter: fp32 without a GPU (bf16 is eight times slower there), bf16 with one unless
    `training` says otherwise, gloo between CPU processes. Raises ParamsError for a key `cls` does not have.
    """
    import torch

    gpu = torch.cuda.is_available()
    hardware: dict[str, Any] = {"use_cpu": not gpu}
    if "bf16" not in settings.training and "fp16" not in settings.training:
        hardware["bf16"] = gpu
    if not gpu and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        hardware["ddp_backend"] = "gloo"
    folder = checkpoints.ROOT / stage / fingerprint
    return params.library_config(
        cls, settings.training, f"{stage}.training", output_dir=str(folder), **OWN, **hardware, **own
    )


def fit(trainer: Any, settings: FitParams, run: "Run", stage: str) -> list[Path]:
    """Train to the end, from the newest whole checkpoint if there is one; return the kept epochs' model folders.

    Raises OutOfMemoryError and TryAgainError before the first step when it would not fit into memory or its checkpoint
    onto the disk, AlreadyRunningError when another process trains the same, StopRequested after saving when SIGTERM
    arrives, and DataError as soon as the loss is not a number.
    """
    from transformers import PrinterCallback
    from transformers.utils import logging as transformers_logging

    from stages.common.training.callbacks import Life

    transformers_logging.disable_progress_bar()
    trainer.remove_callback(PrinterCallback)
    folder = Path(trainer.args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    trainer.keep_checkpoints = settings.keep_checkpoints
    trainer.add_callback(Life(trainer, settings, run, stage))
    with checkpoints.held(folder):
        start = checkpoints.newest(folder)
        if start and finished(trainer, start):
            log.info("%s is the end of this very training; to train anew: rm -r %s", start, folder)
        else:
            if start:
                log.info("resuming from %s", start)
            elif others := checkpoints.others(folder):
                log.info("starting anew: %d in %s are of other params, data or code", len(others), folder.parent)
            preflight.check(trainer, settings, stage)
            disk_space.check(folder, checkpoints.next_size(folder, trainer.model))
            with process.graceful_stop():
                trainer.train(resume_from_checkpoint=str(start) if start else None)
            if process.stop_requested():
                raise StopRequested
    if trainer.is_deepspeed_enabled:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()  # under ZeRO-3 a model that one process loads would wait for the others
    return kept_epochs(folder)


def finished(trainer: Any, checkpoint: Path) -> bool:
    """Whether the checkpoint was written at the end; if so, the trainer gets its state, loss history included."""
    from transformers import TrainerState

    reached = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    if not trainer.is_over(reached):
        return False
    trainer.state = reached
    return True


def kept_epochs(folder: Path) -> list[Path]:
    """Return the kept epochs' model folders, in order. Raises DataError when one is not as it was written."""
    kept = sorted((folder / KEPT).glob("epoch-*"), key=checkpoints.step)
    for epoch in kept:
        wrong = checkpoints.fault(epoch)
        if wrong:
            raise DataError(f"kept model not usable: {wrong}", remedy=f"train anew: rm -r {folder}")
    return kept


def keep_epoch(trainer: Any, run: "Run", stage: str, metrics: dict[str, float]) -> None:
    """Keep the model at an epoch's end for the stage's outs and log it as a LoggedModel."""
    folder = Path(trainer.args.output_dir)
    final = folder / KEPT / f"epoch-{math.ceil(trainer.state.epoch)}"
    temporary = folder / ".kept-writing"
    room = disk_space.made(temporary, disk_space.size(final.with_name("epoch-1")))
    with room if trainer.args.should_save else nullcontext():
        trainer.save_model(str(temporary))
        if trainer.args.should_save:
            final.parent.mkdir(exist_ok=True)
            checkpoints.seal(temporary, final)
            sha256 = weights_sha256(final)
            run.checkpoint(f"{stage}-{final.name}", final, trainer.state.global_step, metrics, sha256)
    trainer.accelerator.wait_for_everyone()


def publish(trainer: Any, folders: dict[str, Path], out: Path, curve: Path, run: "Run", stage: str) -> None:
    """Copy kept model folders to the outs (`folders`: name under `out` -> kept folder), with curve and figure."""
    history = trainer.state.log_history
    if trainer.args.should_save:
        for name, kept in folders.items():
            copy_model(kept, out / name)
        loss_curve.write(history, curve)
        kill_points.point("publish:curve")
        run.figure("loss", loss_curve.figure(history, stage))
    losses = [row["eval_loss"] for row in history if "eval_loss" in row]
    logs.report(f"validation loss {losses[-1]:.3f} after {trainer.state.global_step} steps")


def copy_model(kept: Path, out: Path) -> None:
    """Copy a kept model folder, without its manifest. Raises TryAgainError when there is no room for it."""
    disk_space.check(out, disk_space.size(kept))
    shutil.copytree(kept, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(checkpoints.MANIFEST))
    kill_points.point("publish:model")
