"""Rows of unlike length in one call: everything but attention sees one long row, attention sees
groups of like length.

The products with the weights then have all tokens at once and next to no padding, which on a CPU is
what they are fast at; and the last layer's feed-forward part is worked out only where its result is
wanted. Imported late: needs torch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from stages.common.core.sparse import attention as sparse
from stages.common.core.sparse import pattern
from stages.common.generation import architecture, attention
from stages.common.generation.architecture import body, inner

NAME = "lathe_packed"
GROUP_TOKENS, CALL_TOKENS = 16, 48
"""Rows of unlike length attend in several groups, and are read in several calls, rather than with
more padding.
"""
TOLERANCE = 1e-4
TENS = 4 * 2**-10  # for products of ten bits, which a GPU may take of fp32 numbers (TF32)
CHECKED = ([1, 2, 3], [4, 5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16])
"""Rows that `enable` tries, the last two as one group."""


def groups(model: Any, lengths: Sequence[int]) -> list[list[int]]:
    """Return indices in groups of like length, with no more padding than a call, or a packed group,
    costs `model`.

    They are of one length where the longest row of a call changes how the others are read.
    """
    config = inner(model).config
    padding = GROUP_TOKENS if config._attn_implementation == NAME else CALL_TOKENS
    if max(lengths, default=0) > architecture.rope_limit(config):
        padding = 0
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
    """Let `read` give a model several groups at once, where it reads them as it reads each alone;
    say whether it does.

    It does when its layers are attention, by transformers' SDPA, and know a token's place by
    `position_ids` alone.
    """
    config = inner(model).config
    if config._attn_implementation == NAME:
        return True
    before = config._attn_implementation
    if before not in ("sdpa", pattern.NAME) or not architecture.is_attention_only(config):
        return False
    _register()
    rows = [[token % architecture.text(config).vocab_size for token in row] for row in CHECKED]
    together = [[0], [1], [2, 3]]
    places = [1, 2, 5, 11, 15]
    with torch.no_grad(), whole(model):
        alone = read(model, rows, together, places)
        rounding = max(TOLERANCE, 4 * torch.finfo(alone.dtype).eps, TENS if alone.is_cuda else 0)
        inner(model).set_attn_implementation(NAME)
        hooks = _hooked(model)
        try:
            if torch.allclose(read(model, rows, together, places), alone, rtol=rounding, atol=rounding):
                return True
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
            pass
    inner(model).set_attn_implementation(before)
    for hook in hooks:
        hook.remove()
    return False


@contextmanager
def whole(model: Any) -> Iterator[None]:
    """Inside, weights that ZeRO-3 has split among the processes are whole in each; not to be
    changed.
    """
    split = [weight for weight in model.parameters() if hasattr(weight, "ds_id")]
    if not split:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(split):
        yield


@contextmanager
def whole_in_turn(model: Any) -> Iterator[None]:
    """Inside, a module of a model that ZeRO-3 has split has its own weights whole while it is
    called, as in training: never more than a few. Every process calls the same.
    """
    opened: list[Any] = []

    def gather(module: Any, _: Any) -> None:
        import deepspeed

        with torch.inference_mode(False):  # memory that autograd refuses would stay in the weights
            opened.append(deepspeed.zero.GatheredParameters(list(module.parameters(recurse=False))))
            opened[-1].__enter__()

    def release(*_: Any) -> None:
        with torch.inference_mode(False):
            opened.pop().__exit__(None, None, None)

    hooks: list[Any] = []
    for module in model.modules():
        if any(hasattr(weight, "ds_id") for weight in module.parameters(recurse=False)):
            hooks.append(module.register_forward_pre_hook(gather))
            hooks.append(module.register_forward_hook(release, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def read(
    model: Any, rows: Sequence[Sequence[int]], together: Sequence[Sequence[int]], places: Sequence[int]
) -> torch.Tensor:
    """Return the last hidden states [n, d] at `places` of the rows of `groups`, which stand one
    after the other, each padded on the right to the longest of its group; in one call where
    `enable` allowed it and no row is longer than a sliding window or than RoPE by length allows,
    else in one for each group. No mask: tokens never see the padding to their right.
    """
    device = next(model.parameters()).device
    blocks = [pad_sequence([torch.tensor(rows[row]) for row in group], batch_first=True) for group in together]
    wanted = torch.tensor(places, device=device)
    config = inner(model).config
    limit = min(architecture.window(config), architecture.rope_limit(config))
    if config._attn_implementation != NAME or max(block.shape[1] for block in blocks) > limit:
        return torch.cat([_alone(model, block.to(device)) for block in blocks])[wanted]
    with _wanted(model, wanted):
        return _packed(model, blocks, device).index_select(0, wanted)


def _alone(model: Any, block: torch.Tensor) -> torch.Tensor:
    architecture.forget_length(model)
    hidden: torch.Tensor = body(model)(input_ids=block, use_cache=False).last_hidden_state
    return hidden.flatten(0, 1)


def _packed(model: Any, blocks: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    positions = [torch.arange(block.shape[1]).repeat(block.shape[0]) for block in blocks]
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)  # has four axes, so that no other is made
    packed = body(model)(
        input_ids=torch.cat([block.flatten() for block in blocks])[None].to(device),
        position_ids=torch.cat(positions)[None].to(device),
        attention_mask=mask,
        packed_blocks=[tuple(block.shape) for block in blocks],
        use_cache=False,
    )
    hidden: torch.Tensor = packed.last_hidden_state[0]
    return hidden


def _feed_forward(model: Any) -> Any:
    """Return the last layer's feed-forward part, or None where it is not to be found by its usual
    name.
    """
    layers = getattr(body(model).get_decoder(), "layers", None)
    return getattr(layers[-1], "mlp", None) if layers is not None else None


def _hooked(model: Any) -> list[Any]:
    """Have the last layer's feed-forward part read no more than `_wanted` says; return what takes
    that back.
    """
    part = _feed_forward(model)
    if part is None:
        return []
    part.packed_places = None

    def shorten(module: Any, given: tuple[torch.Tensor, ...]) -> Any:
        if module.packed_places is None:
            return None
        module.packed_tokens = given[0].shape[1]
        return given[0].index_select(1, module.packed_places), *given[1:]

    def widen(module: Any, _: Any, result: torch.Tensor) -> Any:
        if module.packed_places is None:
            return None
        whole = result.new_zeros(result.shape[0], module.packed_tokens, result.shape[2])
        return whole.index_copy(1, module.packed_places, result)

    return [part.register_forward_pre_hook(shorten), part.register_forward_hook(widen)]


@contextmanager
def _wanted(model: Any, places: torch.Tensor) -> Iterator[None]:
    """Inside, the last feed-forward part is worked out at `places` alone; not where it will be
    worked out again.
    """
    part = _feed_forward(model)
    if part is None or inner(model).is_gradient_checkpointing:
        yield
        return
    part.packed_places = places
    try:
        yield
    finally:
        part.packed_places = None


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sparse.mask)


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packed_blocks: Sequence[tuple[int, int]] | None = None,
    **named: Any,
) -> tuple[torch.Tensor, None]:
    """Return attention [B, T, H, D] of [B, H, T, D]; with blocks (B = 1), each row of each block
    sees itself alone.
    """
    if packed_blocks is None:
        return sparse.attend(module, query, key, value, attention_mask, **named)
    if attention.is_varlen(query) and pattern.of(getattr(module, "config", None)) is None:
        return attention.read_varlen(query, key, value, packed_blocks, **named), None
    sizes = [rows * length for rows, length in packed_blocks]
    taken = zip(*(states[0].split(sizes, dim=1) for states in (query, key, value)), strict=True)  # back in one piece
    parts = []
    for (rows, length), block in zip(packed_blocks, taken, strict=True):
        apart = [states.unflatten(1, (rows, length)).transpose(0, 1) for states in block]
        mask = sparse.mask(1, length, length, config=getattr(module, "config", None), device=query.device)
        asked, keys, values = apart
        parts.append(sparse.attend(module, asked, keys, values, mask, **named)[0].flatten(0, 1))
    return torch.cat(parts)[None], None
