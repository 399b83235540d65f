"""Key-value caches of many answers at once: `Slots`, whose rows come and go at any time, and
`Padded` for other models.

Both read prompts (`admit`), make one step of all rows (`step`) and let rows leave (`keep`);
generation.py drives them. Imported where needed: it needs transformers' classes to derive from.
"""

import inspect
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from stages.common.core.sparse import pattern
from stages.common.generation import architecture, llama_forward, packed_forward
from stages.common.generation.kv_layer import SlotLayer
from stages.common.memory import available

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Models that take a mask [B, 1, 1, T] and positions as they are given; each is tested against
# transformers' generate.
SLOT_MODELS = frozenset({"gemma", "gpt2", "gpt_neox", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"})
BLOCK = 64
PREFILL_TOKENS = 4096
SHARE = 0.8
"""Of the memory that is free, what a cache may take; the rest is for activations and logits."""


def most_tokens(model: "PreTrainedModel") -> int | None:
    """Return how many tokens of all rows together the memory that is free now has room for; None
    for a model whose config does not say what a token takes.
    """
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if not isinstance(heads, int) or not isinstance(size, int):  # they differ from layer to layer
        return None
    token = 2 * config.num_hidden_layers * heads * size * model.dtype.itemsize
    free = available.unused(model.device, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return int(SHARE * free) // token


def rows_within(tokens: int | None, longest: int, most: int) -> int:
    """Return how many rows, `most` at most and one at least, a cache of so many tokens has room for
    when the longest of them has reached its end.
    """
    return most if tokens is None else max(1, min(most, tokens // (-(-longest // BLOCK) * BLOCK)))


def for_model(model: "PreTrainedModel", rows: int, tokens: int | None = None) -> "Slots | Padded":
    """Return the cache this model decodes with: `Slots` for the models it is made for, else
    `Padded`. It has room for `rows` rows, for fewer where these would be more than `tokens` tokens.

    Models whose rows do not share calls at all are `transformers_generate`'s.
    """
    config = model.config.get_text_config(decoder=True)
    plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
    if (
        config.model_type in SLOT_MODELS
        and config._attn_implementation in ("sdpa", "eager", packed_forward.NAME, pattern.NAME)
        and plain
    ):
        return Slots(model, rows, tokens)
    return Padded(model, rows)


class Slots:
    """Rows of one cache that leave and are refilled while the others go on; none waits, none is
    padded on the left.

    A row keeps its place [0, capacity) and hides what lies behind its own position; a row that
    leaves is overwritten by the last one, so that the rows in use are always the first ones and a
    step sees a view of them.
    """

    refills = True

    def __init__(self, model: "PreTrainedModel", rows: int, tokens: int | None = None) -> None:
        self.model, self.rows, self.used, self.capacity = model, rows, 0, 0
        self.most, self.tokens = rows, tokens
        self.layers = [SlotLayer(rows) for _ in range(model.config.get_text_config(decoder=True).num_hidden_layers)]
        self.cache = Cache(layers=self.layers)
        self.short = llama_forward.Forward(model) if llama_forward.suits(model) else None
        self.is_eager = model.config.get_text_config(decoder=True)._attn_implementation == "eager"

    def admit(self, prefixes: Sequence[Sequence[int]], repeats: Sequence[int], longest: int) -> None:
        """Read the prefixes, each once, into as many rows as `repeats` says; `longest` is that of
        the rows in use.
        """
        need = max(longest, *(len(prefix) for prefix in prefixes)) + 1
        rows = self.used + sum(repeats)
        if rows > self.rows or not need <= self.capacity <= 2 * need + BLOCK:
            self.most = max(self.most, rows)
            self.rows = max(rows, rows_within(self.tokens, need, self.most))
            self._resize(need)
        start = 0
        while start < len(prefixes):
            stop = start + max(1, PREFILL_TOKENS // max(1, len(prefixes[start])))
            self._read(prefixes[start:stop], repeats[start:stop])
            start = stop

    def _read(self, prefixes: Sequence[Sequence[int]], repeats: Sequence[int]) -> None:
        source = [number for number, count in enumerate(repeats) for _ in range(count)]
        forward, lengths = self._own_forward(), [len(prefix) for prefix in prefixes]
        together = packed_forward.groups(self.model, lengths) if forward else [list(range(len(prefixes)))]
        blocks = [self._block(prefixes, source, group) for group in together if any(lengths[one] for one in group)]
        if blocks and forward:
            forward.read(self.layers, blocks)
        elif blocks:
            self._read_by_model(blocks[0])
        self.used += len(source)

    def _block(self, prefixes: Sequence[Sequence[int]], source: list[int], group: list[int]) -> llama_forward.Block:
        width = max(len(prefixes[one]) for one in group)
        tokens = [[*prefixes[one], *[0] * (width - len(prefixes[one]))] for one in group]
        places = {one: place for place, one in enumerate(group)}
        held = [(self.used + row, places[one]) for row, one in enumerate(source) if one in places]
        made = (torch.tensor(one, device=self.model.device) for one in (tokens, *zip(*held, strict=True)))
        return llama_forward.Block(*made)

    def _read_by_model(self, block: llama_forward.Block) -> None:
        for layer in self.layers:
            layer.source, layer.used = block.source, self.used
        width = block.tokens.shape[1]
        self.model(
            input_ids=block.tokens,
            position_ids=torch.arange(width, device=block.tokens.device).expand(len(block.tokens), -1),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )

    def _own_forward(self) -> llama_forward.Forward | None:
        return self.short if self.short and not llama_forward.is_watched(self.model) else None

    def step(self, tokens: torch.Tensor, positions: torch.Tensor, longest: int) -> torch.Tensor:
        """Return the next token's logits [B, V] of all rows, given their last tokens [B] and where
        these stand [B].
        """
        if longest >= self.capacity:
            self._resize(longest + 1)
        if self.layers[0].is_initialized and (forward := self._own_forward()):
            return forward.step(self.layers, self.used, tokens, positions, longest)
        slots = torch.arange(self.used, device=tokens.device)
        for layer in self.layers:
            layer.source, layer.used, layer.length = None, self.used, longest + 1
            layer.slots, layer.positions = slots, positions
        distance = (positions[:, None] - torch.arange(longest + 1, device=tokens.device))[:, None]
        sparse = pattern.of(self.model.config)
        mask = sparse.visible(distance) if sparse else (distance >= 0)[:, None]
        if self.is_eager:  # it adds the mask
            mask = torch.zeros_like(mask, dtype=self.model.dtype).masked_fill_(~mask, torch.finfo(self.model.dtype).min)
        output = self.model(
            input_ids=tokens[:, None],
            attention_mask=mask,
            position_ids=positions[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.logits[:, -1]

    def keep(self, order: torch.Tensor) -> None:
        """Keep the rows in `order` [B]: a row moves only into the place of one that leaves (see
        `survivors`).
        """
        moved = (order != torch.arange(len(order), device=order.device)).nonzero()[:, 0]
        self.used = len(order)
        if len(moved):
            for layer in self.layers:
                for cached in (layer.keys, layer.values):
                    if cached is not None:
                        cached[moved] = cached[order[moved]]

    def _resize(self, need: int) -> None:
        self.capacity = -(-need // BLOCK) * BLOCK
        for layer in self.layers:
            layer.used, layer.rows = self.used, self.rows
            layer.resize(self.capacity)


class Padded:
    """transformers' own cache and two-dimensional masks, for any model that has one: rows leave, a
    new batch waits.
    """

    refills = False

    def __init__(self, model: "PreTrainedModel", rows: int) -> None:
        del rows  # the cache is as large as the batch
        accepted = inspect.signature(architecture.inner(model).forward).parameters
        self.model = model
        self.takes_positions = "position_ids" in accepted
        self.short = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def admit(self, prefixes: Sequence[Sequence[int]], repeats: Sequence[int], longest: int) -> None:
        """Read the prefixes, each once, into as many rows as `repeats` says."""
        del longest  # there are no rows in use
        device, width = self.model.device, max(len(prefix) for prefix in prefixes)
        self.cache = DynamicCache(config=self.model.config)
        tokens = torch.tensor([[*[0] * (width - len(prefix)), *prefix] for prefix in prefixes], device=device)
        lengths = torch.tensor([len(prefix) for prefix in prefixes], device=device)
        self.mask = (torch.arange(width, device=device) >= width - lengths[:, None]).long()
        source = torch.repeat_interleave(torch.tensor(repeats)).to(device)
        if width:
            self._forward(tokens.view(len(prefixes), width), (self.mask.cumsum(-1) - 1).clamp(min=0))
        self.keep(source)

    def step(self, tokens: torch.Tensor, positions: torch.Tensor, longest: int) -> torch.Tensor:
        """Return the next token's logits [B, V] of all rows, given their last tokens [B] and where
        these stand [B].
        """
        del longest
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        return self._forward(tokens[:, None], positions[:, None])

    def _forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        placed = {"position_ids": positions} if self.takes_positions else {}
        output = self.model(
            input_ids=tokens,
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            **placed,
            **self.short,
        )
        return output.logits[:, -1]

    def keep(self, order: torch.Tensor) -> None:
        """Keep the rows in `order` [B]."""
        self.mask = self.mask[order]
        self.cache.batch_select_indices(order)
