"""Answers by transformers' own `generate`, for models whose rows of unlike length must not share a
call.

Prompts of one length make a batch and stay together until the last of them is answered: nothing is
padded, and each row stands where the others stand. Each token is chosen as `batch` chooses it.
Imported late: needs torch.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from stages.common.generation import architecture
from stages.common.generation.batch import Continuation, Order, refuse
from stages.common.generation.engines.structured import choose
from stages.common.generation.sampling import uniforms
from stages.common.runtime.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def needed(model: "PreTrainedModel", order: Order) -> bool:
    """Whether rows of this model depend on what shares a call with them: recurrent layers, or RoPE
    by length.
    """
    config, whole = model.config, architecture.inner(model)
    if "past_key_values" not in inspect.signature(whole.forward).parameters:
        return True
    if not architecture.is_attention_only(config):
        return True
    longest = max(map(len, order.prompts), default=0) + order.max_new_tokens
    return min(longest, order.context or longest) > architecture.rope_limit(config)


def answers(model: "PreTrainedModel", order: Order, batch_size: int, progress: Progress) -> dict[int, Continuation]:
    """Return every answer of `order` by its number, as a `batch.Batch` does."""
    found: dict[int, Continuation] = {}
    by_length = sorted(range(len(order.prompts)), key=lambda index: -len(order.prompts[index]))
    every = order.keys()
    for _, group in groupby(by_length, key=lambda index: len(order.prompts[index])):
        pairs = [(index, number) for index in group for number in range(order.samples)]
        for start in range(0, len(pairs), batch_size):
            some = pairs[start : start + batch_size]
            rows = _Rows(model, order, some, every)
            _generate(model, rows)
            for (index, number), answer in zip(some, rows.answers(), strict=True):
                found[index * order.samples + number] = answer
                progress.row(progress.rows + 1)
    return found


def _generate(model: "PreTrainedModel", rows: "_Rows") -> None:
    whole = architecture.inner(model)
    architecture.forget_length(whole)
    with _plain(whole):
        whole.generate(
            input_ids=rows.ids,
            attention_mask=torch.ones_like(rows.ids),
            max_new_tokens=rows.room,
            do_sample=False,
            use_cache=True,
            logits_processor=LogitsProcessorList([rows.choose]),
            stopping_criteria=StoppingCriteriaList([rows.ended]),
        )


@contextmanager
def _plain(model: Any) -> Iterator[None]:
    """Inside, nothing that the model's own folder says of generation counts: how tokens are chosen
    is the order's.
    """
    held, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = held


class _Rows:
    """The rows of one call of `generate`, which asks them for their tokens and whether they are
    over.
    """

    def __init__(
        self, model: "PreTrainedModel", order: Order, pairs: Sequence[tuple[int, int]], every: npt.NDArray[np.uint64]
    ) -> None:
        self.model, self.order, self.pairs = model, order, pairs
        prompts = [list(order.prompts[index]) for index, _ in pairs]
        self.ids = torch.tensor(prompts, device=model.device)
        self.numbers = torch.tensor([index * order.samples + number for index, number in pairs])
        length = self.ids.shape[1]
        self.room = min(order.max_new_tokens, order.context - length) if order.context else order.max_new_tokens
        self.stop = torch.tensor(list(order.stop), dtype=torch.long, device=model.device)
        self.tokens: list[torch.Tensor] = []
        self.scores: list[torch.Tensor] = []
        self.is_over = torch.zeros(len(pairs), dtype=torch.bool, device=model.device)
        self.uniforms: torch.Tensor | None = None
        if order.sampling.temperature:
            indices, numbers = np.array(pairs, dtype=np.uint64).T
            drawn = uniforms(every[indices], numbers, order.max_new_tokens)
            self.uniforms = torch.from_numpy(drawn).to(model.device)

    def choose(self, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return scores [B, V] whose largest is that of the chosen token."""
        sampling, place = self.order.sampling, len(self.tokens)
        broken = ~logits.amax(-1).isfinite() & ~self.is_over
        if broken.any():
            refuse(self.model, self.pairs[int(broken.nonzero()[0, 0])][0], place + 1)
        seen: torch.Tensor | None = None
        if sampling.repetition_penalty != 1:
            seen = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, input_ids, True)
        uniform = None if self.uniforms is None else self.uniforms[:, place]
        token = choose(logits, sampling, uniform, seen, self.order.constraint, self.numbers)
        if self.order.log_probabilities:
            scaled = logits / (sampling.temperature or 1)
            self.scores.append(scaled.log_softmax(-1).gather(1, token[:, None])[:, 0])
        self.tokens.append(token)
        self.is_over |= torch.isin(token, self.stop)
        return torch.full_like(logits, -torch.inf).scatter_(1, token[:, None], 0.0)

    def ended(self, *_: Any, **__: Any) -> torch.Tensor:
        """Return which rows [B] are over."""
        return self.is_over

    def answers(self) -> list[Continuation]:
        """Return the rows' answers, each up to its first stop token."""
        stops, tokens = set(self.order.stop), torch.stack(self.tokens, dim=1).tolist()
        scores = torch.stack(self.scores, dim=1).tolist() if self.scores else [[] for _ in tokens]
        found = []
        for row, logged in zip(tokens, scores, strict=True):
            end = next((place for place, token in enumerate(row) if token in stops), None)
            stop = None if end is None else row[end]
            found.append(Continuation(row[:end], stop, logged[: len(row) if end is None else end + 1]))
        return found
