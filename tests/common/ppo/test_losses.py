"""PPO's arithmetic on numbers worked by hand."""

import math
from typing import Any

import pytest
import torch

from stages.common.ppo import losses as ppo_core
from stages.common.ppo.losses import AdaptiveKL, FixedKL
from stages.common.runtime.errors import DataError, ParamsError


def test_kl_estimates_by_hand() -> None:
    log_probs, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    # k1: -1 + 1.5 = 0.5 and -2 + 1 = -1; k3 with r = -0.5 and r = 1: e^-0.5 - 1 + 0.5 = 0.106531, e - 1 - 1 = 0.718282
    assert ppo_core.kl_k1(log_probs, reference).tolist() == [0.5, -1.0]
    assert ppo_core.kl_k3(log_probs, reference).tolist() == pytest.approx([0.106531, 0.718282], abs=1e-6)


def test_scores_are_normalised_and_cut() -> None:
    # (3 - 1) / 2 = 1; (1 - 1) / 2 = 0; (-9 - 1) / 2 = -5, cut to -2
    assert ppo_core.normalise(torch.tensor([3.0, 1.0, -9.0]), 1.0, 2.0, 2.0).tolist() == [1.0, 0.0, -2.0]
    assert ppo_core.normalise(torch.tensor([3.0, -9.0]), 1.0, 2.0, math.inf).tolist() == [1.0, -5.0]


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.0), (0.0, math.nan), (math.nan, 1.0), (0.0, -1.0), (0.0, math.inf)])
def test_scores_that_do_not_vary_cannot_normalise(mean: float, std: float) -> None:
    with pytest.raises(DataError, match=r"cannot be normalised.*") as caught:
        ppo_core.normalise(torch.zeros(2), mean, std, 1.0)
    assert "demonstrations" in caught.value.remedy


def test_a_score_that_is_not_a_number_is_named() -> None:
    with pytest.raises(DataError, match="a score is not a number"):
        ppo_core.normalise(torch.tensor([0.0, math.nan]), 0.0, 1.0, 1.0)


def test_only_answers_cut_short_are_fined() -> None:
    fined = ppo_core.end_penalty(torch.tensor([1.0, 2.0, -1.0]), torch.tensor([True, False, False]), 1.5)
    assert fined.tolist() == [1.0, 0.5, -2.5]


def test_token_rewards_by_hand() -> None:
    kl = torch.tensor([[1.0, -2.0, 4.0], [3.0, math.nan, 9.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    rewards = ppo_core.token_rewards(torch.tensor([10.0, -1.0]), kl, mask, 0.5)
    # -0.5 * 1, -0.5 * -2, -0.5 * 4 + 10; and -0.5 * 3 - 1
    assert rewards.tolist() == [[-0.5, 1.0, 8.0], [-2.5, 0.0, 0.0]]


def test_masks_with_an_empty_row_or_a_gap_are_refused() -> None:
    rows = torch.zeros(2, 2)
    empty = torch.tensor([[True, False], [False, False]])
    late = torch.tensor([[True, False], [False, True]])
    for mask, what in ((empty, "no tokens"), (late, "stand together")):
        with pytest.raises(DataError, match=what) as caught:
            ppo_core.token_rewards(torch.zeros(2), rows, mask, 1.0)
        assert caught.value.where == "row 1 of the batch"
        with pytest.raises(DataError, match=what):
            ppo_core.advantages(rows, rows, mask, 1.0, 1.0)


def test_advantages_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0.0, 2.0], [4.0, 7.0, 7.0]])
    values = torch.tensor([[0.5, 1.0, 1.5], [1.0, 7.0, 7.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    found, returns = ppo_core.advantages(rewards, values, mask, gamma=0.5, lam=0.5)
    # d_2 = 2 - 1.5 = 0.5;                A_2 = 0.5
    # d_1 = 0 + 0.5 * 1.5 - 1 = -0.25;    A_1 = -0.25 + 0.25 * 0.5 = -0.125
    # d_0 = 1 + 0.5 * 1 - 0.5 = 1;        A_0 = 1 + 0.25 * -0.125 = 0.96875
    # the second answer is one token:     A_0 = 4 - 1 = 3
    assert found.tolist() == [[0.96875, -0.125, 0.5], [3.0, 0.0, 0.0]]
    assert returns.tolist() == [[1.46875, 0.875, 2.0], [4.0, 0.0, 0.0]]


def test_whitening_by_hand() -> None:
    values, mask = torch.tensor([1.0, 2.0, 3.0, math.nan]), torch.tensor([True, True, True, False])
    # mean 2, variance (1 + 0 + 1) / (3 - 1) = 1
    assert ppo_core.whiten(values, mask).tolist() == pytest.approx([-1.0, 0.0, 1.0, 0.0])
    assert ppo_core.whiten(values, mask, shift_mean=False).tolist() == pytest.approx([1.0, 2.0, 3.0, 0.0])
    assert ppo_core.whiten(values, mask & (values == 3)).tolist() == [0.0] * 4  # one value has no variance
    with pytest.raises(DataError, match="no answer token"):
        ppo_core.whiten(values, torch.zeros(4, dtype=torch.bool))


def test_policy_loss_by_hand() -> None:
    log_probs = torch.tensor([1.5, 0.5, 1.5, 1.0]).log().requires_grad_()
    gains = torch.tensor([2.0, -2.0, -2.0, 1.0])
    loss, share = ppo_core.policy_loss(log_probs, torch.zeros(4), gains, clip=0.2)
    # gains: min(1.5 * 2, 1.2 * 2) = 2.4; min(0.5 * -2, 0.8 * -2) = -1.6; min(1.5 * -2, 1.2 * -2) = -3; 1 * 1 = 1
    # loss: -(2.4 - 1.6 - 3 + 1) / 4 = 0.3; the first two are clipped: 2 / 4
    assert loss.item() == pytest.approx(0.3)
    assert share.item() == 0.5
    assert not share.requires_grad
    loss.backward()
    # d loss / d log p = -ratio * A / 4 where not clipped: 3 / 4 and -1 / 4
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == pytest.approx([0.0, 0.0, 0.75, -0.25])


def test_value_loss_by_hand() -> None:
    values = torch.tensor([2.0, 0.1, -1.0]).requires_grad_()
    loss, share = ppo_core.value_loss(values, torch.zeros(3), torch.tensor([3.0, 1.0, 1.0]), clip=0.5)
    # plain: 1, 0.81, 4; clipped to 0.5, 0.1, -0.5: 6.25, 0.81, 2.25; half the mean of 6.25, 0.81, 4 is 11.06 / 6
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
    assert ppo_core.token_log_probs(logits, tokens).tolist() == pytest.approx([math.log(0.75), math.log(0.5)])
    assert ppo_core.entropy(logits).tolist() == pytest.approx([0.562335, math.log(2)], abs=1e-6)
    # at temperature 1/2 logits double: shares 9/10 and 1/10, entropy 0.9 ln(10/9) + 0.1 ln 10 = 0.325083
    assert ppo_core.token_log_probs(logits, tokens, 0.5).tolist() == pytest.approx([math.log(0.9), math.log(0.5)])
    assert ppo_core.entropy(logits, 0.5).tolist() == pytest.approx([0.325083, math.log(2)], abs=1e-6)


def test_log_probabilities_are_fp32_and_refuse_a_temperature_of_0() -> None:
    logits, tokens = torch.randn(3, 5).bfloat16(), torch.tensor([0, 1, 4])
    for work in (lambda heat: ppo_core.token_log_probs(logits, tokens, heat), lambda h: ppo_core.entropy(logits, h)):
        assert work(1.0).dtype == torch.float32
        with pytest.raises(ParamsError, match="temperature is 0"):
            work(0.0)


def test_explained_variance_by_hand() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0])
    # errors 1 - 1, 2 - 1, 3 - 2 = 0, 1, 1 of variance 1/3; returns of variance 1
    assert ppo_core.explained_variance(torch.tensor([1.0, 1.0, 2.0]), returns) == pytest.approx(2 / 3)
    assert ppo_core.explained_variance(returns + 5, returns) == 1.0  # a constant is no variance
    assert ppo_core.explained_variance(torch.zeros(3), returns) == 0.0
    assert ppo_core.explained_variance(-returns, returns) == pytest.approx(-3.0)  # errors 2, 4, 6
    assert ppo_core.explained_variance(returns, torch.full((3,), 0.1)) == 0.0
    assert ppo_core.explained_variance(returns[:1], returns[:1]) == 0.0


@pytest.mark.parametrize(
    ("tokens", "n", "share"),
    [
        ([], 3, 0.0),
        ([1, 1], 3, 0.0),
        ([1, 2, 3, 4], 3, 0.0),
        ([1, 1, 1, 1, 1], 3, 2 / 3),  # three trigrams, two of which were there before
        ([1, 2, 1, 2, 1], 2, 0.5),  # 12, 21, 12, 21
        ([5, 6, 5], 1, 1 / 3),
    ],
)
def test_repetition_by_hand(tokens: list[int], n: int, share: float) -> None:
    assert ppo_core.repetition(tokens, n) == pytest.approx(share)


def test_a_fixed_coefficient_stays() -> None:
    control = FixedKL(0.05)
    control.update(1000.0, 32)
    assert control.coefficient == 0.05
    assert control.state() == {"coefficient": 0.05}


def test_an_adaptive_coefficient_by_hand() -> None:
    control = AdaptiveKL(0.1, target=6.0, horizon=100)
    control.update(60.0, 10)  # 60 / 6 - 1 = 9, cut to 0.2: * (1 + 0.2 * 10 / 100)
    assert control.coefficient == pytest.approx(0.102)
    control.update(6.6, 50)  # 0.1: * 1.05
    assert control.coefficient == pytest.approx(0.1071)
    control.update(-3.0, 100)  # -1.5, cut to -0.2: * 0.8
    assert control.coefficient == pytest.approx(0.08568)
    control.update(6.0, 100)  # on target
    assert control.coefficient == pytest.approx(0.08568)
    resumed = AdaptiveKL(0.1, target=6.0, horizon=100)
    resumed.restore(control.state())
    assert resumed.coefficient == control.coefficient


@pytest.mark.parametrize("changed", [{"coefficient": -0.1}, {"coefficient": math.nan}, {"target": 0.0}, {"horizon": 0}])
def test_controllers_refuse_numbers_without_a_meaning(changed: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=next(iter(changed))):
        AdaptiveKL(**({"coefficient": 0.1, "target": 6.0, "horizon": 100} | changed))


def test_a_kl_that_is_not_a_number_stops() -> None:
    with pytest.raises(DataError, match="not a number"):
        AdaptiveKL(0.1, 6.0, 100).update(math.nan, 32)
