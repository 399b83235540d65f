"""Which rows may share a call, by a model's architecture: windows, recurrent layers, RoPE by
length.

Known from the config and the class alone. Imported late: needs transformers.
"""

import math
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


def inner(model: Any) -> Any:
    """Return the transformers model under peft's wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def body(model: Any) -> Any:
    """Return what gives a model's last hidden states: all of it but its head."""
    whole = inner(model)
    found = whole.base_model
    if found is whole:  # a few hold it under another name than they give it
        embeddings = whole.get_input_embeddings()
        found = next(child for child in whole.children() if any(part is embeddings for part in child.modules()))
    return found


def text(config: Any) -> Any:
    """Return the language model's part of a config; with a vision model beside it, it is one of
    several.
    """
    return config.get_text_config(decoder=True)


def window(config: Any) -> float:
    """Return how many tokens the layer that sees the fewest sees; inf: each sees all."""
    sizes = (getattr(text(config), name, None) for name in ("sliding_window", "attention_chunk_size"))
    return min((size for size in sizes if size), default=math.inf)


def is_attention_only(config: Any) -> bool:
    """Whether every layer is attention, full or windowed: no state goes from token to token."""
    kinds = {type(layer) for layer in DynamicCache(config=text(config)).layers}
    return kinds <= {DynamicLayer, DynamicSlidingWindowLayer}


def rope_limit(config: Any) -> float:
    """Return the longest row that is turned by its own positions alone; inf: any.

    With dynamic RoPE (Peng et al. 2023, YaRN, section 3.3) and LongRoPE (Ding et al. 2024) all rows
    of a call are turned as the longest of them is, where that is beyond the model's first context.
    """
    config = text(config)
    known = getattr(config, "rope_parameters", None) or {}
    kinds = [known] if "rope_type" in known else [one for one in known.values() if isinstance(one, dict)]
    limits = [math.inf]
    for one in kinds:
        if one.get("rope_type") == "longrope":
            limits.append(one.get("original_max_position_embeddings") or config.max_position_embeddings)
        elif "dynamic" in str(one.get("rope_type")):
            limits.append(config.max_position_embeddings)
    return min(limits)


def forget_length(model: Any) -> None:
    """Have dynamic RoPE forget the longest row it has met, which would turn shorter ones read after
    it.
    """
    if rope_limit(inner(model).config) == math.inf:
        return
    one = torch.zeros(1, 1, dtype=torch.long, device=next(model.parameters()).device)
    for module in model.modules():
        if hasattr(module, "original_inv_freq"):
            kinds: list[tuple[str, ...]] = (
                [()] if isinstance(module.rope_type, str) else [(kind,) for kind in module.rope_type]
            )
            for kind in kinds:
                module(one.float(), one, *kind)  # transformers starts again at a row that is short
