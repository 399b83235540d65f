"""Low-rank adapters (peft): trained in place of the weights, merged into them in every model that
is kept.

LoRA is Hu et al. 2021; over a base model whose matrices are held in 4 bits it is QLoRA (Dettmers et
al. 2023).
"""

import copy
import importlib.util
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from stages.common.core import models, params
from stages.common.runtime.errors import ParamsError
from stages.common.training import fit_params
from stages.common.training.resumable import TrainerBase

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

ADAPTER = "adapter"
"""Folder in a kept model that holds its adapters apart, as peft reads them; the model beside it has
them merged.
"""


class AdapterParams(fit_params.FitParams):
    """Keys of the trainer stages that can train adapters."""

    lora: dict[str, Any] | None = None
    """peft's LoraConfig under its own names; null trains all weights."""
    quantization: dict[str, Any] | None = None
    """transformers' BitsAndBytesConfig under its own names: in how few bits the base model below
    adapters is held.
    """

    @model_validator(mode="after")
    def _adapters_where_quantized(self) -> "AdapterParams":
        if self.quantization is not None and self.lora is None:
            raise ValueError("weights of few bits cannot be trained themselves: set lora too")
        return self

    def adapters(self, section: str) -> "LoraConfig | None":
        """Return peft's LoraConfig, or None where all weights are trained. Raises ParamsError for a
        key it lacks.
        """
        return config(self.lora, f"{section}.lora")

    def weight_bits(self) -> int:
        """Return how many bits a weight of the base model's matrices takes."""
        return bits(self.quantization)


def base(folder: Path, settings: AdapterParams, section: str) -> "PreTrainedModel":
    """Return the model in `folder` to be trained, its matrices in few bits where the params say so.

    Raises ParamsError for a key that transformers does not know, or without bitsandbytes; DataError
    for the folder.
    """
    if settings.quantization is None:
        return models.load(folder)
    from peft import prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    where = f"{section}.quantization"
    known = set(inspect.signature(BitsAndBytesConfig.__init__).parameters) - {"self", "kwargs"}
    for key in sorted(set(settings.quantization) - known):
        what = f"unknown key '{where}.{key}'{params.suggestion(key, sorted(known))}"
        raise ParamsError(what, where=params.PARAMS_FILE)
    if importlib.util.find_spec("bitsandbytes") is None:
        remedy = "make env EXTRAS=dev,qlora"
        raise ParamsError(f"'{where}' needs bitsandbytes", where=params.PARAMS_FILE, remedy=remedy)
    quantized = BitsAndBytesConfig(**settings.quantization)
    model = models.read(AutoModelForCausalLM, folder, quantization_config=quantized)
    for module in model.modules():  # on some CPUs an evaluation would round for good what training goes on with
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    checkpointing = bool(settings.training.get("gradient_checkpointing"))
    prepared: PreTrainedModel = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    return prepared


def bits(quantization: dict[str, Any] | None) -> int:
    """Return how many bits a weight of the base model's matrices takes."""
    chosen = quantization or {}
    return 4 if chosen.get("load_in_4bit") else 8 if chosen.get("load_in_8bit") else fit_params.WHOLE


def config(settings: dict[str, Any] | None, section: str, task: str = "CAUSAL_LM") -> "LoraConfig | None":
    """Return peft's LoraConfig from params.yaml (its own key names), or None for full weights.
    Raises ParamsError.

    `task` is peft's name for what the model gives: CAUSAL_LM logits, SEQ_CLS a score.
    """
    if settings is None:
        return None
    from peft import LoraConfig

    return params.library_config(LoraConfig, settings, section, task_type=task)


def wrap(model: "PreTrainedModel", adapters: "LoraConfig | None") -> "PreTrainedModel | PeftModel":
    """Return the model with fresh adapters in front of its frozen weights, or as it is."""
    if adapters is None:
        return model
    from peft import get_peft_model

    return get_peft_model(model, adapters)


class Merged(TrainerBase):
    """Mixin before a `transformers.Trainer`: a kept model is whole, its adapters merged; a
    checkpoint keeps them apart.

    A copy is merged: taking adapters out again would not give back the same bits to train on with.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
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
        elif self.args.should_save:
            save(self.model, Path(output_dir or self.args.output_dir))
            self.processing_class.save_pretrained(output_dir)


def is_quantized(model: Any) -> bool:
    """Whether adapters stand before matrices of few bits."""
    return hasattr(model, "merge_and_unload") and bool(getattr(model.base_model.model, "is_quantized", False))


def save(model: Any, folder: Path) -> None:
    """Write the whole model, and in `ADAPTER` its adapters alone, if it has any."""
    merged(model).save_pretrained(folder)
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(folder / ADAPTER)
        (folder / ADAPTER / "README.md").unlink(missing_ok=True)  # peft's card of nothing


def merged(model: Any) -> Any:
    """Return a copy of the model with its adapters merged into the weights, or the model itself
    when it has none.

    Weights of few bits are merged as the numbers they stand for, in fp32: rounded anew, they would
    answer otherwise than what was trained.
    """
    if not hasattr(model, "merge_and_unload"):
        return model
    if not is_quantized(model):
        return copy.deepcopy(model).merge_and_unload()
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    whole = get_peft_model(copy.deepcopy(model).unload().dequantize(), model.peft_config["default"])
    set_peft_model_state_dict(whole, get_peft_model_state_dict(model))
    return whole.merge_and_unload()
