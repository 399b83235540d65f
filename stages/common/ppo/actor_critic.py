"""Policy and value model as one module, read at answer tokens only: what PPO trains. Imported late:
it needs torch.

An answer's token number t is chosen at the position before it; there the policy's head gives its
log-probability and the value model's the value of the state it is chosen in.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from stages.common.core import fused_head
from stages.common.generation import architecture, packed_forward
from stages.common.ppo import losses as ppo_losses
from stages.common.reward import score_head
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.training import dropout

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


def states(model: Any, episodes: Episodes, groups: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the last hidden states [n, d] where the answer tokens are chosen, row after row of
    each group.
    """
    rows = [[*prompt, *answer][:-1] for prompt, answer in zip(*episodes, strict=True)]
    places: list[int] = []
    start = 0
    for group in groups:
        width = max(len(rows[row]) for row in group)
        for row in group:
            end = start + len(rows[row])
            places += range(end - len(episodes.answers[row]), end)
            start += width
    return packed_forward.read(model, rows, groups, places)


def chosen(episodes: Episodes, groups: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Return the answer tokens [n], row after row of each group."""
    return torch.tensor([token for group in groups for row in group for token in episodes.answers[row]], device=device)


def restored(read: torch.Tensor, groups: Sequence[Sequence[int]], counts: Sequence[int]) -> torch.Tensor:
    """Return what was read group by group [n] in the order of the episodes, of which each has
    `counts` tokens.
    """
    order = [row for group in groups for row in group]
    pieces = dict(zip(order, read.split([counts[row] for row in order]), strict=True))
    return torch.cat([pieces[row] for row in range(len(counts))])


def lengths(episodes: Episodes) -> tuple[list[int], list[int]]:
    """Return the tokens of each episode that are read, and those of its answer."""
    counts = [len(answer) for answer in episodes.answers]
    return [len(prompt) + count - 1 for prompt, count in zip(episodes.prompts, counts, strict=True)], counts


def log_probabilities(model: Any, episodes: Episodes, temperature: float) -> torch.Tensor:
    """Return log p [N] of all answer tokens under a policy at `temperature`."""
    return _read(model, episodes, lambda hidden, tokens: policy_figures(model, hidden, tokens, temperature)[0])


def values(model: Any, episodes: Episodes) -> torch.Tensor:
    """Return the value [N] of the state each answer token is chosen in."""
    return _read(model, episodes, lambda hidden, _: value_outputs(model, hidden))


def _read(model: Any, episodes: Episodes, outputs: Any) -> torch.Tensor:
    device = next(model.parameters()).device
    whole, counts = lengths(episodes)
    order = sorted(range(len(whole)), key=lambda row: whole[row])
    parts, groups = [], []
    for start in range(0, len(order), READ_ROWS):
        some = order[start : start + READ_ROWS]
        call = [[some[at] for at in group] for group in packed_forward.groups(model, [whole[row] for row in some])]
        parts.append(outputs(states(model, episodes, call), chosen(episodes, call, device)))
        groups += call
    return restored(torch.cat(parts), groups, counts)


def policy_outputs(
    model: Any, hidden: torch.Tensor, tokens: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log p [n] of `tokens` and the logits [n, V], given the hidden states [n, d] they are
    chosen in.
    """
    found = logits(model, hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        return ppo_losses.token_log_probs(found, tokens, temperature), found


def logits(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Return the logits [n, V] at hidden states [n, d]: the head's, scaled and capped as the model
    does itself.

    `check_head` says whether that is all the model does.
    """
    whole = architecture.inner(model)
    found: torch.Tensor = whole.get_output_embeddings()(hidden)
    config = architecture.text(whole.config)
    for name in ("logit_scale", "lm_head_multiplier"):  # Cohere, Falcon-H1
        if (scale := getattr(config, name, None)) is not None:
            found = found * scale
    if (scale := getattr(config, "logits_scaling", None)) is not None:  # Granite
        found = found / scale
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma 2
        found = (found / cap).tanh() * cap
    return found


def policy_figures(
    model: Any, hidden: torch.Tensor, tokens: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log p [n] of `tokens` and, without gradient, the entropies [n] of what they were drawn
    from.

    The logits of more than `fused_head.BUDGET` allows are worked out in parts, and once more in the
    backward pass.
    """

    def part(hidden: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_probs, logits = policy_outputs(model, hidden, tokens, temperature)
        if not torch.is_grad_enabled():  # what only reads asks for no entropy
            return log_probs, log_probs
        with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
            return log_probs, ppo_losses.entropy(logits, temperature)

    if fused_head.fits(model, len(tokens)):
        return part(hidden, tokens)
    size = fused_head.at_once(model)
    pieces = zip(hidden.split(size), tokens.split(size), strict=True)
    found = [checkpoint(part, *piece, use_reentrant=False) for piece in pieces]
    log_probs, entropies = (torch.cat(column) for column in zip(*found, strict=True))
    return log_probs, entropies


def block_loss(model: Any, blocks: torch.Tensor) -> torch.Tensor:
    """Return the mean negative log-likelihood of blocks of text [m, L]."""
    inputs = {"input_ids": blocks, "labels": blocks, "use_cache": False}
    if fused_head.fits(model, blocks.numel()):
        found: torch.Tensor = model(**inputs).loss
        return found
    with fused_head.added(architecture.inner(model)):
        found = model(**inputs, fused_lm_head=True).loss
    return found


def value_outputs(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Return the values [n] of hidden states [n, d], on the reward model's centred scale."""
    found = score_head.head_outputs(architecture.inner(model).score, hidden)
    return found - float(getattr(model.config, "reward_offset", 0.0))


def check_head(model: Any) -> None:
    """Raise DataError for a model whose logits are other than `logits` of its last hidden states.

    PPO reads the head at answer tokens only; a model that does something else in between would be
    trained on other probabilities than it answers with.
    """
    whole = architecture.inner(model)
    vocabulary = architecture.text(whole.config).vocab_size
    ids = torch.arange(1, 9, device=next(model.parameters()).device)[None] % vocabulary
    with torch.no_grad(), packed_forward.whole(model):
        expected = model(input_ids=ids, use_cache=False).logits
        found = logits(model, architecture.body(model)(input_ids=ids, use_cache=False).last_hidden_state)
    if not torch.allclose(expected, found, rtol=1e-4, atol=1e-4):
        what = f"a {whole.config.model_type} model changes its logits behind the head; PPO cannot train it"
        raise DataError(what, remedy="use another base model, or the stages dpo or orpo")


def check_positions(config: Any, max_tokens: int, key: str) -> None:
    """Raise ParamsError when rows of `max_tokens`, set under `key`, are turned by their length.

    Such a row's tokens have other probabilities when it is read whole than when they were chosen.
    """
    limit = architecture.rope_limit(config)
    if max_tokens > limit:
        what = f"it is {max_tokens}, but beyond {limit:.0f} this model's RoPE depends on how long a row becomes"
        raise ParamsError(what, where=key, remedy=f"set it to at most {limit:.0f}")


class ActorCritic(nn.Module):
    """A policy and a value model under one optimiser.

    Dropout and a router's jitter are off, or the first ratio would not be 1.
    """

    policy: Any
    value: Any

    def __init__(self, policy: nn.Module, value: nn.Module, temperature: float) -> None:
        super().__init__()
        self.policy, self.value, self.temperature = policy, value, temperature
        self.config = policy.config
        dropout.switch_off(self)
        for model in (policy, value):
            packed_forward.enable(model)

    def forward(self, prompts: Any, answers: Any, blocks: torch.Tensor | None = None) -> tuple[Read, Any]:
        """Return what both models say of the answer tokens, and the policy's loss on `blocks` [m,
        L] or None.
        """
        episodes = Episodes(prompts, answers)
        whole, counts = lengths(episodes)
        groups = packed_forward.groups(self.policy, whole)
        tokens = chosen(episodes, groups, next(self.parameters()).device)
        hidden = states(self.policy, episodes, groups)
        log_probs, entropy = policy_figures(self.policy, hidden, tokens, self.temperature)
        values = value_outputs(self.value, states(self.value, episodes, groups))
        read = Read(*(restored(column, groups, counts) for column in (log_probs, entropy, values)))
        return read, None if blocks is None else block_loss(self.policy, blocks)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether activations are recomputed in the backward pass."""
        return bool(architecture.inner(self.policy).is_gradient_checkpointing)

    def gradient_checkpointing_enable(self, **settings: Any) -> None:
        """Recompute activations in the backward pass, in both models."""
        for model in (self.policy, self.value):
            architecture.inner(model).gradient_checkpointing_enable(**settings)

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations, in both models."""
        for model in (self.policy, self.value):
            architecture.inner(model).gradient_checkpointing_disable()
