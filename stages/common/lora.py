"""Low-rank adapters (peft): trained in place of the weights, merged into them in every model that is kept."""

import copy
from typing import TYPE_CHECKING, Any

from stages.common import params

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel


def config(settings: dict[str, Any] | None, section: str, task: str = "CAUSAL_LM") -> "LoraConfig | None":
    """Return peft's LoraConfig from params.yaml (its own key names), or None for full weights. Raises ParamsError.

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


class Merged:
    """Mixin before a `transformers.Trainer`: a kept model is whole, its adapters merged; a checkpoint keeps them apart.

    A copy is merged: taking adapters out again would not give back the same bits to train on with.
    """

    def save_model(self: Any, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the checkpoint's part (internal call) as the library does, else the whole model and its tokenizer."""
        if _internal_call or not hasattr(self.model, "merge_and_unload"):
            super().save_model(output_dir, _internal_call)  # type: ignore[misc]  # mixin: the Trainer comes after it
        elif self.args.should_save:
            merged(self.model).save_pretrained(output_dir)
            self.processing_class.save_pretrained(output_dir)


def merged(model: Any) -> Any:
    """Return a copy of the model with its adapters merged into the weights, or the model itself when it has none."""
    return copy.deepcopy(model).merge_and_unload() if hasattr(model, "merge_and_unload") else model
