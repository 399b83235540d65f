"""Rows of unlike length in one call: everything but attention sees one long row, attention sees groups of like length.

The products with the weights then have all tokens at once and next to no padding, which on a CPU is what they are fast
at. Imported late: it needs torch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

NAME = "lathe_packed"
GROUP_TOKENS, CALL_TOKENS = 16, 48
"""Rows of unlike length attend in several groups, and are read in several calls, rather than with more padding."""
TOLERANCE = 1e-4
CHECKED = ((1, 3), (1, 5), (2, 4))
"""Groups that `enable` tries, as rows and tokens."""


def inner(model: Any) -> Any:
    """Return the transformers model under peft's wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def groups(model: Any, lengths: Sequence[int]) -> list[list[int]]:
    """Return indices in groups of like length, with no more padding than a call, or a packed group, costs `model`."""
    padding = GROUP_TOKENS if inner(model).config._attn_implementation == NAME else CALL_TOKENS
    found: list[list[int]] = []
    spent = 0
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if found:
            spent += (lengths[index] - lengths[found[-1][-1]]) * len(found[-1])
        if not found or spent > padding:
            found.append([])
            spent = 0
        found[-1].append(index)
    return found


def enable(model: Any) -> bool:
    """Let `read` give a model several groups at once, where it reads them as it reads each alone; say whether it does.

    It does when its attention is transformers' SDPA and knows a token's place by `position_ids` alone.
    """
    config = inner(model).config
    if config._attn_implementation == NAME:
        return True
    if config._attn_implementation != "sdpa":
        return False
    _register()
    device = next(model.parameters()).device
    blocks = [torch.arange(1, rows * length + 1).view(rows, length) % config.vocab_size for rows, length in CHECKED]
    with torch.no_grad():
        alone = torch.cat([_hidden(model, [block], device) for block in blocks])
        inner(model).set_attn_implementation(NAME)
        try:
            fits = torch.allclose(_hidden(model, blocks, device), alone, rtol=TOLERANCE, atol=TOLERANCE)
        except (TypeError, ValueError, RuntimeError, IndexError):
            fits = False
    if not fits:
        inner(model).set_attn_implementation("sdpa")
    return fits


def read(model: Any, rows: Sequence[Sequence[int]], together: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the last hidden states [T, d] of the rows of `groups`, one after the other, each padded on the right to
    the longest of its group; in one call where `enable` allowed it, else in one for each group.

    No mask: tokens never see the padding to their right. Raises ValueError for a row beyond a sliding window.
    """
    device = next(model.parameters()).device
    blocks = [pad_sequence([torch.tensor(rows[row]) for row in group], batch_first=True) for group in together]
    if inner(model).config._attn_implementation == NAME:
        return _hidden(model, blocks, device)
    return torch.cat([_hidden(model, [block], device) for block in blocks])


def _hidden(model: Any, blocks: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    body = inner(model).base_model
    if len(blocks) == 1:
        hidden: torch.Tensor = body(input_ids=blocks[0].to(device), use_cache=False).last_hidden_state
        return hidden.flatten(0, 1)
    places = [torch.arange(block.shape[1]).repeat(block.shape[0]) for block in blocks]
    packed: torch.Tensor = body(
        input_ids=torch.cat([block.flatten() for block in blocks])[None].to(device),
        position_ids=torch.cat(places)[None].to(device),
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),  # has four axes, so no other is made
        packed_blocks=[tuple(block.shape) for block in blocks],
        use_cache=False,
    ).last_hidden_state
    return packed[0]


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packed_blocks: Sequence[tuple[int, int]] | None = None,
    **named: Any,
) -> tuple[torch.Tensor, None]:
    """Return attention [B, T, H, D] of [B, H, T, D]; with blocks (B = 1), each row of each block sees itself alone."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if packed_blocks is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **named)
    window = named.get("sliding_window")
    if window and any(length > window for _, length in packed_blocks):
        raise ValueError(f"packed rows must not be longer than the sliding window of {window} tokens")
    sizes = [rows * length for rows, length in packed_blocks]
    taken = zip(*(states[0].split(sizes, dim=1) for states in (query, key, value)), strict=True)  # back in one piece
    parts = []
    for (rows, length), block in zip(packed_blocks, taken, strict=True):
        apart = [states.unflatten(1, (rows, length)).transpose(0, 1) for states in block]
        parts.append(sdpa_attention_forward(module, *apart, None, **named)[0].flatten(0, 1))
    return torch.cat(parts)[None], None
