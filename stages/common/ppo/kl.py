"""KL to the reference in PPO: its estimates on sampled tokens, and the controllers of its weight;
all in nats.
"""

import math
from typing import TYPE_CHECKING

from stages.common.runtime.errors import DataError, ParamsError

if TYPE_CHECKING:
    import torch

LARGEST_STEP = 0.2  # Ziegler et al. 2019, section 2.2


def kl_k1(log_probs: "torch.Tensor", reference: "torch.Tensor") -> "torch.Tensor":
    """Return log p - log p_reference of each sampled token, any shape: an unbiased estimate of
    KL(p, p_reference).

    A single one may be negative (Schulman 2020, "Approximating KL Divergence", k1).
    """
    return log_probs - reference


def kl_k3(log_probs: "torch.Tensor", reference: "torch.Tensor") -> "torch.Tensor":
    """Return exp(r) - 1 - r with r = log p_reference - log p of each sampled token, any shape;
    never negative.

    Unbiased as k1 is, and of less variance where the two are close (Schulman 2020, "Approximating
    KL Divergence", k3).
    """
    import torch

    difference = reference - log_probs
    # expm1: exp(r) - 1 loses its digits for small r, and with them the sign. What rounding is left
    # is cut.
    return (torch.expm1(difference) - difference).clamp(min=0)


class FixedKL:
    """The weight of KL in the reward, which stays as it is. Raises ParamsError when it is negative
    or not a number.
    """

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

    coefficient *= 1 + clip(kl / target - 1, -0.2, 0.2) * episodes / horizon (Ziegler et al. 2019,
    section 2.2, where episodes / horizon is K_beta). Raises ParamsError for a target or a horizon
    (episodes) that is not above 0.
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


def controller(coefficient: float, target: float | None, horizon: int) -> FixedKL:
    """Return the weight of KL: one that is steered to `target`, or without it one that stays."""
    return FixedKL(coefficient) if target is None else AdaptiveKL(coefficient, target, horizon)
