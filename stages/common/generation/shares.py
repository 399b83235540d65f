"""Answers by all processes of a stage: prompts are cut into shares that do not depend on how many
there are.

A share is one call of the decoder, so its rows stand beside those that they stand beside in one
process. With others a row's sums may round otherwise, and of two tokens that are nearly alike the
other one be chosen.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from stages.common.generation import generator
from stages.common.runtime import ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCHES = 4
"""Batches of a share. At its end rows stand empty; with larger ones processes would."""


def cut(count: int, batch_size: int) -> list[slice]:
    """Return the shares of so many prompts."""
    size = BATCHES * batch_size
    return [slice(start, start + size) for start in range(0, count, size)]


def generate(
    model: "PreTrainedModel", prompts: Sequence[Sequence[int]], *, batch_size: int, **named: Any
) -> list[list[int]]:
    """Return what `generator.generate` does, of all prompts in every process; each answers its
    shares.
    """
    generator.check(model, prompts)

    def answered(shares: Iterator[slice]) -> Iterator[list[list[int]]]:
        return (generator.generate(model, prompts[one], batch_size=batch_size, **named) for one in shares)

    return list(chain.from_iterable(ranks.shared(cut(len(prompts), batch_size), answered)))
