"""Sparse attention by flex attention (Dong et al. 2024), which leaves out whole blocks that no
token sees.

Tokens a stride apart lie in one block only when positions are sorted by their residue: of rows of
2,048 tokens, stride and block 128, 93.8 % of all blocks are then empty, and 46.9 % (those behind
the diagonal) in the order of the text. A layer that has both a window and a stride attends twice,
and the two results are joined by the sums of their softmax. Imported late: needs torch.
"""

from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention
from transformers.masking_utils import and_masks, causal_mask_function, padding_mask_function

from stages.common.core.sparse.pattern import Pattern

NOTHING = -1e30
"""Logarithm of the sum over no token at all; finite, so that its gradient is 0 and no NaN."""


class Part(NamedTuple):
    """What a layer attends to in one call."""

    seen: BlockMask
    order: torch.Tensor | None
    """Positions [T] as they are laid for the call; None: as they stand."""


class Masks(NamedTuple):
    """The parts of each kind of layer."""

    kinds: tuple[tuple[Part, ...], ...]

    def of_layer(self, number: int) -> tuple[Part, ...]:
        """Return the parts of a layer."""
        return self.kinds[number % len(self.kinds)]


def masks(
    pattern: Pattern, rows: int, length: int, visible: Any, padding: torch.Tensor | None, device: torch.device
) -> Masks:
    """Return what `rows` of `length` tokens see by the pattern, `visible` (transformers' mask
    function of row, head, query, key) and `padding` [B, T] (False: padding).
    """
    if padding is not None and not padding.all():
        visible = and_masks(visible, padding_mask_function(padding))
    if visible is causal_mask_function:
        return _plain(pattern, length, device)
    return _made(pattern, rows, length, visible, device)


@lru_cache(maxsize=32)
def _plain(pattern: Pattern, length: int, device: torch.device) -> Masks:
    return _made(pattern, 1, length, causal_mask_function, device)


def _made(pattern: Pattern, rows: int, length: int, visible: Any, device: torch.device) -> Masks:
    order = torch.argsort(torch.arange(length, device=device) % pattern.stride, stable=True)
    window, stride = pattern.window, pattern.stride
    near = lambda distance: distance < window  # noqa: E731  # two of a kind
    far = lambda distance: distance % stride == 0  # noqa: E731
    beyond = lambda distance: (distance >= window) & (distance % stride == 0)  # noqa: E731

    def part(sees: Any, sorted_by: torch.Tensor | None) -> Part:
        def place(number: torch.Tensor) -> torch.Tensor:
            return number if sorted_by is None else sorted_by[number]

        def shown(row: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            asked, stood = place(query), place(key)
            found: torch.Tensor = visible(row, head, asked, stood) & sees(asked - stood)
            return found

        return Part(create_block_mask(shown, rows, None, length, length, device=str(device)), sorted_by)

    if pattern.layers == "all":
        return Masks(((part(near, None), part(beyond, order)),))
    return Masks(((part(near, None),), (part(far, order),)))


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, parts: tuple[Part, ...], scaling: float | None
) -> torch.Tensor:
    """Return attention [B, T, H, D] of [B, H, T, D] over all parts together."""
    found = [_attend(query, key, value, part, scaling) for part in parts]
    if len(found) == 1:
        return found[0][0].transpose(1, 2)
    sums = [one[1].clamp(min=NOTHING) for one in found]
    whole = torch.logsumexp(torch.stack(sums), dim=0)
    joined = sum(result * (one - whole).exp()[..., None] for (result, _), one in zip(found, sums, strict=True))
    assert isinstance(joined, torch.Tensor)
    return joined.to(query.dtype).transpose(1, 2)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, part: Part, scaling: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention [B, H, T, D] and the logarithm [B, H, T] of its softmax's sum."""
    states = (query, key, value)
    if part.order is not None:
        states = tuple(one.index_select(2, part.order) for one in states)  # type: ignore[assignment]
    call = _compiled() if query.device.type == "cuda" else flex_attention
    result, extra = call(*states, block_mask=part.seen, scale=scaling, enable_gqa=True, return_aux=AuxRequest(lse=True))
    if part.order is None:
        return result, extra.lse
    back = torch.argsort(part.order)
    return result.index_select(2, back), extra.lse.index_select(2, back)
