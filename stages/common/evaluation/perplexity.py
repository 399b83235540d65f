"""How well a model predicts text it has not seen."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from stages.common.core import chat, fused_head
from stages.common.core.chat import Encoded
from stages.common.core.statistics import bootstrap_ratio
from stages.common.runtime import ranks

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean negative log-likelihood per token, its 95 % bootstrap interval over texts,
    and the tokens.
    """

    value: float
    interval: tuple[float, float]
    tokens: int


def whole(tokenizer: "PreTrainedTokenizerBase", text: str) -> Encoded:
    """Return a text whose every token counts."""
    (ids,) = chat.encode_texts(tokenizer, [text])
    return Encoded(ids, [1] * len(ids))


def losses(
    model: "PreTrainedModel", rows: Iterable[Encoded], max_tokens: int, batch_size: int
) -> list[tuple[float, int]]:
    """Return (summed negative log-likelihood in nats, tokens) of each row, in order; longer rows
    are read in pieces. The processes of a stage share the batches.
    """

    def read(batches: Iterator[list[tuple[int, Encoded]]]) -> Iterator[list[tuple[int, float, int]]]:
        for batch in batches:
            found = batch_losses(model, [piece for _, piece in batch])
            yield [(number, *one) for (number, _), one in zip(batch, found, strict=True)]

    totals: list[tuple[float, int]] = []
    for number, loss, count in chain.from_iterable(ranks.shared(_batches(rows, max_tokens, batch_size), read)):
        totals += [(0.0, 0)] * (number + 1 - len(totals))
        totals[number] = (totals[number][0] + loss, totals[number][1] + count)
    return totals


def perplexity(scored: Iterable[tuple[float, int]]) -> Perplexity | None:
    """Return the perplexity over all tokens of `losses`; None when there are none."""
    read = [(loss, count) for loss, count in scored if count]
    if not read:
        return None
    nats, counts = [loss for loss, _ in read], [count for _, count in read]
    low, high = bootstrap_ratio(nats, counts)
    return Perplexity(math.exp(sum(nats) / sum(counts)), (math.exp(low), math.exp(high)), sum(counts))


def batch_losses(model: "PreTrainedModel", rows: list[Encoded]) -> list[tuple[float, int]]:
    """Return (summed negative log-likelihood in nats, number of tokens) of each row's masked
    tokens.
    """
    import torch

    width = max(len(row.input_ids) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    targets = torch.full((len(rows), width), -100)
    for number, row in enumerate(rows):
        length = len(row.input_ids)
        ids[number, :length] = torch.tensor(row.input_ids)
        mask[number, :length] = 1
        targets[number, :length] = torch.where(torch.tensor(row.assistant_mask).bool(), ids[number, :length], -100)
    features = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
    with torch.inference_mode():
        if fused_head.fits(model, ids.numel()):
            losses = row_losses(model(**features).logits, targets.to(model.device))
        else:
            with fused_head.added(model):
                losses = -fused_head.log_probs(model, features, targets.to(model.device)).sum(dim=1)
    return list(zip(losses.tolist(), (targets[:, 1:] != -100).sum(dim=1).tolist(), strict=True))


def row_losses(logits: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """Return [B] summed cross-entropies of `logits` [B, T, V] against the next of `targets` [B, T]
    (-100: none).
    """
    from torch.nn.functional import cross_entropy

    shifted = targets[:, 1:]
    losses = cross_entropy(logits[:, :-1].transpose(1, 2).float(), shifted, ignore_index=-100, reduction="none")
    return losses.sum(dim=1)


def _batches(rows: Iterable[Encoded], max_tokens: int, batch_size: int) -> Iterator[list[tuple[int, Encoded]]]:
    """Yield (row, piece) in batches of like length: sorted within a window, memory stays flat and
    padding small.
    """
    window: list[tuple[int, Encoded]] = []
    for number, row in enumerate(rows):
        for start in range(0, len(row.input_ids), max_tokens):
            end = start + max_tokens
            window.append((number, Encoded(row.input_ids[start:end], row.assistant_mask[start:end])))
        if len(window) >= 32 * batch_size:
            yield from _cut(window, batch_size)
            window = []
    yield from _cut(window, batch_size)


def _cut(window: list[tuple[int, Encoded]], batch_size: int) -> Iterator[list[tuple[int, Encoded]]]:
    window.sort(key=lambda item: len(item[1].input_ids))
    for start in range(0, len(window), batch_size):
        yield window[start : start + batch_size]
