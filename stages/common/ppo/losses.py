"""PPO's losses, as pure functions of what both models say of answer tokens; log-probabilities and
entropy in nats.

N answer tokens of a batch laid end to end, without padding; V entries of the vocabulary.
"""

from typing import TYPE_CHECKING

from stages.common.runtime.errors import ParamsError

if TYPE_CHECKING:
    import torch


MOST_IMPORTANT = 2.0
"""Where importance weights are cut."""


def importance(old: "torch.Tensor", sampled: "torch.Tensor") -> "torch.Tensor":
    """Return truncated importance weights [N] of tokens: min(p_old / p_sampled, MOST_IMPORTANT)
    (Ionides 2008).

    Tokens are drawn by a decoder that rounds otherwise than what is trained; without weights the
    gradient is another policy's.
    """
    return (old - sampled).exp().clamp(max=MOST_IMPORTANT)


def policy_loss(
    log_probs: "torch.Tensor",
    old: "torch.Tensor",
    advantages: "torch.Tensor",
    clip: float,
    weights: "torch.Tensor | None" = None,
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return the mean over tokens of -min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A) and the
    share clipped.

    All [N]: log-probabilities now, those of the policy that answered, and advantages. The ratio is
    exp(log_probs - old) (Schulman et al. 2017, eq. 7). `weights` [N] are those of `importance`. The
    share has no gradient.
    """
    import torch

    ratio = torch.exp(log_probs - old)
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    larger = torch.max(plain, clipped)
    return (larger if weights is None else weights * larger).mean(), _share(clipped > plain)


def value_loss(
    values: "torch.Tensor", old_values: "torch.Tensor", returns: "torch.Tensor", clip: float
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return half the mean over tokens of the larger of both squared errors, plain and clipped, and
    the share clipped.

    All [N]. A clipped value stays within `clip` of the old one (Huang et al. 2022, "The 37
    Implementation Details of Proximal Policy Optimization", detail 9). The share has no gradient.
    """
    import torch

    near = torch.clamp(values, old_values - clip, old_values + clip)
    plain, clipped = (values - returns) ** 2, (near - returns) ** 2
    return 0.5 * torch.max(plain, clipped).mean(), _share(clipped > plain)


def token_log_probs(logits: "torch.Tensor", tokens: "torch.Tensor", temperature: float = 1.0) -> "torch.Tensor":
    """Return [N] log-probabilities of `tokens` [N] under logits [N, V] / temperature, in fp32.

    Raises ParamsError for a temperature that is not above 0.
    """
    from torch.nn.functional import cross_entropy

    return -cross_entropy(_scaled(logits, temperature), tokens, reduction="none")


def entropy(logits: "torch.Tensor", temperature: float = 1.0) -> "torch.Tensor":
    """Return [N] entropies of the distributions of (finite) logits [N, V] / temperature, in fp32.

    Raises ParamsError for a temperature that is not above 0.
    """
    log_probs = _scaled(logits, temperature).log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1)


def _scaled(logits: "torch.Tensor", temperature: float) -> "torch.Tensor":
    if not temperature > 0:
        raise ParamsError(f"temperature is {temperature}, it must be above 0", where="params.yaml")
    return logits.float() if temperature == 1 else logits.float() / temperature


def _share(clipped: "torch.Tensor") -> "torch.Tensor":
    return clipped.float().mean()
