"""What PPO computes, as pure functions: rewards, advantages, losses, KL and its controllers; no model, no loop.

B answers of a batch, T tokens of the longest, V entries of the vocabulary, N answer tokens of the batch laid end to
end, without padding. A mask [B, T] is True on an answer's tokens, which stand from position 0 on. Log-probabilities,
KL and entropy are in nats.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stages.common.runtime.errors import DataError, ParamsError

if TYPE_CHECKING:
    import torch

WHITENING_EPSILON = 1e-8
LARGEST_STEP = 0.2  # Ziegler et al. 2019, section 2.2


def kl_k1(log_probs: "torch.Tensor", reference: "torch.Tensor") -> "torch.Tensor":
    """Return log p - log p_reference of each sampled token, any shape: an unbiased estimate of KL(p, p_reference).

    A single one may be negative (Schulman 2020, "Approximating KL Divergence", k1).
    """
    return log_probs - reference


def kl_k3(log_probs: "torch.Tensor", reference: "torch.Tensor") -> "torch.Tensor":
    """Return exp(r) - 1 - r with r = log p_reference - log p of each sampled token, any shape; never negative.

    Unbiased as k1 is, and of less variance where the two are close (Schulman 2020, "Approximating KL Divergence", k3).
    """
    import torch

    difference = reference - log_probs
    # expm1: exp(r) - 1 loses its digits for small r, and with them the sign. What rounding is left is cut.
    return (torch.expm1(difference) - difference).clamp(min=0)


def normalise(scores: "torch.Tensor", mean: float, std: float, clip: float) -> "torch.Tensor":
    """Return (score - mean) / std of scores [B], cut to [-clip, clip].

    With mean and standard deviation of what demonstrations score, 0 is as good as they are. Raises DataError for a
    standard deviation that is not above 0, and for a score that is not a number.
    """
    if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
        what = f"rewards cannot be normalised by a mean of {mean} and a standard deviation of {std}"
        raise DataError(what, remedy="give demonstrations that score differently, or run `dvc repro -f reward`")
    if scores.isnan().any():
        raise DataError("a score is not a number", remedy="run `dvc repro -f reward`")
    return ((scores - mean) / std).clamp(-clip, clip)


def end_penalty(scores: "torch.Tensor", ended: "torch.Tensor", penalty: float) -> "torch.Tensor":
    """Return scores [B], less `penalty` where an answer was cut before its end of turn (`ended` [B] is False)."""
    import torch

    return torch.where(ended, scores, scores - penalty)


def token_rewards(
    scores: "torch.Tensor", kl: "torch.Tensor", mask: "torch.Tensor", coefficient: float
) -> "torch.Tensor":
    """Return rewards [B, T]: -coefficient * kl at each token, plus the answer's score at its last one; 0 elsewhere.

    `scores` [B], `kl` [B, T] (k1), `mask` [B, T] (Ziegler et al. 2019, eq. 2; Ouyang et al. 2022, section 3.5).
    Raises DataError for an answer without tokens, or whose tokens do not stand together from position 0 on.
    """
    import torch

    lengths = _lengths(mask)
    penalties = torch.where(mask, -coefficient * kl, 0.0)
    return penalties.scatter_add(1, lengths[:, None] - 1, scores[:, None].to(penalties.dtype))


def advantages(
    rewards: "torch.Tensor", values: "torch.Tensor", mask: "torch.Tensor", gamma: float, lam: float
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return advantages and returns (advantages + values), both [B, T], 0 outside the mask.

    `rewards`, `values`, `mask` [B, T]; a value is that of the state before its token; after an answer's last token it
    is 0. Generalised advantage estimation (Schulman et al. 2016, eq. 16): A_t = d_t + gamma * lam * A_{t+1} with
    d_t = r_t + gamma * V_{t+1} - V_t. Raises DataError for a mask that `token_rewards` refuses.
    """
    import torch

    _lengths(mask)
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    found = torch.zeros_like(values)
    following, next_value = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    for at in reversed(range(values.shape[1])):
        following = rewards[:, at] + gamma * next_value - values[:, at] + gamma * lam * following
        next_value = values[:, at]
        found[:, at] = following
    return found, found + values


def whiten(values: "torch.Tensor", mask: "torch.Tensor", shift_mean: bool = True) -> "torch.Tensor":
    """Return (values - mean) / sqrt(variance + 1e-8) over the mask, 0 outside it; both of any one shape.

    The variance is the unbiased one, over n - 1, as in TRL's masked_whiten. Without `shift_mean` the mean is added
    back. A single value has no variance and becomes 0, or stays. Raises DataError for an empty mask.
    """
    import torch

    count = mask.sum()
    if not count:
        raise DataError("there is no answer token to whiten over", remedy="leave out answers without tokens")
    inside = torch.where(mask, values, 0.0)
    mean = inside.sum() / count
    centred = torch.where(mask, values - mean, 0.0)
    variance = (centred**2).sum() / (count - 1).clamp(min=1)
    whitened = centred * torch.rsqrt(variance + WHITENING_EPSILON)
    return whitened if shift_mean else torch.where(mask, whitened + mean, 0.0)


def policy_loss(
    log_probs: "torch.Tensor", old: "torch.Tensor", advantages: "torch.Tensor", clip: float
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return the mean over tokens of -min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A) and the share clipped.

    All [N]: log-probabilities now, those the tokens were sampled with, and advantages. The ratio is
    exp(log_probs - old) (Schulman et al. 2017, eq. 7). The share has no gradient.
    """
    import torch

    ratio = torch.exp(log_probs - old)
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    return torch.max(plain, clipped).mean(), _share(clipped > plain)


def value_loss(
    values: "torch.Tensor", old_values: "torch.Tensor", returns: "torch.Tensor", clip: float
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return half the mean over tokens of the larger of both squared errors, plain and clipped, and the share clipped.

    All [N]. A clipped value stays within `clip` of the old one (Huang et al. 2022, "The 37 Implementation Details of
    Proximal Policy Optimization", detail 9). The share has no gradient.
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


def explained_variance(values: "torch.Tensor", returns: "torch.Tensor") -> float:
    """Return 1 - Var(returns - values) / Var(returns) of values and returns [N]; 0 where returns do not vary.

    1: values foretell returns; 0: no better than a constant; below 0: worse.
    """
    if returns.numel() < 2 or returns.min() == returns.max():
        return 0.0
    returns = returns.double()
    return float(1 - (returns - values.double()).var() / returns.var())


def repetition(tokens: Sequence[int], n: int = 3) -> float:
    """Return the share of an answer's n-grams that occurred in it before; 0 when it is shorter than n."""
    grams = [tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


class FixedKL:
    """The weight of KL in the reward, which stays as it is. Raises ParamsError when it is negative or not a number."""

    def __init__(self, coefficient: float) -> None:
        if not 0 <= coefficient < math.inf:
            raise ParamsError(f"the KL coefficient is {coefficient}, it must be 0 or more", where="params.yaml")
        self.coefficient = coefficient

    def update(self, kl: float, episodes: int) -> None:
        """Take note of the KL a sequence (nats) over the last so many episodes."""

    def state(self) -> dict[str, float]:
        """Return what a resumed training needs."""
        return {"coefficient": self.coefficient}

    def restore(self, state: dict[str, float]) -> None:
        """Continue from what `state` returned."""
        self.coefficient = state["coefficient"]


class AdaptiveKL(FixedKL):
    """A weight of KL that rises while KL a sequence is above `target` (nats) and falls while below.

    coefficient *= 1 + clip(kl / target - 1, -0.2, 0.2) * episodes / horizon (Ziegler et al. 2019, section 2.2, where
    episodes / horizon is K_beta). Raises ParamsError for a target or a horizon (episodes) that is not above 0.
    """

    def __init__(self, coefficient: float, target: float, horizon: int) -> None:
        super().__init__(coefficient)
        for name, value in (("target", target), ("horizon", horizon)):
            if not 0 < value < math.inf:
                raise ParamsError(f"the KL controller's {name} is {value}, it must be above 0", where="params.yaml")
        self.target, self.horizon = target, horizon

    def update(self, kl: float, episodes: int) -> None:
        """Move the coefficient by the KL a sequence (nats) over the last so many episodes.

        Raises DataError for a KL that is not a number.
        """
        if math.isnan(kl):
            raise DataError("KL to the reference is not a number", remedy="lower the learning rate")
        error = min(max(kl / self.target - 1, -LARGEST_STEP), LARGEST_STEP)
        self.coefficient *= 1 + error * episodes / self.horizon


def _lengths(mask: "torch.Tensor") -> "torch.Tensor":
    """Return [B] tokens of each answer. Raises DataError where there is none, or a gap before or between them."""
    import torch

    lengths = mask.sum(1)
    if not lengths.all():
        raise DataError("an answer has no tokens", where=f"row {int(lengths.argmin())} of the batch", remedy="drop it")
    gap = (mask != (torch.arange(mask.shape[1], device=mask.device) < lengths[:, None])).any(1)
    if gap.any():
        where = f"row {int(gap.int().argmax())} of the batch"
        raise DataError("an answer's tokens do not stand together at the start", where=where, remedy="pad on the right")
    return lengths


def _scaled(logits: "torch.Tensor", temperature: float) -> "torch.Tensor":
    if not temperature > 0:
        raise ParamsError(f"temperature is {temperature}, it must be above 0", where="params.yaml")
    return logits.float() if temperature == 1 else logits.float() / temperature


def _share(clipped: "torch.Tensor") -> "torch.Tensor":
    return clipped.float().mean()
