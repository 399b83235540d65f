"""Policy and value model as one module, read at answer tokens only: what PPO trains. Imported late: it needs torch.

An answer's token number t is chosen at the position before it; there the policy's head gives its log-probability and
the value model's the value of the state it is chosen in.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from stages.common import ppo_core
from stages.common.errors import DataError

CALL_TOKENS = 48
"""Rows of unlike length are read in several calls rather than with more padding than this."""
READ_ROWS = 64
"""Most rows of one call without gradients."""


class Episodes(NamedTuple):
    """Prompts with their answers as token ids; an answer holds the stop token that ended it."""

    prompts: Sequence[Sequence[int]]
    answers: Sequence[Sequence[int]]


class Read(NamedTuple):
    """What is known of the N answer tokens of some episodes, one episode after the other."""

    log_probs: torch.Tensor
    entropy: torch.Tensor
    values: torch.Tensor


def buckets(lengths: Sequence[int], most: int | None = None) -> list[list[int]]:
    """Return indices in groups of like length; none has more padding than a call costs, or more rows than `most`."""
    groups: list[list[int]] = []
    padding = 0
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if groups:
            padding += (lengths[index] - lengths[groups[-1][-1]]) * len(groups[-1])
        if not groups or padding > CALL_TOKENS or len(groups[-1]) == most:
            groups.append([])
            padding = 0
        groups[-1].append(index)
    return groups


def inner(model: Any) -> Any:
    """Return the transformers model under peft's wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def states(model: Any, episodes: Episodes, rows: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return the last hidden states [n, d] where the answer tokens of `rows` are chosen, row after row.

    No mask: tokens never see the padding to their right.
    """
    whole = [torch.tensor([*episodes.prompts[row], *episodes.answers[row]][:-1]) for row in rows]
    ids = pad_sequence(whole, batch_first=True).to(device)
    hidden = inner(model).base_model(input_ids=ids, use_cache=False).last_hidden_state
    place = [
        (number, len(episodes.prompts[row]) - 1 + at)
        for number, row in enumerate(rows)
        for at in range(len(episodes.answers[row]))
    ]
    row_of, column_of = torch.tensor(place, device=device).T
    return hidden[row_of, column_of]


def chosen(episodes: Episodes, rows: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return the answer tokens [n] of `rows`, row after row."""
    return torch.tensor([token for row in rows for token in episodes.answers[row]], device=device)


def restored(parts: Sequence[torch.Tensor], groups: Sequence[Sequence[int]], counts: Sequence[int]) -> torch.Tensor:
    """Return what was read group by group [n] in the order of the episodes, of which each has `counts` tokens."""
    rows = dict(zip((row for group in groups for row in group), _pieces(parts, groups, counts), strict=True))
    return torch.cat([rows[row] for row in range(len(counts))])


def _pieces(
    parts: Sequence[torch.Tensor], groups: Sequence[Sequence[int]], counts: Sequence[int]
) -> list[torch.Tensor]:
    cut = zip(parts, groups, strict=True)
    return [piece for part, group in cut for piece in part.split([counts[row] for row in group])]


def log_probabilities(model: Any, episodes: Episodes, temperature: float) -> torch.Tensor:
    """Return log p [N] of all answer tokens under a policy at `temperature`."""
    return _read(model, episodes, lambda hidden, tokens: policy_outputs(model, hidden, tokens, temperature)[0])


def values(model: Any, episodes: Episodes) -> torch.Tensor:
    """Return the value [N] of the state each answer token is chosen in."""
    return _read(model, episodes, lambda hidden, _: value_outputs(model, hidden))


def _read(model: Any, episodes: Episodes, outputs: Any) -> torch.Tensor:
    device = next(model.parameters()).device
    counts = [len(answer) for answer in episodes.answers]
    lengths = [len(prompt) + count for prompt, count in zip(episodes.prompts, counts, strict=True)]
    groups = buckets(lengths, READ_ROWS)
    parts = [outputs(states(model, episodes, group, device), chosen(episodes, group, device)) for group in groups]
    return restored(parts, groups, counts)


def policy_outputs(
    model: Any, hidden: torch.Tensor, tokens: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log p [n] of `tokens` and the logits [n, V], given the hidden states [n, d] they are chosen in."""
    logits = inner(model).get_output_embeddings()(hidden)
    return ppo_core.token_log_probs(logits, tokens, temperature), logits


def value_outputs(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Return the values [n] of hidden states [n, d], on the reward model's centred scale."""
    found: torch.Tensor = inner(model).score(hidden)[:, 0].float()
    return found - float(getattr(model.config, "reward_offset", 0.0))


def check_head(model: Any) -> None:
    """Raise DataError for a model whose logits are more than its head over its last hidden states (scaled, capped).

    PPO reads the head at answer tokens only; a model that does something in between would be trained on other
    probabilities than it answers with.
    """
    ids = torch.arange(1, 9, device=next(model.parameters()).device)[None] % model.config.vocab_size
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits
        found = inner(model).get_output_embeddings()(
            inner(model).base_model(input_ids=ids, use_cache=False).last_hidden_state
        )
    if not torch.allclose(expected, found, rtol=1e-4, atol=1e-4):
        what = f"a {model.config.model_type} model changes its logits behind the head; PPO cannot train it"
        raise DataError(what, remedy="use another base model, or the stages dpo or orpo")


class ActorCritic(nn.Module):
    """A policy and a value model under one optimiser; dropout is off, or the first ratio would not be 1."""

    policy: Any
    value: Any

    def __init__(self, policy: nn.Module, value: nn.Module, temperature: float) -> None:
        super().__init__()
        self.policy, self.value, self.temperature = policy, value, temperature
        self.config = policy.config
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            for name, share in list(vars(module).items()):
                if "dropout" in name and isinstance(share, float):
                    setattr(module, name, 0.0)

    def forward(self, prompts: Any, answers: Any, blocks: torch.Tensor | None = None) -> tuple[Read, Any]:
        """Return what both models say of the answer tokens, and the policy's loss on `blocks` [m, L] or None."""
        episodes = Episodes(prompts, answers)
        device = next(self.parameters()).device
        counts = [len(answer) for answer in answers]
        groups = buckets([len(prompt) + count for prompt, count in zip(prompts, counts, strict=True)])
        parts = []
        for group in groups:
            tokens = chosen(episodes, group, device)
            hidden = states(self.policy, episodes, group, device)
            log_probs, logits = policy_outputs(self.policy, hidden, tokens, self.temperature)
            with torch.no_grad():
                entropy = ppo_core.entropy(logits, self.temperature)
            values = value_outputs(self.value, states(self.value, episodes, group, device))
            parts.append(Read(log_probs, entropy, values))
        read = Read(*(restored(column, groups, counts) for column in zip(*parts, strict=True)))
        return read, None if blocks is None else self.policy(input_ids=blocks, labels=blocks, use_cache=False).loss

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether activations are recomputed in the backward pass."""
        return bool(inner(self.policy).is_gradient_checkpointing)

    def gradient_checkpointing_enable(self, **settings: Any) -> None:
        """Recompute activations in the backward pass, in both models."""
        for model in (self.policy, self.value):
            inner(model).gradient_checkpointing_enable(**settings)

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations, in both models."""
        for model in (self.policy, self.value):
            inner(model).gradient_checkpointing_disable()
