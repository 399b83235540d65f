"""The forward of a Llama, Mistral or Qwen2 into a decoder's cache, without what transformers spends
around products.

Norms are one operation instead of six, queries and keys are turned together, nothing is asked or
wrapped on the way, and a prompt, of which only the keys and values are wanted, stops at those of
the last layer. On a CPU the weights are laid out for these products (see `onednn_weights`);
elsewhere the model's own modules make them, so that adapters and weights of few bits count as they
do there.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import rms_norm

from stages.common.core.sparse import pattern
from stages.common.generation import architecture, attention, onednn_weights, packed_forward

if TYPE_CHECKING:
    from stages.common.generation.kv_layer import SlotLayer

FAMILIES = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"})
"""Classes built alike; each is tested against transformers' own forward."""

SHAPES = 32
"""Prompts are read in multiples of so many tokens: a kernel is made for a shape when that is met
first.
"""


@dataclass(frozen=True)
class Block:
    """Prompts of like length: their tokens [B, T], padded on the right, where none looks and
    answers overwrite.
    """

    tokens: torch.Tensor
    rows: torch.Tensor
    """Rows [R] of the cache that they go to."""
    source: torch.Tensor
    """Which of the prompts [R] each of these rows gets."""


def suits(model: Any) -> bool:
    """Whether this model's forward can be made here: of a known class, its weights whole in this
    process.
    """
    inner = architecture.inner(model)
    known = ("sdpa", packed_forward.NAME, pattern.NAME)
    if type(inner).__name__ not in FAMILIES or inner.config._attn_implementation not in known:
        return False
    return not hasattr(inner.model.norm.weight, "ds_id")  # ZeRO-3 gathers a weight when its module is called


def is_watched(model: Any) -> bool:
    """Whether somebody waits for the model's own forward to be called."""
    inner = architecture.inner(model)
    watchers = [one for module in (model, inner) for one in (module._forward_hooks, module._forward_pre_hooks)]
    return any(watchers)


class Forward:
    """A model's forward with its weights as they are now, for as long as they stay so."""

    def __init__(self, model: Any) -> None:
        inner = architecture.inner(model)
        self.body, config = inner.model, inner.config
        self.heads, self.pairs = config.num_attention_heads, config.num_key_value_heads
        lay_out = onednn_weights.pays(inner)
        self.layers = [_Layer(layer, lay_out) for layer in self.body.layers]
        self.head = onednn_weights.product([inner.lm_head], lay_out)
        size = self.body.layers[0].self_attn.head_dim
        self.sparse = pattern.of(config)
        self.kernels = attention.choose(self.heads, self.pairs, size, self.body.norm.weight, self.sparse is not None)

    def read(self, layers: "list[SlotLayer]", blocks: "list[Block]") -> None:
        """Write prompts into the cache's `layers`; all are read at once, and each sees itself."""
        shapes = [block.tokens.shape for block in blocks]
        sizes = [count * width for count, width in shapes]
        spare = torch.zeros(-sum(sizes) % SHAPES, dtype=torch.long, device=blocks[0].tokens.device)
        places = [torch.arange(width, device=spare.device).repeat(count) for count, width in shapes]
        hidden = self.body.embed_tokens(torch.cat([*(block.tokens.flatten() for block in blocks), spare]))  # [N, d]
        angles = self.body.rotary_emb(hidden, torch.cat([*places, spare])[None])
        cos, sin = _turns(*(one[0, :, None] for one in angles))
        masks = [self._masks(width, spare.device) for _, width in shapes]
        for number, (layer, cached) in enumerate(zip(self.layers, layers, strict=True)):
            both, values = self._projected(layer, hidden)  # [N, heads, D]
            both = _turned(both, cos, sin)
            mixed = []
            parts = (states.split([*sizes, len(spare)])[: len(blocks)] for states in (both, values))
            for block, mask, *states in zip(blocks, masks, *parts, strict=True):
                together, own = (one.unflatten(0, block.tokens.shape).transpose(1, 2) for one in states)
                queries, keys = together[:, : self.heads], together[:, self.heads :]  # [B, heads, T, D]
                cached.write(block.rows, keys.index_select(0, block.source), own.index_select(0, block.source))
                if layer is not self.layers[-1]:
                    if mask is None:
                        found = self.kernels.read(queries, keys, own, layer.scaling)
                    else:
                        seen = mask[None, number % len(mask)]
                        found = attention.read_masked(queries, keys, own, seen, layer.scaling)
                    mixed.append(found.transpose(1, 2).flatten(0, 1))
            if layer is not self.layers[-1]:
                whole = torch.cat([*mixed, both.new_zeros(len(spare), *mixed[0].shape[1:])])
                hidden = layer.after(hidden, whole.flatten(1))

    def step(
        self, layers: "list[SlotLayer]", used: int, tokens: torch.Tensor, positions: torch.Tensor, longest: int
    ) -> torch.Tensor:
        """Return the next token's logits [B, V] of the first `used` rows of the cache's `layers`,
        which are written to.

        `tokens` [B] stand at `positions` [B], none beyond `longest`; a row sees what stands before
        it and itself.
        """
        hidden = self.body.embed_tokens(tokens)
        cos, sin = _turns(*self.body.rotary_emb(hidden, positions[:, None]))  # [B, 1, D]
        hidden_from = self._hidden(positions, longest) if self.kernels.masked else None  # [B, kinds, 1, T]
        lengths = positions + 1
        masks = mask = None
        slots = torch.arange(used, device=tokens.device)
        for number, (layer, cached) in enumerate(zip(self.layers, layers, strict=True)):
            both, values = self._projected(layer, hidden)  # [B, heads, D]
            both = _turned(both, cos, sin)
            if masks is None and hidden_from is not None:  # in the states' type; under autocast not the embeddings'
                masks = both.new_zeros(hidden_from.shape).masked_fill_(hidden_from, -torch.inf).split(1, dim=1)
            if masks is not None:
                mask = masks[number % len(masks)]
            cached.keys[slots, :, positions], cached.values[slots, :, positions] = both[:, self.heads :], values
            keys, values = (states[:used, :, : longest + 1] for states in (cached.keys, cached.values))
            mixed = self.kernels.step(both[:, : self.heads], keys, values, mask, lengths, layer.scaling)
            hidden = layer.after(hidden, mixed.reshape(used, -1))
        logits: torch.Tensor = self.head(_norm(self.body.norm, hidden))
        return logits

    def _masks(self, width: int, device: torch.device) -> torch.Tensor | None:
        """Return what the tokens of a prompt see, [kinds, 1, T, T]; None: all before them."""
        if self.sparse is None or self.sparse.is_dense(width):
            return None
        places = torch.arange(width, device=device)
        return self.sparse.visible(places[:, None] - places)[:, None]

    def _hidden(self, positions: torch.Tensor, longest: int) -> torch.Tensor:
        """Return what is hidden [B, kinds, 1, T] from tokens at `positions` [B]."""
        places = torch.arange(longest + 1, device=positions.device)
        if self.sparse is None:
            return (places > positions[:, None])[:, None, None]
        return ~self.sparse.visible((positions[:, None] - places)[:, None])

    def _projected(self, layer: "_Layer", hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return queries with keys [..., Hq + Hkv, D], and values [..., Hkv, D]."""
        states = layer.project(_norm(layer.before, hidden)).unflatten(-1, (self.heads + 2 * self.pairs, -1))
        return states[..., : -self.pairs, :], states[..., -self.pairs :, :]


class _Layer:
    """One layer's products and norms."""

    def __init__(self, layer: Any, lay_out: bool) -> None:
        attended, mlp = layer.self_attn, layer.mlp
        self.before, self.between, self.scaling = (
            layer.input_layernorm,
            layer.post_attention_layernorm,
            attended.scaling,
        )
        self.project = onednn_weights.product([attended.q_proj, attended.k_proj, attended.v_proj], lay_out)
        self.out = onednn_weights.product([attended.o_proj], lay_out)
        self.feed_forward = onednn_weights.feed_forward(mlp, lay_out)

    def after(self, hidden: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """Return the layer's result from what it was given and what its heads found."""
        hidden = hidden + self.out(mixed)
        return hidden + self.feed_forward(_norm(self.between, hidden))


def _turns(cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines, and sines with the sign that spares turning a negation."""
    half = sin.shape[-1] // 2
    return cos, torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)


def _turned(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return states [..., D] turned by their positions (Su et al. 2021, RoFormer, equation 34)."""
    return states * cos + states.roll(sin.shape[-1] // 2, dims=-1) * sin


def _norm(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    return rms_norm(hidden, module.weight.shape, module.weight, module.variance_epsilon)
