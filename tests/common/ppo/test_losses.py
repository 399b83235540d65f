"""PPO's losses, log-probabilities and entropies on numbers worked by hand."""

import math

import pytest
import torch

from stages.common.ppo import losses as ppo_losses
from stages.common.runtime.errors import ParamsError


def test_policy_loss_by_hand() -> None:
    log_probs = torch.tensor([1.5, 0.5, 1.5, 1.0]).log().requires_grad_()
    gains = torch.tensor([2.0, -2.0, -2.0, 1.0])
    loss, share = ppo_losses.policy_loss(log_probs, torch.zeros(4), gains, clip=0.2)
    # gains: min(1.5 * 2, 1.2 * 2) = 2.4; min(0.5 * -2, 0.8 * -2) = -1.6; min(1.5 * -2, 1.2 * -2) =
    # -3; 1 * 1 = 1 loss: -(2.4 - 1.6 - 3 + 1) / 4 = 0.3; the first two are clipped: 2 / 4
    assert loss.item() == pytest.approx(0.3)
    assert share.item() == 0.5
    assert not share.requires_grad
    loss.backward()
    # d loss / d log p = -ratio * A / 4 where not clipped: 3 / 4 and -1 / 4
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == pytest.approx([0.0, 0.0, 0.75, -0.25])


def test_value_loss_by_hand() -> None:
    values = torch.tensor([2.0, 0.1, -1.0]).requires_grad_()
    loss, share = ppo_losses.value_loss(values, torch.zeros(3), torch.tensor([3.0, 1.0, 1.0]), clip=0.5)
    # plain: 1, 0.81, 4; clipped to 0.5, 0.1, -0.5: 6.25, 0.81, 2.25; half the mean of 6.25, 0.81, 4
    # is 11.06 / 6
    assert loss.item() == pytest.approx(11.06 / 6)
    assert share.item() == pytest.approx(1 / 3)
    assert not share.requires_grad
    loss.backward()
    # d loss / d value = (value - return) / 3 where not clipped: -0.9 / 3 and -2 / 3
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([0.0, -0.3, -2 / 3])


def test_log_probabilities_and_entropies_by_hand() -> None:
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    tokens = torch.tensor([0, 1])
    # shares 3/4 and 1/4: entropy 0.75 ln(4/3) + 0.25 ln 4 = 0.562335; halves: ln 2
    assert ppo_losses.token_log_probs(logits, tokens).tolist() == pytest.approx([math.log(0.75), math.log(0.5)])
    assert ppo_losses.entropy(logits).tolist() == pytest.approx([0.562335, math.log(2)], abs=1e-6)
    # at temperature 1/2 logits double: shares 9/10 and 1/10, entropy 0.9 ln(10/9) + 0.1 ln 10 =
    # 0.325083
    assert ppo_losses.token_log_probs(logits, tokens, 0.5).tolist() == pytest.approx([math.log(0.9), math.log(0.5)])
    assert ppo_losses.entropy(logits, 0.5).tolist() == pytest.approx([0.325083, math.log(2)], abs=1e-6)


def test_log_probabilities_are_fp32_and_refuse_a_temperature_of_0() -> None:
    logits, tokens = torch.randn(3, 5).bfloat16(), torch.tensor([0, 1, 4])
    for work in (
        lambda heat: ppo_losses.token_log_probs(logits, tokens, heat),
        lambda h: ppo_losses.entropy(logits, h),
    ):
        assert work(1.0).dtype == torch.float32
        with pytest.raises(ParamsError, match="temperature is 0"):
            work(0.0)


def test_importance_weights_worked_by_hand() -> None:
    old, sampled = torch.tensor([0.5, 0.2, 0.9]).log(), torch.tensor([0.25, 0.4, 0.3]).log()
    weights = ppo_losses.importance(old, sampled)
    assert weights.tolist() == pytest.approx([2.0, 0.5, 2.0])  # the last one is cut: 3
    loss, _ = ppo_losses.policy_loss(old, old, torch.tensor([1.0, 2.0, -1.0]), 0.2, weights)
    assert loss.item() == pytest.approx(-(2.0 + 1.0 - 2.0) / 3)
