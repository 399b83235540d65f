"""Batched decoding: prompts of like length together, greedy, stopping each answer at its end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def generate(
    model: "PreTrainedModel",
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: Sequence[int],
    pad: int,
    batch_size: int = 64,
) -> list[list[int]]:
    """Return the greedy continuation of each prompt, in the order given, without the stop token that ended it."""
    import torch

    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch, mask = left_pad([prompts[index] for index in indices], pad)
        with torch.inference_mode():
            output = model.generate(
                input_ids=batch.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=list(stop),
                pad_token_id=pad,
            )
        for index, row in zip(indices, output[:, batch.shape[1] :].tolist(), strict=True):
            answers[index] = until(row, set(stop))
    return answers


def left_pad(rows: Sequence[Sequence[int]], pad: int) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Return rows as [B, T] token ids padded on the left, and their attention mask [B, T]."""
    import torch

    width = max(len(row) for row in rows)
    batch = torch.full((len(rows), width), pad)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for number, row in enumerate(rows):
        batch[number, width - len(row) :] = torch.tensor(row)
        mask[number, width - len(row) :] = 1
    return batch, mask


def until(tokens: list[int], stop: set[int]) -> list[int]:
    """Return the tokens before the first one in `stop`."""
    return next((tokens[:place] for place, token in enumerate(tokens) if token in stop), tokens)
