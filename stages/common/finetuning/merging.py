"""Adapters merged into the weights of every model that is kept, and written beside it."""

import copy
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from stages.common.core.models import tied_once
from stages.common.runtime import process
from stages.common.training.resumable import TrainerBase

if TYPE_CHECKING:
    import torch

ADAPTER = "adapter"
"""Folder in a kept model that holds its adapters apart, as peft reads them; the model beside it has
them merged.
"""
MERGING = ".merging"
Weights = dict[str, "torch.Tensor"]


class Merged(TrainerBase):
    """Mixin before a `transformers.Trainer`: a kept model is whole, its adapters merged; a
    checkpoint keeps them apart.

    What is merged is not what is trained: taking adapters out again would not give back the same
    bits to go on with.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        if is_split(self):
            fetch_rows(self.model)
        if is_quantized(self.model):  # TRL rounds adapters to bf16, in which small steps are lost
            for weight in self.model.parameters():
                if weight.requires_grad:
                    weight.data = weight.data.float()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the checkpoint's part (internal call) as the library does, else the whole model and
        its tokenizer.
        """
        if _internal_call or not hasattr(self.model, "merge_and_unload"):
            super().save_model(output_dir, _internal_call)
            return
        weights = gathered(self)
        if self.args.should_save:
            save(self.model, Path(output_dir or self.args.output_dir), weights)
            self.processing_class.save_pretrained(output_dir)


def is_split(trainer: Any) -> bool:
    """Whether ZeRO-3 splits the weights of a trainer's model."""
    return bool(trainer.is_deepspeed_enabled and trainer.accelerator.deepspeed_plugin.zero_stage == 3)


@contextmanager
def whole(trainer: Any) -> Iterator[Any]:
    """Yield the model itself that a trainer trains, its weights gathered where they are split among
    processes: each process may call it as often as its own prompts need.

    Before each call of the outermost module DeepSpeed compares with all processes which modules
    they call. TRL leaves that hook where it stands; a process without prompts would never answer.
    """
    if not is_split(trainer):
        yield trainer.accelerator.unwrap_model(trainer.model_wrapped)
        return
    from trl.models.utils import unwrap_model_for_generation

    with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
        hooks = model._forward_pre_hooks
        comparing = {key: hook for key, hook in hooks.items() if hook.__module__.startswith("deepspeed.")}
        for key in comparing:
            del hooks[key]
        try:
            yield model
        finally:
            hooks.update(comparing)


def gathered(trainer: Any) -> Weights | None:
    """Return the weights of a trainer's model on the CPU of the process that saves, {} on the
    others, where ZeRO-3 has split them; None where each process holds them whole.

    Every process calls it.
    """
    if not is_split(trainer):
        return None
    return trainer.accelerator.get_state_dict(trainer.model_wrapped) or {}


def fetch_rows(model: Any) -> None:
    """Let ZeRO-3 fetch what an adapter reads outside of a module of its own: rows of tokens, and
    the matrix they stand in for.

    DeepSpeed fetches the parameters of a module whose forward is called; peft reads these in the
    forward of another.
    """
    import torch
    from deepspeed import zero
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in (one for one in model.modules() if isinstance(one, BaseTunerLayer)):
        apart = [one for held in layer.children() if isinstance(held, torch.nn.ParameterDict) for one in held.values()]
        if isinstance(layer, TrainableTokensLayer):
            apart.append(layer.get_base_layer().weight)
        for weight in apart:
            zero.register_external_parameter(layer, weight)


def is_quantized(model: Any) -> bool:
    """Whether adapters stand before matrices of few bits."""
    return hasattr(model, "merge_and_unload") and bool(getattr(model.base_model.model, "is_quantized", False))


def save(model: Any, folder: Path, weights: Weights | None = None) -> None:
    """Write the whole model, and in `ADAPTER` its adapters alone, if it has any; `weights` by name
    stand in for its own where those are split.
    """
    if not hasattr(model, "merge_and_unload"):
        model.save_pretrained(folder, state_dict=None if weights is None else tied_once(model, weights))
        return
    if weights is not None:
        model = sharing_weights(model, weights)
    files = folder / MERGING
    files.mkdir(parents=True)
    merged(model, files).save_pretrained(folder)
    shutil.rmtree(files)
    model.save_pretrained(folder / ADAPTER)
    (folder / ADAPTER / "README.md").unlink(missing_ok=True)  # peft's card of nothing


def merged(model: Any, files: Path) -> Any:
    """Return a model with the adapters merged into the weights; `model` stays as it is, to be
    trained on.

    No second model is held: each merged matrix lies in one of `files`, all else is shared. Weights
    of few bits are merged as the numbers they stand for, in fp32: rounded anew, they would answer
    otherwise than what was trained.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if is_quantized(model):
        return _merged_from_few_bits(model)
    whole = sharing_weights(model)
    for number, layer in enumerate(one for one in whole.modules() if isinstance(one, BaseTunerLayer)):
        layer.merge(safe_merge=True)
        weight = getattr(layer.get_base_layer(), "weight", None)
        if weight is not None:  # experts' matrices have other names, and stay in memory
            weight.data = in_file(weight.data, files / f"{number}.bin")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All adapters are already merged")
        return whole.merge_and_unload()


def answering(policy: Any, mirror: Any | None) -> Any:
    """Return what answers with the weights that a policy has now: itself, or the engine of `mirror`
    (a MirroredPolicy), which is given them with its adapters merged.
    """
    if mirror is None:
        return policy
    if not hasattr(policy, "merge_and_unload") or not process.is_main_process():
        return mirror.of(policy)
    with TemporaryDirectory(dir=mirror.folder.parent) as files:
        return mirror.of(merged(policy, Path(files)))


def sharing_weights(model: Any, weights: Weights | None = None) -> Any:
    """Return a copy of a model that has the same memory for weights, or that of `weights` by name,
    as parameters of its own.
    """
    import torch

    shared: dict[int, Any] = {
        id(one): torch.nn.Parameter(
            (one if weights is None else weights[name]).detach(), requires_grad=one.requires_grad
        )
        for name, one in model.named_parameters()
    }
    shared |= {id(one): one for one in model.buffers()}
    return copy.deepcopy(model, shared)


def in_file(value: "torch.Tensor", file: Path) -> "torch.Tensor":
    """Return a tensor's copy whose memory is a file, which the system may take back."""
    import torch

    held = torch.from_file(str(file), shared=True, size=value.numel(), dtype=value.dtype).view(value.shape)
    return held.copy_(value)


def _merged_from_few_bits(model: Any) -> Any:
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    whole = get_peft_model(copy.deepcopy(model).unload().dequantize(), model.peft_config["default"])
    set_peft_model_state_dict(whole, get_peft_model_state_dict(model))
    return whole.merge_and_unload()
