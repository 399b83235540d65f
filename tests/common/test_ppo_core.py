"""PPO's arithmetic: numbers worked by hand, and what must hold for any numbers."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common import ppo_core
from stages.common.errors import DataError, ParamsError
from stages.common.ppo_core import AdaptiveKL, FixedKL

SEEDS = st.integers(0, 2**31)
SHARES = st.floats(0, 1)
EVERYTHING = math.inf


def made(seed: int, answers: int = 4, width: int = 7) -> dict[str, torch.Tensor]:
    """Return scores, rewards, values and KL in double precision, with answers of 1 to `width` tokens."""
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
    """Return rows [B, T + by] with rubbish at the end, or, of a mask, with nothing."""
    rubbish = torch.zeros(len(rows), by, dtype=torch.bool) if rows.dtype == torch.bool else math.nan
    return torch.cat([rows, torch.full((len(rows), by), rubbish) if rubbish is math.nan else rubbish], 1)


def test_kl_estimates_by_hand() -> None:
    log_probs, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    # k1: -1 + 1.5 = 0.5 and -2 + 1 = -1; k3 with r = -0.5 and r = 1: e^-0.5 - 1 + 0.5 = 0.106531, e - 1 - 1 = 0.718282
    assert ppo_core.kl_k1(log_probs, reference).tolist() == [0.5, -1.0]
    assert ppo_core.kl_k3(log_probs, reference).tolist() == pytest.approx([0.106531, 0.718282], abs=1e-6)


@given(st.lists(st.floats(-50, 0, width=32), min_size=2, max_size=2))
def test_k3_is_never_negative_and_is_zero_only_between_equals(pair: list[float]) -> None:
    one, other = torch.tensor(pair[:1]), torch.tensor(pair[1:])
    assert ppo_core.kl_k3(one, other).item() >= 0
    assert ppo_core.kl_k3(one, one).item() == 0
    if abs(pair[0] - pair[1]) > 1e-3:
        assert ppo_core.kl_k3(one, other).item() > 0


@given(SEEDS)
def test_both_estimates_have_the_kl_as_their_expectation(seed: int) -> None:
    dice = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, 6, generator=dice, dtype=torch.float64).log_softmax(-1)
    expected = torch.nn.functional.kl_div(second, first, log_target=True, reduction="sum").item()
    for estimate in (ppo_core.kl_k1, ppo_core.kl_k3):
        assert (first.exp() * estimate(first, second)).sum().item() == pytest.approx(expected, abs=1e-12)


def test_scores_are_normalised_and_cut() -> None:
    # (3 - 1) / 2 = 1; (1 - 1) / 2 = 0; (-9 - 1) / 2 = -5, cut to -2
    assert ppo_core.normalise(torch.tensor([3.0, 1.0, -9.0]), 1.0, 2.0, 2.0).tolist() == [1.0, 0.0, -2.0]
    assert ppo_core.normalise(torch.tensor([3.0, -9.0]), 1.0, 2.0, EVERYTHING).tolist() == [1.0, -5.0]


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


@given(SEEDS, st.floats(0, 2))
def test_the_rewards_of_an_answer_sum_to_its_score_less_kl(seed: int, coefficient: float) -> None:
    batch = made(seed)
    rewards = ppo_core.token_rewards(batch["scores"], batch["kl"], batch["mask"], coefficient)
    expected = batch["scores"] - coefficient * (batch["kl"] * batch["mask"]).sum(1)
    assert torch.allclose(rewards.sum(1), expected, atol=1e-12)


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


@given(SEEDS)
def test_lambda_one_is_the_return_less_the_value(seed: int) -> None:
    batch = made(seed)
    found, returns = ppo_core.advantages(batch["rewards"], batch["values"], batch["mask"], gamma=1.0, lam=1.0)
    to_come = (batch["rewards"] * batch["mask"]).flip(1).cumsum(1).flip(1) * batch["mask"]
    assert torch.allclose(found, to_come - batch["values"] * batch["mask"], atol=1e-12)
    assert torch.allclose(returns, to_come, atol=1e-12)


@given(SEEDS, SHARES)
def test_lambda_zero_is_the_error_of_one_step(seed: int, gamma: float) -> None:
    batch = made(seed)
    found, _ = ppo_core.advantages(batch["rewards"], batch["values"], batch["mask"], gamma=gamma, lam=0.0)
    values = batch["values"] * batch["mask"]
    following = torch.cat([values[:, 1:], torch.zeros(len(values), 1)], 1)
    assert torch.allclose(found, (batch["rewards"] + gamma * following - values) * batch["mask"], atol=1e-12)


@given(SEEDS, SHARES, SHARES)
def test_padding_never_changes_anything(seed: int, gamma: float, lam: float) -> None:
    narrow = made(seed)
    wide = {name: rows if name == "scores" else widened(rows) for name, rows in narrow.items()}

    def everything(batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        mask = batch["mask"]
        rewards = ppo_core.token_rewards(batch["scores"], batch["kl"], mask, 0.3)
        found = [rewards, *ppo_core.advantages(rewards, batch["values"], mask, gamma, lam)]
        return [*found, ppo_core.whiten(batch["values"], mask), ppo_core.whiten(batch["values"], mask, False)]

    for before, after in zip(everything(narrow), everything(wide), strict=True):
        assert torch.equal(before[~narrow["mask"]], torch.zeros_like(before[~narrow["mask"]]))
        assert torch.equal(after[:, before.shape[1] :], torch.zeros(len(after), 3, dtype=after.dtype))
        assert torch.allclose(before, after[:, : before.shape[1]], rtol=0, atol=1e-12)


def test_whitening_by_hand() -> None:
    values, mask = torch.tensor([1.0, 2.0, 3.0, math.nan]), torch.tensor([True, True, True, False])
    # mean 2, variance (1 + 0 + 1) / (3 - 1) = 1
    assert ppo_core.whiten(values, mask).tolist() == pytest.approx([-1.0, 0.0, 1.0, 0.0])
    assert ppo_core.whiten(values, mask, shift_mean=False).tolist() == pytest.approx([1.0, 2.0, 3.0, 0.0])
    assert ppo_core.whiten(values, mask & (values == 3)).tolist() == [0.0] * 4  # one value has no variance
    with pytest.raises(DataError, match="no answer token"):
        ppo_core.whiten(values, torch.zeros(4, dtype=torch.bool))


@given(SEEDS, st.floats(0.1, 100), st.floats(-100, 100))
def test_whitened_values_have_mean_0_and_variance_1(seed: int, scale: float, shift: float) -> None:
    batch = made(seed, answers=5)
    values = batch["values"] * scale + shift
    inside = ppo_core.whiten(values, batch["mask"])[batch["mask"]]
    assert inside.mean().item() == pytest.approx(0, abs=1e-9)
    if len(inside) > 1:
        variance = values[batch["mask"]].var().item()  # what the epsilon takes away of 1
        assert inside.var().item() == pytest.approx(variance / (variance + 1e-8), abs=1e-9)
    kept = ppo_core.whiten(values, batch["mask"], shift_mean=False)[batch["mask"]]
    assert kept.mean().item() == pytest.approx(values[batch["mask"]].mean().item(), abs=1e-9)


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


@given(SEEDS, st.floats(0.05, 0.5))
def test_there_is_no_gradient_where_the_ratio_has_gone_too_far(seed: int, clip: float) -> None:
    dice = torch.Generator().manual_seed(seed)
    old, change, gains = torch.randn(3, 40, generator=dice, dtype=torch.float64)
    log_probs = (old + change).requires_grad_()
    loss, share = ppo_core.policy_loss(log_probs, old, gains, clip)
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
    loss, share = ppo_core.policy_loss(new, old, target, EVERYTHING)
    assert loss.item() == pytest.approx(-(target * (new - old).exp()).mean().item(), abs=1e-12)
    assert share.item() == 0
    loss, share = ppo_core.value_loss(new, old, target, EVERYTHING)
    assert loss.item() == pytest.approx(torch.nn.functional.mse_loss(new, target).item() / 2, abs=1e-12)
    assert share.item() == 0


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


@given(SEEDS, st.floats(0.1, 10))
def test_entropy_is_the_expected_surprise(seed: int, temperature: float) -> None:
    logits = torch.randn(1, 9, generator=torch.Generator().manual_seed(seed)).expand(9, 9)
    surprise = -ppo_core.token_log_probs(logits, torch.arange(9), temperature)
    found = ppo_core.entropy(logits, temperature)
    assert found[0].item() == pytest.approx((surprise * (-surprise).exp()).sum().item(), abs=1e-5)
    assert 0 <= found[0].item() <= math.log(9) + 1e-6


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


@given(st.lists(st.tuples(st.floats(-5, 200), st.integers(1, 64)), max_size=20))
def test_an_adaptive_coefficient_moves_with_kl_and_stays_above_0(updates: list[tuple[float, int]]) -> None:
    control = AdaptiveKL(0.1, target=6.0, horizon=64)
    for kl, episodes in updates:
        before = control.coefficient
        control.update(kl, episodes)
        assert control.coefficient > 0
        assert (control.coefficient > before) == (before * (1 + (kl / 6 - 1) * 1e-3) > before)


@pytest.mark.parametrize("changed", [{"coefficient": -0.1}, {"coefficient": math.nan}, {"target": 0.0}, {"horizon": 0}])
def test_controllers_refuse_numbers_without_a_meaning(changed: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=next(iter(changed))):
        AdaptiveKL(**({"coefficient": 0.1, "target": 6.0, "horizon": 100} | changed))


def test_a_kl_that_is_not_a_number_stops() -> None:
    with pytest.raises(DataError, match="not a number"):
        AdaptiveKL(0.1, 6.0, 100).update(math.nan, 32)


@settings(max_examples=20)
@given(SEEDS)
def test_expected_gradient_of_a_sampled_bandit_is_the_policy_gradient(seed: int) -> None:
    dice = torch.Generator().manual_seed(seed)
    logits, gains = torch.randn(2, 5, generator=dice, dtype=torch.float64)
    logits = logits.requires_grad_()
    shares = logits.softmax(-1)
    exact = torch.autograd.grad((shares * gains).sum(), logits)[0]
    # At the old policy the ratio is 1: the loss weighted by the shares must fall as the expected gain rises.
    surrogate = torch.stack(
        [
            ppo_core.policy_loss(logits.log_softmax(-1)[[arm]], shares.log()[[arm]].detach(), gains[[arm]], 0.2)[0]
            for arm in range(5)
        ]
    )
    found = torch.autograd.grad((shares.detach() * surrogate).sum(), logits)[0]
    assert torch.allclose(found, -exact, atol=1e-12)
