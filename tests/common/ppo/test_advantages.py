"""Rewards and advantages on numbers worked by hand."""

import math

import pytest
import torch

from stages.common.ppo import advantages as ppo_advantages
from stages.common.runtime.errors import DataError


def test_scores_are_normalised_and_cut() -> None:
    # (3 - 1) / 2 = 1; (1 - 1) / 2 = 0; (-9 - 1) / 2 = -5, cut to -2
    assert ppo_advantages.normalise(torch.tensor([3.0, 1.0, -9.0]), 1.0, 2.0, 2.0).tolist() == [1.0, 0.0, -2.0]
    assert ppo_advantages.normalise(torch.tensor([3.0, -9.0]), 1.0, 2.0, math.inf).tolist() == [1.0, -5.0]


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.0), (0.0, math.nan), (math.nan, 1.0), (0.0, -1.0), (0.0, math.inf)])
def test_scores_that_do_not_vary_cannot_normalise(mean: float, std: float) -> None:
    with pytest.raises(DataError, match=r"cannot be normalised.*") as caught:
        ppo_advantages.normalise(torch.zeros(2), mean, std, 1.0)
    assert "demonstrations" in caught.value.remedy


def test_a_score_that_is_not_a_number_is_named() -> None:
    with pytest.raises(DataError, match="a score is not a number"):
        ppo_advantages.normalise(torch.tensor([0.0, math.nan]), 0.0, 1.0, 1.0)


def test_only_answers_cut_short_are_fined() -> None:
    fined = ppo_advantages.end_penalty(torch.tensor([1.0, 2.0, -1.0]), torch.tensor([True, False, False]), 1.5)
    assert fined.tolist() == [1.0, 0.5, -2.5]


def test_token_rewards_by_hand() -> None:
    kl = torch.tensor([[1.0, -2.0, 4.0], [3.0, math.nan, 9.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    rewards = ppo_advantages.token_rewards(torch.tensor([10.0, -1.0]), kl, mask, 0.5)
    # -0.5 * 1, -0.5 * -2, -0.5 * 4 + 10; and -0.5 * 3 - 1
    assert rewards.tolist() == [[-0.5, 1.0, 8.0], [-2.5, 0.0, 0.0]]


def test_masks_with_an_empty_row_or_a_gap_are_refused() -> None:
    rows = torch.zeros(2, 2)
    empty = torch.tensor([[True, False], [False, False]])
    late = torch.tensor([[True, False], [False, True]])
    for mask, what in ((empty, "no tokens"), (late, "stand together")):
        with pytest.raises(DataError, match=what) as caught:
            ppo_advantages.token_rewards(torch.zeros(2), rows, mask, 1.0)
        assert caught.value.where == "row 1 of the batch"
        with pytest.raises(DataError, match=what):
            ppo_advantages.advantages(rows, rows, mask, 1.0, 1.0)


def test_advantages_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0.0, 2.0], [4.0, 7.0, 7.0]])
    values = torch.tensor([[0.5, 1.0, 1.5], [1.0, 7.0, 7.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    found, returns = ppo_advantages.advantages(rewards, values, mask, gamma=0.5, lam=0.5)
    # d_2 = 2 - 1.5 = 0.5;                A_2 = 0.5
    # d_1 = 0 + 0.5 * 1.5 - 1 = -0.25;    A_1 = -0.25 + 0.25 * 0.5 = -0.125
    # d_0 = 1 + 0.5 * 1 - 0.5 = 1;        A_0 = 1 + 0.25 * -0.125 = 0.96875
    # the second answer is one token:     A_0 = 4 - 1 = 3
    assert found.tolist() == [[0.96875, -0.125, 0.5], [3.0, 0.0, 0.0]]
    assert returns.tolist() == [[1.46875, 0.875, 2.0], [4.0, 0.0, 0.0]]


def test_whitening_by_hand() -> None:
    values, mask = torch.tensor([1.0, 2.0, 3.0, math.nan]), torch.tensor([True, True, True, False])
    # mean 2, variance (1 + 0 + 1) / (3 - 1) = 1
    assert ppo_advantages.whiten(values, mask).tolist() == pytest.approx([-1.0, 0.0, 1.0, 0.0])
    assert ppo_advantages.whiten(values, mask, shift_mean=False).tolist() == pytest.approx([1.0, 2.0, 3.0, 0.0])
    assert ppo_advantages.whiten(values, mask & (values == 3)).tolist() == [0.0] * 4  # one value has no variance
    with pytest.raises(DataError, match="no answer token"):
        ppo_advantages.whiten(values, torch.zeros(4, dtype=torch.bool))


def test_explained_variance_by_hand() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0])
    # errors 1 - 1, 2 - 1, 3 - 2 = 0, 1, 1 of variance 1/3; returns of variance 1
    assert ppo_advantages.explained_variance(torch.tensor([1.0, 1.0, 2.0]), returns) == pytest.approx(2 / 3)
    assert ppo_advantages.explained_variance(returns + 5, returns) == 1.0  # a constant is no variance
    assert ppo_advantages.explained_variance(torch.zeros(3), returns) == 0.0
    assert ppo_advantages.explained_variance(-returns, returns) == pytest.approx(-3.0)  # errors 2, 4, 6
    assert ppo_advantages.explained_variance(returns, torch.full((3,), 0.1)) == 0.0
    assert ppo_advantages.explained_variance(returns[:1], returns[:1]) == 0.0
