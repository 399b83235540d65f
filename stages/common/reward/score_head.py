"""The score head over any language model: where it sits, and that it stays in fp32."""

from typing import TYPE_CHECKING, Any

from stages.common.core import models
from stages.common.runtime.errors import DataError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel


def whole_head(model: "PreTrainedModel") -> "PreTrainedModel":
    """Return the model with its score head in fp32, whatever the layers below are in; DeepSpeed,
    which may have split it, has all weights of a model in one dtype.
    """
    head = model.get_submodule("score")
    if not hasattr(head.weight, "ds_id"):
        head.float()
    head.register_forward_pre_hook(lambda head, given: (given[0].to(head.weight.dtype), *given[1:]))
    return model


def draw(head: Any, before: "torch.Tensor") -> None:
    """Fill a new head [heads, d] with N(0, 1 / (d + 1)) (Stiennon et al. 2020).

    Where ZeRO-3 has split it, the main process alone has drawn what transformers begins it with.
    All start again from `before`, the generator's state at that time, and end as one process would.
    """
    import torch

    if not hasattr(head, "ds_id"):
        torch.nn.init.normal_(head, std=(head.shape[1] + 1) ** -0.5)
        return
    import deepspeed

    torch.set_rng_state(before)
    drawn = torch.empty(head.ds_shape)
    for _ in range(2):
        torch.nn.init.normal_(drawn, std=(drawn.shape[1] + 1) ** -0.5)
    with deepspeed.zero.GatheredParameters([head], modifier_rank=0):
        head.data.copy_(drawn)


def register(config: "PretrainedConfig") -> None:
    """Make transformers know a classifier of this kind of model where it has none: a head over the
    base model.

    Raises DataError for a model that is no language model of transformers.
    """
    from transformers import AutoModelForSequenceClassification, PreTrainedModel
    from transformers.modeling_layers import GenericForSequenceClassification
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        MODEL_MAPPING,
    )

    kind = type(config)
    if kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING or kind not in MODEL_MAPPING:
        what = f"a {config.model_type} model has no base model to put a score head on"
        raise DataError(what, remedy="use another base model, or the stages dpo or orpo")
    family = next(one for one in MODEL_MAPPING[kind].__mro__[1:] if issubclass(one, PreTrainedModel))
    made: dict[str, Any] = {"config_class": kind, "config": kind, "base_model_prefix": names(config)[0]}
    # All its parts are transformers' own: those that make buffers anew after loading must do so.
    made["is_custom_code"] = classmethod(lambda cls: False)
    name = MODEL_FOR_CAUSAL_LM_MAPPING[kind].__name__.replace("ForCausalLM", "") + "ForSequenceClassification"
    made_class = type(name, (GenericForSequenceClassification, family), made)
    # Without exist_ok it passes over a config class of its own without a word.
    AutoModelForSequenceClassification.register(kind, made_class, exist_ok=True)


def names(config: "PretrainedConfig") -> tuple[str, str]:
    """Return under which names a language model of this config holds its base model and its
    head.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from stages.common.generation import architecture

    with torch.device("meta"), models.unsplit():
        model = AutoModelForCausalLM.from_config(config)
    parts = {id(module): name for name, module in model.named_modules()}
    return parts[id(architecture.body(model))], parts[id(model.get_output_embeddings())]


HEADS = "reward_heads"
"""Key of config.json: how many outputs of the score head are rewards, each a head of an ensemble;
absent where there is one.
"""


def offsets(config: "PretrainedConfig") -> list[float]:
    """Return what is taken off each head's score: 0 until `reward_offset` is known."""
    count, found = int(getattr(config, HEADS, 1)), getattr(config, "reward_offset", 0.0)
    return [float(one) for one in found] if isinstance(found, list) else [float(found)] * count


def folded(model: "PreTrainedModel") -> "PreTrainedModel":
    """Return the model with one head, the mean of all: what a single number is read from."""
    import torch

    count = int(getattr(model.config, HEADS, 1))
    if count == 1:
        return model
    head = model.get_submodule("score")
    one = torch.nn.Linear(head.weight.shape[1], 1, bias=False, device=head.weight.device, dtype=head.weight.dtype)
    one.weight.data = head.weight.data.mean(0, keepdim=True)
    model.score = one
    known = offsets(model.config)
    model.config.num_labels, model.config.reward_offset = 1, sum(known) / count
    delattr(model.config, HEADS)
    model.num_labels = 1
    return whole_head(model)


def head_outputs(head: Any, hidden: "torch.Tensor") -> "torch.Tensor":
    """Return a head's only output [n] for hidden states [n, d], of several heads all [n, K], in
    fp32.

    The head has its own precision whatever autocast says: bf16 has eight bits, scores differ by
    less.
    """
    import torch

    with torch.autocast(hidden.device.type, enabled=False):
        found: torch.Tensor = head(hidden.to(next(head.parameters()).dtype)).float()
    return found[:, 0] if found.shape[1] == 1 else found
