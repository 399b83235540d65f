"""PPO's arithmetic: what must hold for any numbers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.common.ppo import advantages as ppo_advantages
from stages.common.ppo import kl as ppo_kl
from stages.common.ppo import losses as ppo_losses
from stages.common.ppo.kl import AdaptiveKL

SEEDS = st.integers(0, 2**31)
SHARES = st.floats(0, 1)


def made(seed: int, answers: int = 4, width: int = 7) -> dict[str, torch.Tensor]:
    """Return scores, rewards, values and KL in double precision, with answers of 1 to `width`
    tokens.
    """
    dice = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, width + 1, (answers,), generator=dice)
    numbers = torch.randn(3, answers, width, generator=dice, dtype=torch.float64)
    return {
        "mask": torch.arange(width) < lengths[:, None],
        "scores": torch.randn(answers, generator=dice, dtype=torch.float64),
        "rewards": numbers[0],
        "values": numbers[1],
        "kl": numbers[2],
    }


def widened(rows: torch.Tensor, by: int = 3) -> torch.Tensor:
    """Return rows [B, T + by] with NaN at the end, or, of a mask, with nothing."""
    return torch.nn.functional.pad(rows, (0, by), value=False if rows.dtype == torch.bool else math.nan)


@given(st.lists(st.floats(-50, 0, width=32), min_size=2, max_size=2))
def test_k3_is_never_negative_and_is_zero_only_between_equals(pair: list[float]) -> None:
    one, other = torch.tensor(pair[:1]), torch.tensor(pair[1:])
    assert ppo_kl.kl_k3(one, other).item() >= 0
    assert ppo_kl.kl_k3(one, one).item() == 0
    if abs(pair[0] - pair[1]) > 1e-3:
        assert ppo_kl.kl_k3(one, other).item() > 0


@given(SEEDS)
def test_both_estimates_have_the_kl_as_their_expectation(seed: int) -> None:
    dice = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, 6, generator=dice, dtype=torch.float64).log_softmax(-1)
    expected = torch.nn.functional.kl_div(second, first, log_target=True, reduction="sum").item()
    for estimate in (ppo_kl.kl_k1, ppo_kl.kl_k3):
        assert (first.exp() * estimate(first, second)).sum().item() == pytest.approx(expected, abs=1e-12)


@given(SEEDS, st.floats(0, 2))
def test_the_rewards_of_an_answer_sum_to_its_score_less_kl(seed: int, coefficient: float) -> None:
    batch = made(seed)
    rewards = ppo_advantages.token_rewards(batch["scores"], batch["kl"], batch["mask"], coefficient)
    expected = batch["scores"] - coefficient * (batch["kl"] * batch["mask"]).sum(1)
    assert torch.allclose(rewards.sum(1), expected, atol=1e-12)


@given(SEEDS)
def test_lambda_one_is_the_return_less_the_value(seed: int) -> None:
    batch = made(seed)
    found, returns = ppo_advantages.advantages(batch["rewards"], batch["values"], batch["mask"], gamma=1.0, lam=1.0)
    to_come = (batch["rewards"] * batch["mask"]).flip(1).cumsum(1).flip(1) * batch["mask"]
    assert torch.allclose(found, to_come - batch["values"] * batch["mask"], atol=1e-12)
    assert torch.allclose(returns, to_come, atol=1e-12)


@given(SEEDS, SHARES)
def test_lambda_zero_is_the_error_of_one_step(seed: int, gamma: float) -> None:
    batch = made(seed)
    found, _ = ppo_advantages.advantages(batch["rewards"], batch["values"], batch["mask"], gamma=gamma, lam=0.0)
    values = batch["values"] * batch["mask"]
    following = torch.cat([values[:, 1:], torch.zeros(len(values), 1)], 1)
    assert torch.allclose(found, (batch["rewards"] + gamma * following - values) * batch["mask"], atol=1e-12)


@given(SEEDS, SHARES, SHARES)
def test_padding_never_changes_anything(seed: int, gamma: float, lam: float) -> None:
    narrow = made(seed)
    wide = {name: rows if name == "scores" else widened(rows) for name, rows in narrow.items()}

    def everything(batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        mask = batch["mask"]
        rewards = ppo_advantages.token_rewards(batch["scores"], batch["kl"], mask, 0.3)
        found = [rewards, *ppo_advantages.advantages(rewards, batch["values"], mask, gamma, lam)]
        return [
            *found,
            ppo_advantages.whiten(batch["values"], mask),
            ppo_advantages.whiten(batch["values"], mask, False),
        ]

    for before, after in zip(everything(narrow), everything(wide), strict=True):
        assert torch.equal(before[~narrow["mask"]], torch.zeros_like(before[~narrow["mask"]]))
        assert torch.equal(after[:, before.shape[1] :], torch.zeros(len(after), 3, dtype=after.dtype))
        assert torch.allclose(before, after[:, : before.shape[1]], rtol=0, atol=1e-12)


@given(SEEDS, st.floats(0.1, 100), st.floats(-100, 100))
def test_whitened_values_have_mean_0_and_variance_1(seed: int, scale: float, shift: float) -> None:
    batch = made(seed, answers=5)
    values = batch["values"] * scale + shift
    inside = ppo_advantages.whiten(values, batch["mask"])[batch["mask"]]
    assert inside.mean().item() == pytest.approx(0, abs=1e-9)
    if len(inside) > 1:
        variance = values[batch["mask"]].var().item()  # what the epsilon takes away of 1
        assert inside.var().item() == pytest.approx(variance / (variance + 1e-8), abs=1e-9)
    kept = ppo_advantages.whiten(values, batch["mask"], shift_mean=False)[batch["mask"]]
    assert kept.mean().item() == pytest.approx(values[batch["mask"]].mean().item(), abs=1e-9)


@given(SEEDS, st.floats(0.05, 0.5))
def test_there_is_no_gradient_where_the_ratio_has_gone_too_far(seed: int, clip: float) -> None:
    dice = torch.Generator().manual_seed(seed)
    old, change, gains = torch.randn(3, 40, generator=dice, dtype=torch.float64)
    log_probs = (old + change).requires_grad_()
    loss, share = ppo_losses.policy_loss(log_probs, old, gains, clip)
    loss.backward()
    ratio = change.exp()
    too_far = torch.where(gains > 0, ratio > 1 + clip, ratio < 1 - clip)
    assert log_probs.grad is not None
    assert torch.equal(log_probs.grad == 0, too_far)
    assert torch.allclose(log_probs.grad[~too_far], (-gains * ratio / 40)[~too_far], atol=1e-12)
    assert share.item() == pytest.approx(too_far.double().mean().item(), abs=1e-6)


@given(SEEDS)
def test_an_infinite_clip_is_the_plain_loss(seed: int) -> None:
    dice = torch.Generator().manual_seed(seed)
    new, old, target = torch.randn(3, 20, generator=dice, dtype=torch.float64)
    loss, share = ppo_losses.policy_loss(new, old, target, math.inf)
    assert loss.item() == pytest.approx(-(target * (new - old).exp()).mean().item(), abs=1e-12)
    assert share.item() == 0
    loss, share = ppo_losses.value_loss(new, old, target, math.inf)
    assert loss.item() == pytest.approx(torch.nn.functional.mse_loss(new, target).item() / 2, abs=1e-12)
    assert share.item() == 0


@given(SEEDS, st.floats(0.1, 10))
def test_entropy_is_the_expected_surprise(seed: int, temperature: float) -> None:
    logits = torch.randn(1, 9, generator=torch.Generator().manual_seed(seed)).expand(9, 9)
    surprise = -ppo_losses.token_log_probs(logits, torch.arange(9), temperature)
    found = ppo_losses.entropy(logits, temperature)
    assert found[0].item() == pytest.approx((surprise * (-surprise).exp()).sum().item(), abs=1e-5)
    assert 0 <= found[0].item() <= math.log(9) + 1e-6


@given(st.lists(st.tuples(st.floats(-5, 200), st.integers(1, 64)), max_size=20))
def test_an_adaptive_coefficient_moves_with_kl_and_stays_above_0(updates: list[tuple[float, int]]) -> None:
    control = AdaptiveKL(0.1, target=6.0, horizon=64)
    for kl, episodes in updates:
        before = control.coefficient
        control.update(kl, episodes)
        assert 0 < control.coefficient < math.inf
        assert (control.coefficient >= before) == (kl >= 6) or abs(kl - 6) < 1e-6


@given(SEEDS)
def test_at_the_old_policy_the_gradient_is_the_policy_gradient(seed: int) -> None:
    dice = torch.Generator().manual_seed(seed)
    logits, gains = torch.randn(2, 5, generator=dice, dtype=torch.float64)
    logits = logits.requires_grad_()
    shares = logits.softmax(-1)
    exact = torch.autograd.grad((shares * gains).sum(), logits)[0]
    # At the old policy the ratio is 1: the loss weighted by the shares must fall as the expected
    # gain rises.
    surrogate = torch.stack(
        [
            ppo_losses.policy_loss(logits.log_softmax(-1)[[arm]], shares.log()[[arm]].detach(), gains[[arm]], 0.2)[0]
            for arm in range(5)
        ]
    )
    found = torch.autograd.grad((shares.detach() * surrogate).sum(), logits)[0]
    assert torch.allclose(found, -exact, atol=1e-12)
