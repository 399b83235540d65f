"""One decoding step of a Llama, Mistral or Qwen2 without what transformers spends around its products.

The model's own modules make the products, so adapters and weights of few bits count as they do there. Norms are one
operation instead of six, queries and keys are turned together, and nothing is asked or wrapped on the way: with few
rows of a small model, and on a GPU that waits for its next kernel, that is much of a step.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from stages.common import packed

if TYPE_CHECKING:
    from stages.common.decoding_caches import SlotLayer

FAMILIES = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"})
"""Classes built alike; each is tested against transformers' own forward."""


def suits(model: Any) -> bool:
    """Whether this model's steps can be made here: of a known class, its weights whole in this process."""
    inner = packed.inner(model)
    if type(inner).__name__ not in FAMILIES or inner.config._attn_implementation not in ("sdpa", packed.NAME):
        return False
    return not hasattr(inner.model.norm.weight, "ds_id")  # ZeRO-3 gathers a weight when its module is called


def is_watched(model: Any) -> bool:
    """Whether somebody waits for the model's own forward to be called."""
    inner = packed.inner(model)
    watchers = [one for module in (model, inner) for one in (module._forward_hooks, module._forward_pre_hooks)]
    return any(watchers)


def step(
    model: Any, layers: "list[SlotLayer]", used: int, tokens: torch.Tensor, positions: torch.Tensor, longest: int
) -> torch.Tensor:
    """Return the next token's logits [B, V] of the first `used` rows of the cache's `layers`, which are written to.

    `tokens` [B] stand at `positions` [B], none of them beyond `longest`; a row sees what stands before it and itself.
    """
    inner = packed.inner(model)
    body = inner.model
    mask = (torch.arange(longest + 1, device=tokens.device) <= positions[:, None])[:, None, None]
    slots = torch.arange(used, device=tokens.device)
    hidden = body.embed_tokens(tokens)
    cos, sin = body.rotary_emb(hidden, positions[:, None])  # [B, 1, D]
    half = sin.shape[-1] // 2
    sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)  # so that turning needs no negation
    for layer, cached in zip(body.layers, layers, strict=True):
        attention = layer.self_attn
        normed = _norm(layer.input_layernorm, hidden)
        queries = attention.q_proj(normed).view(used, -1, attention.head_dim)
        keys = attention.k_proj(normed).view(used, -1, attention.head_dim)
        heads, both = queries.shape[1], torch.cat((queries, keys), dim=1)  # [B, Hq + Hkv, D]
        turned = both * cos + both.roll(half, dims=-1) * sin
        values = attention.v_proj(normed).view(used, -1, attention.head_dim)
        cached.keys[slots, :, positions], cached.values[slots, :, positions] = turned[:, heads:], values
        mixed = scaled_dot_product_attention(
            turned[:, :heads, None],
            cached.keys[:used, :, : longest + 1],
            cached.values[:used, :, : longest + 1],
            attn_mask=mask,
            scale=attention.scaling,
            enable_gqa=heads != keys.shape[1],
        )
        hidden = hidden + attention.o_proj(mixed.reshape(used, -1))
        hidden = hidden + layer.mlp(_norm(layer.post_attention_layernorm, hidden))
    logits: torch.Tensor = inner.lm_head(_norm(body.norm, hidden))
    return logits


def _norm(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    return rms_norm(hidden, module.weight.shape, module.weight, module.variance_epsilon)
