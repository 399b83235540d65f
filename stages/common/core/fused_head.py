"""Log-probabilities without the logits of a whole batch: a vocabulary of 150,000 makes those the
largest tensor of all.

A batch of few logits is scored by the model itself; a larger one by TRL's fused head, which goes
over tokens and vocabulary in tiles and works them out again in the backward pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

BUDGET = 2**26
"""Logits held at once: 256 MiB in fp32, three to four times that with the softmax and its gradient.
"""
TILE_LOGITS, TILE_WIDTH = BUDGET, 2**15
"""Logits of one of TRL's tiles, and the most entries of the vocabulary it is wide; its tokens are
4096 unless `bound_tiles` makes them fewer.
"""


def fits(model: Any, positions: int) -> bool:
    """Whether the logits of a model at so many positions may be held at once."""
    return positions <= at_once(model)


def at_once(model: Any) -> int:
    """Return at how many positions the logits of a model may be held at once, at least at one."""
    return max(1, BUDGET // vocabulary(model))


def vocabulary(model: Any) -> int:
    """Return the entries of the vocabulary of a model, which may be wrapped."""
    return int(getattr(model, "module", model).config.get_text_config(decoder=True).vocab_size)


def bound_tiles(model: Any) -> None:
    """Let TRL's tiles hold no more than TILE_LOGITS of a model's logits, in this process from
    now on.
    """
    from trl.kernels import chunked_logprob

    most = TILE_LOGITS // min(TILE_WIDTH, vocabulary(model))
    chunked_logprob.TOKEN_CHUNK_SIZE = min(chunked_logprob.TOKEN_CHUNK_SIZE, most)


@contextmanager
def tiles_kept() -> Iterator[None]:
    """Leave the size of TRL's tiles as it is: sums of other tiles round otherwise, so who only
    looks on must not change it.
    """
    from trl.kernels import chunked_logprob

    held = chunked_logprob.TOKEN_CHUNK_SIZE
    try:
        yield
    finally:
        chunked_logprob.TOKEN_CHUNK_SIZE = held


def add(model: Any) -> Any:
    """Let a model answer `log_probs`; without being asked it does as before. Returns the model."""
    from trl.trainer.utils import add_fused_lm_head

    bound_tiles(model)
    add_fused_lm_head(model)
    return model


@contextmanager
def added(model: Any) -> Iterator[None]:
    """Let a model answer `log_probs` inside."""
    held = vars(model).get("forward")
    add(model)
    try:
        yield
    finally:
        if held is None:
            del model.forward
        else:
            model.forward = held


def log_probs(model: Any, features: dict[str, Any], labels: "torch.Tensor") -> "torch.Tensor":
    """Return [B, T - 1] log-probabilities of `labels` [B, T] but the first, 0 where there is none
    (-100).

    The model, which may be wrapped, has the fused head (`add`).
    """
    found: torch.Tensor = model(**features, labels=labels, fused_lm_head=True, use_cache=False).log_probs
    return found
