"""What PPO keeps: in a checkpoint both models, rollout and KL controller; in a kept model the
policy alone.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.finetuning import merging
from stages.common.ppo.setup import Setup
from stages.common.runtime.errors import ParamsError
from stages.common.training import optimizer_state
from stages.common.training.resumable import Resumable

if TYPE_CHECKING:
    import torch

    from stages.common.ppo.rollouts import Rollout

WEIGHTS = "weights.safetensors"
OWN = "ppo"
POLICY = "policy."


class Average:
    """An exponential moving average of a model's trained weights: average = decay * average + (1 -
    decay) * weights.
    """

    def __init__(self, model: Any, decay: float) -> None:
        self.model, self.decay = model, decay
        self.weights = {name: value.detach().clone() for name, value in trained(model).items()}

    def update(self, *_: Any) -> None:
        """Take a step's weights in."""
        for name, value in trained(self.model).items():
            self.weights[name].lerp_(value.detach(), 1 - self.decay)

    def swap(self) -> None:
        """Exchange the model's weights with the average."""
        for name, value in trained(self.model).items():
            held = value.detach().clone()
            value.data.copy_(self.weights[name])
            self.weights[name] = held


class Saved(Resumable):
    """Mixin before a `transformers.Trainer` whose model is an `ActorCritic`.

    Raises ParamsError for a moving average under DeepSpeed, whose engine holds the weights.
    """

    rollout: "Rollout | None" = None
    average: Average | None = None

    def __init__(self, setup: Setup, **named: Any) -> None:
        self.setup = setup
        super().__init__(keep_checkpoints=setup.settings.keep_checkpoints, **named)
        if setup.settings.average_decay is not None:
            if self.is_deepspeed_enabled:
                raise ParamsError("'ppo.average_decay' does not work with DeepSpeed", where="params.yaml")
            self.average = Average(self.model.policy, setup.settings.average_decay)

    def create_optimizer(self, *rest: Any) -> Any:
        """Create the optimiser; each of its steps goes into the average, if there is one."""
        optimizer = super().create_optimizer(*rest)
        if self.average is not None:
            optimizer.register_step_post_hook(self.average.update)
        return optimizer

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write both models for a checkpoint (internal call; DeepSpeed's engine writes its own),
        else the policy.
        """
        folder = Path(output_dir or self.args.output_dir)
        if not _internal_call:
            self._save_policy(folder)
        elif self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            if not self.is_deepspeed_enabled:
                save_weights(trained(self.model), folder / WEIGHTS)

    def release(self) -> None:
        """Let go of all models, their optimiser, the average and the engine."""
        if self.setup.collector.mirror is not None:
            self.setup.collector.mirror.close()
        self.average = None
        nothing: Any = None
        self.setup = replace(self.setup, collector=nothing)
        super().release()

    def _save_policy(self, folder: Path) -> None:
        whole = merging.gathered(self)
        if not self.args.should_save:
            return
        policy, weights = self.accelerator.unwrap_model(self.model).policy, None
        if whole is not None:
            weights = {name.removeprefix(POLICY): value for name, value in whole.items() if name.startswith(POLICY)}
        if self.average is not None:
            self.average.swap()
        merging.save(policy, folder, weights)
        if self.average is not None:
            self.average.swap()
        self.processing_class.save_pretrained(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_weights(trained(model or self.model), Path(resume_from_checkpoint) / WEIGHTS)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if not self.args.should_save:
            return
        own = {
            "rollout": self.rollout.state() if self.rollout is not None else None,
            "controller": self.setup.controller.state(),
            "average": self.average.weights if self.average is not None else None,
        }
        optimizer_state.save_state(own, Path(output_dir), OWN)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        from stages.common.ppo.rollouts import Rollout

        own = optimizer_state.load_state(Path(checkpoint), OWN)
        self.rollout = Rollout.restore(own["rollout"]) if own["rollout"] else None
        self.setup.controller.restore(own["controller"])
        if self.average is not None:
            self.average.weights = {name: value.to(self.args.device) for name, value in own["average"].items()}


def trained(model: Any) -> "dict[str, torch.Tensor]":
    """Return the parameters that are trained, by name, tied ones once."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def save_weights(weights: "dict[str, torch.Tensor]", path: Path) -> None:
    """Write tensors as safetensors."""
    from safetensors.torch import save_file

    save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, path)


def load_weights(weights: "dict[str, torch.Tensor]", path: Path) -> None:
    """Copy what `save_weights` wrote into `weights`, all of them."""
    from safetensors.torch import load_file

    found = load_file(path)
    for name, value in weights.items():
        value.data.copy_(found[name])
