"""Low-rank adapters (peft): trained in place of the weights, merged into them in every model that
is kept.

LoRA is Hu et al. 2021; over a base model whose matrices are held in 4 bits it is QLoRA (Dettmers et
al. 2023).
"""

import importlib.util
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from stages.common.core import models, params, precision
from stages.common.runtime.errors import ParamsError
from stages.common.training import fit_params

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel


class LoraParams(fit_params.FitParams):
    """Keys of the trainer stages that can train adapters in place of the weights."""

    lora: dict[str, Any] | None = None
    """peft's LoraConfig under its own names; null trains all weights."""

    def adapters(self, section: str) -> "LoraConfig | None":
        """Return peft's LoraConfig, or None where all weights are trained. Raises ParamsError for a
        key it lacks.
        """
        return config(self.lora, f"{section}.lora")

    def held_dtype(self, folder: Path | str) -> "torch.dtype":
        """Return the dtype of the weights that are trained, or that stay as they are below
        adapters.
        """
        return super().held_dtype(folder) if self.lora is None else precision.frozen(folder)


class AdapterParams(LoraParams):
    """Keys of the trainer stages that can also hold the base model below adapters in few bits."""

    quantization: dict[str, Any] | None = None
    """transformers' BitsAndBytesConfig under its own names: in how few bits the base model below
    adapters is held.
    """

    @model_validator(mode="after")
    def _adapters_where_quantized(self) -> "AdapterParams":
        if self.quantization is not None and self.lora is None:
            raise ValueError("weights of few bits cannot be trained themselves: set lora too")
        return self

    def weight_bits(self) -> int:
        """Return how many bits a weight of the base model's matrices takes."""
        return bits(self.quantization)

    def held_dtype(self, folder: Path | str) -> "torch.dtype":
        """Return the dtype of the weights as `LoraParams` does; matrices of few bits stay apart."""
        return fit_params.FitParams.held_dtype(self, folder) if self.quantization else super().held_dtype(folder)


def base(folder: Path, settings: AdapterParams, section: str) -> "PreTrainedModel":
    """Return the model in `folder` to be trained, its matrices in few bits where the params say so.

    Raises ParamsError for a key that transformers does not know, or without bitsandbytes; DataError
    for the folder.
    """
    from transformers import AutoModelForCausalLM

    return prepared(models.read(AutoModelForCausalLM, folder, **loading(folder, settings, section)), settings)


def loading(folder: Path, settings: AdapterParams, section: str) -> dict[str, Any]:
    """Return what from_pretrained is told of a model to be trained: dtype, and quantization_config
    if there is one.

    Raises ParamsError for a key that transformers does not know, or without bitsandbytes.
    """
    dtype = settings.held_dtype(folder)
    if settings.quantization is None:
        return {"dtype": dtype}
    from transformers import BitsAndBytesConfig

    where = f"{section}.quantization"
    known = set(inspect.signature(BitsAndBytesConfig.__init__).parameters) - {"self", "kwargs"}
    for key in sorted(set(settings.quantization) - known):
        what = f"unknown key '{where}.{key}'{params.suggestion(key, sorted(known))}"
        raise ParamsError(what, where=params.PARAMS_FILE)
    if importlib.util.find_spec("bitsandbytes") is None:
        remedy = "make env EXTRAS=dev,qlora"
        raise ParamsError(f"'{where}' needs bitsandbytes", where=params.PARAMS_FILE, remedy=remedy)
    return {"dtype": dtype, "quantization_config": BitsAndBytesConfig(**settings.quantization)}


def prepared(model: "PreTrainedModel", settings: AdapterParams) -> "PreTrainedModel":
    """Return the model made ready for adapters where its matrices are in few bits, or as it is."""
    if settings.quantization is None:
        return model
    from peft import prepare_model_for_kbit_training

    for module in model.modules():  # on some CPUs an evaluation would round for good what training goes on with
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    checkpointing = bool(settings.training.get("gradient_checkpointing"))
    found: PreTrainedModel = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    return found


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


def with_new_tokens(
    adapters: "LoraConfig | None", model: "PreTrainedModel", new: list[int], section: str
) -> "LoraConfig | None":
    """Return adapters under which the rows of tokens that the model has never read are trained too,
    whole.

    Frozen, they would stay as they were drawn: all alike, and the model could not tell the end of a
    turn from its beginning. Raises ParamsError when the params train some of these rows and not
    all.
    """
    if adapters is None or not new:
        return adapters
    modules = {id(module): name for name, module in model.named_modules()}
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    places = [modules[id(module)].rpartition(".")[2] for module in ends if module is not None]
    chosen = adapters.trainable_token_indices
    rows = chosen if isinstance(chosen, dict) else {places[0]: chosen or []}
    whole = set(adapters.modules_to_save or [])
    collect_rows_anywhere()
    if not whole & set(places) and not chosen:
        adapters.trainable_token_indices = {place: list(new) for place in places}
        return adapters
    tied = model.get_output_embeddings() is not None and ends[0].weight is ends[1].weight
    for place in places[:1] if tied else places:
        if place not in whole and not set(new) <= set(rows.get(place, [])):
            what = f"'{section}' leaves new tokens of the chat template untrained in {place}: {new}"
            remedy = f"add {place} to modules_to_save, or set neither that nor trainable_token_indices"
            raise ParamsError(what, where=params.PARAMS_FILE, remedy=remedy)
    return adapters


def collect_rows_anywhere() -> None:
    """Let peft begin rows of tokens from a matrix that ZeRO-3 has split, on a CPU too: its own way
    asks for a GPU.
    """
    from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
    from peft.utils.integrations import gather_params_ctx

    def rows(self: Any, weight: Any, chosen: list[int], width: int) -> Any:
        with gather_params_ctx([weight], modifier_rank=None):  # every process has it inside
            return weight.detach()[chosen].clone()

    TrainableTokensLayer._collect_token_weights = rows


def wrap(model: "PreTrainedModel", adapters: "LoraConfig | None") -> "PreTrainedModel | PeftModel":
    """Return the model with fresh adapters in front of its frozen weights, or as it is.

    Adapters are fp32, but of the base's dtype under ZeRO-3, which gathers weights of one dtype
    only. Raises ParamsError for matrices that peft does not adapt.
    """
    if adapters is None:
        return model
    from peft import get_peft_model
    from transformers.integrations import is_deepspeed_zero3_enabled

    try:
        return get_peft_model(model, adapters, autocast_adapter_dtype=not is_deepspeed_zero3_enabled())
    except ValueError as error:
        raise ParamsError(f"peft refuses: {error}", where="lora.target_modules") from error
