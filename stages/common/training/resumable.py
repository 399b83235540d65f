"""What every trainer has beside its library's Trainer: checkpoints that are atomic, hashed and free
of pickles.

A trainer's class names `Resumable`, or a mixin that extends it, first among its bases, and the
library's Trainer last.
"""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import checkpoints
from stages.common.core.models import refuse_pickles, tied_once
from stages.common.runtime import disk_space, kill_points, process
from stages.common.tracking.shared_checkpoints import Sender
from stages.common.training import data_order, optimizer_state
from stages.common.training.sealing import Sealing

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_callback import CallbackHandler

    class TrainerBase:
        """What the mixins use of the `transformers.Trainer` behind them, for mypy, which reads
        transformers as Any.

        Not a Protocol, because mypy takes a Protocol's methods for abstract and refuses to call
        them with `super()`.
        """

        args: TrainingArguments
        state: TrainerState
        control: TrainerControl
        accelerator: Accelerator
        callback_handler: CallbackHandler
        model: Any
        model_wrapped: Any
        optimizer: torch.optim.Optimizer
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler
        processing_class: Any
        is_deepspeed_enabled: bool
        is_fsdp_enabled: bool

        def __init__(self, *given: Any, **named: Any) -> None: ...
        def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
            """Return the loss of a batch that was trained on."""

        def create_optimizer(self, *rest: Any) -> Any:
            """Return the optimiser."""

        def _prepare_input(self, data: Any) -> Any:
            """Return a batch, or a part of it, on the device."""

        def _get_train_sampler(self, *given: Any) -> Any:
            """Return in which order examples are read; None for an iterable's own."""

        def log(self, logs: dict[str, float], *rest: Any, **named: Any) -> None:
            """Add a row to the history."""

        def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
            """Write the model, for a checkpoint where the Trainer itself calls."""

        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
            """Return the data with what a reference reads of it, where there is one."""

        def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None: ...
        def _save_checkpoint(self, model: Any, trial: Any) -> None: ...
        def _save_optimizer_and_scheduler(self, output_dir: str) -> None: ...
        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None: ...
        def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None: ...

else:
    TrainerBase = object


class Resumable(TrainerBase):
    """Mixin before a `transformers.Trainer`; it keeps the `keep_checkpoints` newest checkpoints.

    Under DeepSpeed the engine writes its own shards, inside the same sealed folder.
    """

    _run_folder: Path | None = None
    sealing: Sealing | None = None
    """The checkpoint that is being hashed beside the training."""
    sender: Sender | None = None
    """What brings sealed checkpoints to the remote, where that is asked for."""
    saving_seconds = 0.0
    """For how long the last checkpoint stopped the training."""
    tokens_seen = 0
    order_began: "torch.Tensor | None" = None
    """State of torch's generator in which the present epoch's order was drawn, if it was drawn."""
    order_resumes = False
    """Whether the next order to be drawn is the one that `order_began` gave."""
    headline: tuple[str, ...] = ("loss",)
    """What a line of progress shows."""

    def __init__(self, *given: Any, keep_checkpoints: int, **named: Any) -> None:
        super().__init__(*given, **named)
        self.keep_checkpoints = keep_checkpoints

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        """Count the tokens over all ranks (taken as equally loaded)."""
        self.tokens_seen += self.count_tokens(inputs) * self.args.world_size
        return super().training_step(model, inputs, *rest, **named)

    def count_tokens(self, inputs: dict[str, Any]) -> int:
        """Return the tokens of a batch that are not padding."""
        mask = inputs.get("attention_mask")
        return int(inputs["input_ids"].numel() if mask is None else mask.sum())

    def _prepare_input(self, data: Any) -> Any:
        """Leave a batch's numbers in fp32, where the Trainer rounds them to a model's bf16 under
        DeepSpeed: the model reads none of them, a loss does.
        """
        import torch

        return data.to(self.args.device) if isinstance(data, torch.Tensor) else super()._prepare_input(data)

    def _get_train_sampler(self, *given: Any) -> Any:
        from torch.utils.data import RandomSampler, SequentialSampler

        sampler = super()._get_train_sampler(*given)
        if sampler is None or isinstance(sampler, (RandomSampler, SequentialSampler)):
            return sampler  # accelerate gives a random one a seed for each epoch
        return data_order.DataOrder(sampler, self)

    def release(self) -> None:
        """Let go of the model and its optimiser: what is left to do needs the memory."""
        nothing: Any = None  # the Trainer's own names hold them, and must not be without a value
        self.model = self.model_wrapped = self.optimizer = self.lr_scheduler = nothing
        handler = self.callback_handler
        handler.model = handler.optimizer = handler.lr_scheduler = nothing
        self.accelerator.free_memory()

    def is_over(self, reached: "TrainerState") -> bool:
        """Whether a state is that of a training at its end."""
        return bool(reached.global_step >= reached.max_steps)

    def finished(self, checkpoint: Path) -> bool:
        """Whether the checkpoint was written at the end; if so, take its state over, loss history
        included.
        """
        from transformers import TrainerState

        reached = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if not self.is_over(reached):
            return False
        self.state = reached
        return True

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._run_folder or self.args.output_dir)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        began = time.monotonic()
        self.sealed()
        folder = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        self._run_folder = folder / ".checkpoint-writing"
        process.restart_grace()
        try:
            room = disk_space.made(self._run_folder, checkpoints.next_size(folder, self.model))
            with room if self.args.should_save else nullcontext():
                self.accelerator.wait_for_everyone()
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                process.restart_grace()
            place = (self._run_folder / name, folder / name, self.keep_checkpoints)
            self.sealing = Sealing(*place, self.args.process_index, self.args.world_size, self.sender)
        finally:
            self._run_folder = None
        self.saving_seconds = time.monotonic() - began

    def sealed(self) -> None:
        """Return when the last checkpoint that was written is sealed, too. Raises what went wrong
        with it.
        """
        sealing, self.sealing = self.sealing, None
        if sealing is not None:
            sealing.wait()

    def examine(self, checkpoint: Path) -> str:
        """Return what is wrong with a checkpoint, "" where nothing is; every process reads its
        share and all say the same.
        """
        wrong = checkpoints.fault(checkpoint, self.args.process_index, self.args.world_size)
        if self.args.world_size == 1:
            return wrong
        from accelerate.utils import gather_object

        return next((one for one in gather_object([wrong]) if one), "")

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no card: the registry's version page carries ours."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if state_dict is not None:
            state_dict = tied_once(self.accelerator.unwrap_model(self.model), state_dict)
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            Path(output_dir or self.args.output_dir, "training_args.bin").unlink(missing_ok=True)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        kill_points.point("checkpoint:after_weights")
        if self.is_deepspeed_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
        elif self.args.should_save:
            optimizer_state.save_state(self.optimizer.state_dict(), Path(output_dir), "optimizer")
            optimizer_state.save_state(self.lr_scheduler.state_dict(), Path(output_dir), "scheduler")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        refuse_pickles(Path(resume_from_checkpoint))
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.is_deepspeed_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
        elif checkpoint is not None:
            self.optimizer.load_state_dict(optimizer_state.load_state(Path(checkpoint), "optimizer"))
            self.lr_scheduler.load_state_dict(optimizer_state.load_state(Path(checkpoint), "scheduler"))
        if checkpoint is not None:
            from transformers import TrainerState

            reached = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
            self.order_began = optimizer_state.load_state(Path(checkpoint), "random-0")["order"]
            self.order_resumes = self.order_began is not None and not float(reached.epoch or 0).is_integer()

    def _save_rng_state(self, output_dir: str) -> None:
        kill_points.point("checkpoint:after_optimizer")
        state = optimizer_state.random_state() | {"order": self.order_began}
        optimizer_state.save_state(state, Path(output_dir), f"random-{self.args.process_index}")
        if self.args.should_save:
            data_order.write(Path(output_dir), self)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        if len(list(Path(checkpoint).glob("random-*.json"))) != self.args.world_size:
            from transformers import set_seed

            set_seed(self.args.seed + self.state.global_step)
            return
        state = optimizer_state.load_state(Path(checkpoint), f"random-{self.args.process_index}")
        optimizer_state.set_random_state(state)
