"""Dropout: added to what a model's layers add to its residual stream, for a training; switched off
where a model's probabilities are compared with those it gave before.
"""

from inspect import signature
from typing import Any

from stages.common.core import params
from stages.common.runtime.errors import ParamsError

NORMED = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)
"""Norms through which some models (Gemma 2, OLMo 2, GLM-4) pass a part's result before it is
added.
"""


def add_residual(model: Any, share: float, where: str) -> None:
    """Have this share of what each layer's parts (attention, feed-forward, experts, recurrences)
    add set to 0 in training, the rest scaled up (Radford et al. 2018, section 4.1; InstructGPT
    trains with 0.2).

    It is of the model in memory alone: neither its config nor its files say so. It comes on top of
    what the config has. Raises ParamsError, naming the parameter `where`, for a model without such
    layers.
    """
    if not share:
        return
    from torch.nn.functional import dropout
    from transformers.modeling_layers import GradientCheckpointingLayer

    def drop(part: Any, given: tuple[Any, ...], named: dict[str, Any], result: Any) -> Any:
        if not part.training:
            return None
        first = result[0] if isinstance(result, tuple) else result
        if isinstance(part, GradientCheckpointingLayer):  # all that the layer adds
            before = given[0] if given else named["hidden_states"]
            first = before + dropout(first - before, share)
        else:
            first = dropout(first, share)
        return (first, *result[1:]) if isinstance(result, tuple) else first

    layers = [one for one in model.get_decoder().modules() if isinstance(one, GradientCheckpointingLayer)]
    if not layers:
        what = f"'{where}': no layers are found in a {model.config.model_type} model"
        raise ParamsError(what, where=params.PARAMS_FILE, remedy="set it to 0.0")
    for part in (part for layer in layers for part in added(layer)):
        part.register_forward_hook(drop, with_kwargs=True)


def added(layer: Any) -> list[Any]:
    """Return the parts of a layer whose results are added to what it was given: those that hold
    matrices, or the norms behind them; the layer itself where its parts do not show what they add
    (OPT has matrices of its own, BLOOM's parts add for themselves).
    """
    from torch import nn

    for names in NORMED:
        if all(hasattr(layer, name) for name in names):
            return [getattr(layer, name) for name in names]
    parts = [
        part
        for part in layer.children()
        if any(len(getattr(one, "ds_shape", one.shape)) > 1 for one in part.parameters())  # ZeRO-3's are empty
    ]
    hidden = any(isinstance(part, nn.Linear) or "residual" in signature(part.forward).parameters for part in parts)
    return [layer] if hidden or not parts else parts


def switch_off(model: Any) -> None:
    """Set every share of dropout, and a router's jitter, to 0 in the modules of a model; its config
    stays.

    transformers' attention has its share as an attribute beside torch's Dropout modules.
    """
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, share in list(vars(module).items()):
            if ("dropout" in name or "jitter" in name) and isinstance(share, float):
                setattr(module, name, 0.0)
