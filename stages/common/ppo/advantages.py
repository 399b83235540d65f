"""Rewards and advantages in PPO, as pure functions: what each token of an answer earned, and more
than was expected.

B answers of a batch, T tokens of the longest. A mask [B, T] is True on an answer's tokens, which
stand from position 0 on. KL is in nats.
"""

import math
from typing import TYPE_CHECKING

from stages.common.runtime.errors import DataError

if TYPE_CHECKING:
    import torch

WHITENING_EPSILON = 1e-8


def normalise(scores: "torch.Tensor", mean: float, std: float, clip: float) -> "torch.Tensor":
    """Return (score - mean) / std of scores [B], cut to [-clip, clip].

    With mean and standard deviation of what demonstrations score, 0 is as good as they are. Raises
    DataError for a standard deviation that is not above 0, and for a score that is not a number.
    """
    if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
        what = f"rewards cannot be normalised by a mean of {mean} and a standard deviation of {std}"
        raise DataError(what, remedy="give demonstrations that score differently, or run `dvc repro -f reward`")
    if scores.isnan().any():
        raise DataError("a score is not a number", remedy="run `dvc repro -f reward`")
    return ((scores - mean) / std).clamp(-clip, clip)


def end_penalty(scores: "torch.Tensor", ended: "torch.Tensor", penalty: float) -> "torch.Tensor":
    """Return scores [B], less `penalty` where an answer was cut before its end of turn (`ended` [B]
    is False).
    """
    import torch

    return torch.where(ended, scores, scores - penalty)


def token_rewards(
    scores: "torch.Tensor", kl: "torch.Tensor", mask: "torch.Tensor", coefficient: float
) -> "torch.Tensor":
    """Return rewards [B, T]: -coefficient * kl at each token, plus the answer's score at its last
    one; 0 elsewhere.

    `scores` [B], `kl` [B, T] (k1), `mask` [B, T] (Ziegler et al. 2019, eq. 2; Ouyang et al. 2022,
    section 3.5). Raises DataError for an answer without tokens, or whose tokens do not stand
    together from position 0 on.
    """
    import torch

    lengths = _lengths(mask)
    penalties = torch.where(mask, -coefficient * kl, 0.0)
    return penalties.scatter_add(1, lengths[:, None] - 1, scores[:, None].to(penalties.dtype))


def advantages(
    rewards: "torch.Tensor", values: "torch.Tensor", mask: "torch.Tensor", gamma: float, lam: float
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return advantages and returns (advantages + values), both [B, T], 0 outside the mask.

    `rewards`, `values`, `mask` [B, T]; a value is that of the state before its token; after an
    answer's last token it is 0. Generalised advantage estimation (Schulman et al. 2016, eq. 16):
    A_t = d_t + gamma * lam * A_{t+1} with d_t = r_t + gamma * V_{t+1} - V_t. Raises DataError for a
    mask that `token_rewards` refuses.
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
    """Return (values - mean) / sqrt(variance + 1e-8) over the mask, 0 outside it; both of any one
    shape.

    The variance is the unbiased one, over n - 1, as in TRL's masked_whiten. Without `shift_mean`
    the mean is added back. A single value has no variance and becomes 0, or stays. Raises DataError
    for an empty mask.
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


def explained_variance(values: "torch.Tensor", returns: "torch.Tensor") -> float:
    """Return 1 - Var(returns - values) / Var(returns) of values and returns [N]; 0 where returns do
    not vary.

    1: values foretell returns; 0: no better than a constant; below 0: worse.
    """
    if returns.numel() < 2 or returns.min() == returns.max():
        return 0.0
    returns = returns.double()
    return float(1 - (returns - values.double()).var() / returns.var())


def _lengths(mask: "torch.Tensor") -> "torch.Tensor":
    """Return [B] tokens of each answer. Raises DataError where there is none, or a gap before or
    between them.
    """
    import torch

    lengths = mask.sum(1)
    if not lengths.all():
        raise DataError("an answer has no tokens", where=f"row {int(lengths.argmin())} of the batch", remedy="drop it")
    gap = (mask != (torch.arange(mask.shape[1], device=mask.device) < lengths[:, None])).any(1)
    if gap.any():
        where = f"row {int(gap.int().argmax())} of the batch"
        raise DataError("an answer's tokens do not stand together at the start", where=where, remedy="pad on the right")
    return lengths
