"""Attention of the decoder's own forward: which kernels read a prompt and a step, chosen once for a
model.

Several heads of queries share one of keys. PyTorch's kernel for that (`enable_gqa`) takes neither a
mask nor, on a GPU, 32 bits; with either it falls back to a product of matrices that holds every
weight of attention. On a GPU a step therefore reads the queries of one key as several positions of
one head, which the kernel for masks takes as they are. Imported late: needs torch.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from stages.common.runtime.logs import log

Read = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
Step = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, "torch.Tensor | None", torch.Tensor, float], torch.Tensor]
HALVES = (torch.float16, torch.bfloat16)
LARGEST_HEAD = 256
"""Numbers of a head that flash kernels take."""
AMPERE = (8, 0)
"""FlashAttention's oldest GPU."""


@dataclass(frozen=True)
class Kernels:
    """How a model attends. `read(queries, keys, values, scale)` takes prompts [B, heads, T, D],
    each token seeing those before it. `step(queries, keys, values, mask, lengths, scale)` takes one
    query a row [B, Hq, D] for keys [B, Hkv, T, D], and returns as many numbers [B, Hq, D].
    """

    name: str
    read: Read
    step: Step
    masked: bool
    """Whether a step is told by `mask` [B, 1, 1, T] (added) what a row sees; else by `lengths`
    [B].
    """


def choose(heads: int, pairs: int, size: int, weight: torch.Tensor, sparse: bool = False) -> Kernels:
    """Return the kernels for a model of so many heads of queries and of keys of `size` numbers, its
    weights like `weight`; on a GPU the log says which. A `sparse` model's steps have a mask.
    """
    if weight.device.type != "cuda":
        return Kernels("sdpa", _read, _step, masked=True)
    half = weight.dtype in HALVES and size <= LARGEST_HEAD
    read = _read if heads == pairs or half else _read_repeated
    found = Kernels("sdpa, the queries of a key as its positions", read, _step_folded, masked=True)
    if half and not sparse and has_flash(weight.device):
        found = Kernels("flash_attn over each row's own length", read, _step_flash, masked=False)
    _say(found.name, str(weight.dtype))
    return found


def has_flash(device: torch.device) -> bool:
    """Whether the package flash-attn is installed and knows this GPU."""
    return importlib.util.find_spec("flash_attn") is not None and torch.cuda.get_device_capability(device) >= AMPERE


def is_varlen(queries: torch.Tensor) -> bool:
    """Whether rows that stand one after the other are read by FlashAttention, each over its own
    length: on a GPU that has it, in 16 bits; elsewhere group by group, by SDPA.
    """
    if queries.device.type != "cuda" or queries.dtype not in HALVES or queries.shape[-1] > LARGEST_HEAD:
        return False
    return has_flash(queries.device)


def read_varlen(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    blocks: Sequence[tuple[int, int]],
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> torch.Tensor:
    """Return attention [1, T, H, D] of states [1, H, T, D], whose T are the rows of `blocks` (rows,
    length) one after the other: each token sees those before it in its row.
    """
    from flash_attn import flash_attn_varlen_func

    ends, longest = _ends(tuple(blocks), queries.device)
    states = (one[0].transpose(0, 1) for one in (queries, keys, values))
    found: torch.Tensor = flash_attn_varlen_func(
        *states, ends, ends, longest, longest, dropout_p=dropout, softmax_scale=scaling, causal=True
    )
    return found[None]


@lru_cache(maxsize=1)
def _ends(blocks: tuple[tuple[int, int], ...], device: torch.device) -> tuple[torch.Tensor, int]:
    """Return where rows end, a 0 before, and the longest: the same for all layers of a reading."""
    lengths = torch.tensor([0, *(length for rows, length in blocks for _ in range(rows))], dtype=torch.int32)
    return lengths.cumsum(0, dtype=torch.int32).to(device), int(lengths.max())


@cache
def _say(name: str, dtype: str) -> None:
    log.info("attention of answers: %s (%s)", name, dtype)


def _shared(queries: torch.Tensor, keys: torch.Tensor) -> bool:
    return queries.shape[1] != keys.shape[1]


def _read(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    grouped = _shared(queries, keys)
    return scaled_dot_product_attention(queries, keys, values, scale=scale, is_causal=True, enable_gqa=grouped)


def _read_repeated(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    """As `_read`, each key and value repeated for its queries: of a prompt these are few."""
    times = queries.shape[1] // keys.shape[1]
    keys, values = (states.repeat_interleave(times, dim=1) for states in (keys, values))
    return scaled_dot_product_attention(queries, keys, values, scale=scale, is_causal=True)


def read_masked(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scale: float
) -> torch.Tensor:
    """As a `Read`, each token seeing what `mask` [1, 1, T, T] (True) says."""
    times = queries.shape[1] // keys.shape[1]
    keys, values = (states.repeat_interleave(times, dim=1) for states in (keys, values))
    return scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)


def _step(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    lengths: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    del lengths
    grouped = _shared(queries, keys)
    found = scaled_dot_product_attention(
        queries[:, :, None], keys, values, attn_mask=mask, scale=scale, enable_gqa=grouped
    )
    return found[:, :, 0]


def _step_folded(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    lengths: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """As `_step`, with [B, Hkv, Hq / Hkv, D] queries: all of a key see what the row sees."""
    del lengths
    folded = queries.unflatten(1, (keys.shape[1], -1))
    assert mask is not None
    wide = mask.expand(-1, 1, folded.shape[2], -1)
    return scaled_dot_product_attention(folded, keys, values, attn_mask=wide, scale=scale).flatten(1, 2)


def _step_flash(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    lengths: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """As `_step` by FlashAttention (Dao 2023), which reads no row beyond its length."""
    from flash_attn import flash_attn_with_kvcache

    del mask
    cached = (states.transpose(1, 2) for states in (keys, values))  # [B, T, Hkv, D], as it lies
    found: Any = flash_attn_with_kvcache(
        queries[:, None], *cached, cache_seqlens=lengths.to(torch.int32), softmax_scale=scale
    )
    return found[:, 0]
