"""K ranked answers: loss and measures on numbers worked by hand, and the loss against expanded
pairs.
"""

import math

import pytest
import torch

from stages.common.pairs import losses
from stages.common.pairs.losses import Scored
from stages.common.reward.batches import Collator
from stages.common.runtime.errors import DataError


def batch(*ranks: list[int]) -> dict[str, torch.Tensor]:
    return Collator(0)([{"rows": [[1]] * len(one), "ranks": one} for one in ranks])


def loss_of(scores: torch.Tensor, *ranks: list[int], margin: float = 0.0, centre: float = 0.0) -> torch.Tensor:
    made = batch(*ranks)
    return losses.kwise_loss(scores, made["better"], made["worse"], made["weight"], margin, centre)


def test_the_loss_of_three_answers_by_hand() -> None:
    scores = torch.tensor([2.0, 1.0, 0.0])
    expected = (2 * math.log1p(math.exp(-1)) + math.log1p(math.exp(-2))) / 3
    assert loss_of(scores, [1, 2, 3]).item() == pytest.approx(expected, abs=1e-6)


def test_ties_give_no_pair_and_every_prompt_weighs_the_same() -> None:
    scores = torch.tensor([1.0, 0.0, 0.0, 0.0, 3.0])
    first = math.log1p(math.exp(-1))  # two pairs of equal difference
    second = math.log1p(math.exp(3))
    assert loss_of(scores, [1, 2, 2], [1, 2]).item() == pytest.approx((first + second) / 2, abs=1e-6)
    assert loss_of(torch.zeros(2), [1, 1]).item() == 0.0


def test_margin_and_centre_by_hand() -> None:
    scores = torch.tensor([2.0, 1.0])
    assert loss_of(scores, [1, 2], margin=1.0).item() == pytest.approx(math.log(2), abs=1e-6)
    assert loss_of(scores, [1, 2], centre=0.5).item() == pytest.approx(math.log1p(math.exp(-1)) + 4.5, abs=1e-6)


def test_kwise_equals_the_average_over_expanded_pairs_with_its_gradient() -> None:
    torch.manual_seed(1)
    scores = torch.randn(5 * 4, dtype=torch.float64, requires_grad=True)
    ranks = [[2, 1, 4, 3], [1, 2, 3, 4], [4, 3, 2, 1], [3, 1, 2, 4], [2, 4, 1, 3]]
    together = loss_of(scores, *ranks)
    pairs = [
        -torch.nn.functional.logsigmoid(scores[4 * prompt + one] - scores[4 * prompt + other])
        for prompt, row in enumerate(ranks)
        for one in range(4)
        for other in range(4)
        if row[one] < row[other]
    ]
    expanded = torch.stack(pairs).mean()
    assert len(pairs) == 30
    assert together.item() == pytest.approx(expanded.item(), abs=1e-6)
    gradients = [torch.autograd.grad(loss, scores)[0] for loss in (together, expanded)]
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
    assert gradients[0].abs().max() > 0.01


def test_pair_accuracy_counts_equal_scores_half_and_leaves_ties_out() -> None:
    rows = [
        Scored([1, 2, 3], [3.0, 2.0, 2.0], [1, 1, 1]),  # two right, one equal
        Scored([1, 1, 2], [0.0, 5.0, 1.0], [1, 1, 1]),  # one right, one wrong
        Scored([1, 1], [0.0, 5.0], [1, 1]),
    ]
    cell = losses.pair_accuracy(rows)
    assert (cell["value"], cell["pairs"], cell["prompts"]) == (3.5 / 5, 5, 2)
    assert cell["low"] <= cell["value"] <= cell["high"]
    assert losses.pair_accuracy(rows[2:]) == {}


def test_an_interval_has_width_even_when_every_pair_is_right() -> None:
    cell = losses.pair_accuracy([Scored([1, 2], [1.0, 0.0], [1, 1])] * 10)
    assert (cell["value"], cell["high"]) == (1.0, 1.0)
    assert cell["low"] == pytest.approx(10 / (10 + 1.959964**2), abs=1e-6)  # Wilson for 10 of 10


def test_a_score_that_is_no_number_is_an_error() -> None:
    with pytest.raises(DataError, match="not a number"):
        losses.pair_accuracy([Scored([1, 2], [math.nan, 0.0], [1, 1])])


def test_tau_b_by_hand_and_as_scipy_has_it() -> None:
    stats = pytest.importorskip("scipy.stats")
    assert losses.kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert losses.kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(2 * 3))
    assert losses.kendall_tau([1, 1, 1], [1, 2, 3]) is None
    one, other = [1, 4, 2, 2, 5, 3], [2, 3, 1, 5, 5, 4]
    assert losses.kendall_tau(one, other) == pytest.approx(stats.kendalltau(one, other).statistic)
    cell = losses.mean_tau([([1, 2], [1, 2]), ([1, 2], [2, 1]), ([1, 1], [1, 2])])
    assert (cell["value"], cell["prompts"]) == (0.0, 2)


def test_calibration_compares_predictions_with_what_was_ranked() -> None:
    likely = math.log(0.75 / 0.25)
    rows = [Scored([1, 2], [likely, 0.0], [1, 1])] * 3 + [Scored([2, 1], [likely, 0.0], [1, 1])]
    assert losses.calibration(rows) == {
        "error": pytest.approx(0.0),
        "bins": [{"predicted": pytest.approx(0.75), "observed": 0.75, "pairs": 4}],
    }
    sure = losses.calibration([Scored([2, 1], [900.0, 0.0], [1, 1])])
    assert sure["error"] == pytest.approx(1.0)


def test_length_bias_is_seen_and_told_apart_from_the_data() -> None:
    rows = [Scored([1, 2, 3], [1.0, 2.0, 3.0], [10, 20, 30]), Scored([2, 1], [-5.0, -4.0], [5, 15])]
    bias = losses.length_bias(rows)
    assert bias["score_within_prompts"] == pytest.approx(1.0)
    assert bias["ranks_within_prompts"] == pytest.approx(-15 / 25)
    assert 0 < bias["score"] < 1
