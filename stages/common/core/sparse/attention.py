"""Sparse attention in transformers' models, through its AttentionInterface: a dense mask and
PyTorch's SDPA, or flex attention on a GPU.

The mask that a model's layers are given has an axis of kinds where it has one of heads elsewhere; a
layer takes its own. Whoever gives a model a mask of its own makes it by `Pattern.visible`. Imported
late: needs torch.
"""

from typing import Any, Literal

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

from stages.common.core.sparse import blocks, pattern

LEAST = 128
"""Tokens of a row from which on flex attention has blocks to leave out."""


def register() -> None:
    """Have transformers know the attention by its name; it does nothing to other models."""
    AttentionInterface.register(pattern.NAME, attend)
    AttentionMaskInterface.register(pattern.NAME, mask)


def enable(model: Any, chosen: pattern.Pattern, where: str) -> None:
    """Make a model's attention sparse, for good: its config says so too. Raises ParamsError, naming
    the parameter `where`, for a model that has other attention.
    """
    pattern.refuse(model.config, where)
    register()
    pattern.keep(model.config, chosen)
    model.set_attn_implementation(pattern.NAME)


def kernel(config: Any, device: torch.device, queries: int, keys: int) -> Literal["sdpa", "flex"]:
    """Return what attends: flex attention where whole rows are read on a GPU, else SDPA with a
    mask.

    In PyTorch 2.13 flex attention has no backward pass on a CPU, and it has no dropout.
    """
    dropout = getattr(config, "attention_dropout", None) or getattr(config, "attn_pdrop", None)
    return "flex" if device.type == "cuda" and queries == keys >= LEAST and not dropout else "sdpa"


def mask(batch_size: int, q_length: int, kv_length: int, *, config: Any, **named: Any) -> Any:
    """Return what the layers of a sparse model are given: a mask [B, kinds, Q, K], `blocks.Masks`,
    or None where every layer sees all that stands before; of a dense model, `sdpa_mask`.

    The arguments are transformers'; `mask_function` hides what is of other documents of a row.
    """
    chosen = pattern.of(config)
    if chosen is None:
        return sdpa_mask(batch_size, q_length, kv_length, **named)
    behind, before = named.get("q_offset", 0), named.get("kv_offset", 0)
    if chosen.is_dense(before + kv_length):
        found = sdpa_mask(batch_size, q_length, kv_length, **named)
        return None if found is None else found.expand(-1, chosen.kinds, -1, -1)
    place = torch.device(named.get("device", "cpu"))
    if kernel(config, place, q_length, kv_length) == "flex":
        visible = named.get("mask_function", causal_mask_function)
        return blocks.masks(chosen, batch_size, q_length, visible, named.get("attention_mask"), place)
    whole = sdpa_mask(batch_size, q_length, kv_length, **(named | {"allow_is_causal_skip": False}))
    assert whole is not None
    queries, keys = torch.arange(q_length, device=place) + behind, torch.arange(kv_length, device=place) + before
    return whole & chosen.visible(queries[:, None] - keys)


def attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **named: Any
) -> tuple[torch.Tensor, None]:
    """Return attention [B, T, H, D] of [B, H, T, D], in a layer with a mask of `mask`."""
    if isinstance(attention_mask, blocks.Masks):
        return blocks.attend(query, key, value, attention_mask.of_layer(module.layer_idx), named.get("scaling")), None
    return sdpa_attention_forward(module, query, key, value, of_layer(attention_mask, module), **named)


def of_layer(given: torch.Tensor | None, module: Any) -> torch.Tensor | None:
    """Return a layer's own part [B, 1, Q, K] of a mask [B, kinds, Q, K]. Raises ValueError for a
    mask of another number of kinds, by which a layer would see what it must not.
    """
    if given is None or (chosen := pattern.of(getattr(module, "config", None))) is None:
        return given
    if given.shape[1] != chosen.kinds:
        raise ValueError(f"a mask of {given.shape[1]} kinds for a model that has layers of {chosen.kinds}")
    kind = module.layer_idx % chosen.kinds
    return given[:, kind : kind + 1]
