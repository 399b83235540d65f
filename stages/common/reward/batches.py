"""Batches of comparisons: a prompt with its K answers is one element, an answer a list of ids."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stages.common.pairs import preference_pairs

if TYPE_CHECKING:
    import torch

Row = dict[str, Any]


def opening(rows: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """Return how many tokens all answers of a row have before the first one begins; `width` counts
    them once.
    """
    return min(len(tokens) - length for tokens, length in zip(rows, lengths, strict=True))


class Collator:
    """Makes a batch: all answers of all prompts as rows, padded on the right with `pad`."""

    def __init__(self, pad: int, heads: int = 1) -> None:
        self.pad, self.heads = pad, heads

    def __call__(self, batch: Sequence[Row]) -> dict[str, "torch.Tensor"]:
        """Return input_ids and attention_mask [N, T], better and worse [P] (rows of a pair's
        answers), weight [P].

        `weight` is 1 / (prompts x pairs of the prompt); a batch of which no prompt has a pair has P
        = 0.
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        rows = [torch.tensor(answer) for row in batch for answer in row["rows"]]
        return {
            "input_ids": pad_sequence(rows, batch_first=True, padding_value=self.pad),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
            **ordered(batch, self.heads),
        }


def draws(name: str, heads: int) -> list[float]:
    """Return how often each of several heads reads a prompt of this id: Poisson(1), always the
    same.

    So each head has a bootstrap sample of its own (Oza & Russell 2001, online bagging; heads over
    one trunk as in Osband et al. 2016).
    """
    import numpy

    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    return [float(one) for one in numpy.random.default_rng(seed).poisson(1.0, heads)]


def ordered(batch: Sequence[Row], heads: int = 1) -> dict[str, "torch.Tensor"]:
    """Return better and worse [P], a pair's answers counted through the batch, and weight [P] as
    `Collator` does; for several heads also draws [P, K].
    """
    import torch

    better, worse, weight = [], [], []
    start = 0
    for row in batch:
        pairs = preference_pairs.pairs(row["ranks"], "all")
        better += [start + high for high, _ in pairs]
        worse += [start + low for _, low in pairs]
        weight += [1 / (len(batch) * len(pairs)) for _ in pairs]
        start += len(row["rows"])
    found = {
        "better": torch.tensor(better, dtype=torch.long),
        "worse": torch.tensor(worse, dtype=torch.long),
        "weight": torch.tensor(weight, dtype=torch.float32),
    }
    if heads > 1:
        drawn = [draws(row["id"], heads) for row in batch for _ in preference_pairs.pairs(row["ranks"], "all")]
        found["draws"] = torch.tensor(drawn, dtype=torch.float32).reshape(len(drawn), heads)
    return found
