"""ORPO's loss against numbers worked by hand, and TRL's own."""

import math

import pytest
import torch

from stages import orpo
from stages.common.finetuning import lora
from stages.common.pairs import preference_pairs
from tests.support.tiny import make_model, make_tokenizer

HALF, QUARTER, FIFTH = math.log(0.5), math.log(0.25), math.log(0.2)


def test_log_odds_worked_by_hand() -> None:
    # odds of 1/2, 1/4, 1/5: 1, 1/3, 1/4
    given = torch.tensor([HALF, QUARTER, FIFTH])
    assert orpo.log_odds(given).tolist() == pytest.approx([0.0, -math.log(3), -math.log(4)], abs=1e-6)


def test_the_loss_worked_by_hand() -> None:
    # chosen 1/2 against 1/4: odds ratio 3, so -log sigmoid(log 3) = log(4/3); 1/5 against 1/5:
    # ratio 1, log 2
    chosen, rejected = torch.tensor([HALF, FIFTH]), torch.tensor([QUARTER, FIFTH])
    expected = ((math.log(2) + 0.5 * math.log(4 / 3)) + (math.log(5) + 0.5 * math.log(2))) / 2
    assert orpo.orpo_loss(chosen, rejected, 0.5).item() == pytest.approx(expected, abs=1e-6)
    likelihood = (math.log(2) + math.log(5)) / 2
    assert orpo.orpo_loss(chosen, rejected, 0.0).item() == pytest.approx(likelihood, abs=1e-6)


def test_certainty_has_a_finite_loss_and_gradient() -> None:
    chosen = torch.tensor([0.0, -1e-9], requires_grad=True)
    loss = orpo.orpo_loss(chosen, torch.tensor([-200.0, 0.0]), 0.1)
    loss.backward()
    assert math.isfinite(loss.item())
    assert chosen.grad is not None
    assert torch.isfinite(chosen.grad).all()


def test_answer_log_probabilities_are_means_over_the_answer_alone() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]], [[0.1, 0.8, 0.1], [1 / 3, 1 / 3, 1 / 3]]]))
    found = orpo.answer_log_probabilities(logits, torch.tensor([[0, 2], [1, -100]]))
    assert found.tolist() == pytest.approx([(math.log(0.5) + math.log(0.6)) / 2, math.log(0.8)], abs=1e-6)


def test_padding_and_batching_do_not_change_a_pairs_loss() -> None:
    tokenizer = make_tokenizer()
    model = make_model(tokenizer).eval()
    rows = [
        {"prompt_ids": [5, 6, 7], "chosen_ids": [8, 9], "rejected_ids": [10]},
        {"prompt_ids": [11], "chosen_ids": [12], "rejected_ids": [13, 14, 15, 16]},
    ]
    apart = [orpo.pair_loss(model, preference_pairs.collate([row]), 0.1).item() for row in rows]
    together = orpo.pair_loss(model, preference_pairs.collate(rows), 0.1).item()
    assert together == pytest.approx(sum(apart) / 2, abs=1e-6)


def test_the_odds_ratio_term_is_trls() -> None:
    # trl 1.16, trl.experimental.orpo.ORPOTrainer.odds_ratio_loss with beta 0.1 gave these
    # log-sigmoids
    for chosen, rejected, theirs in [(-0.3, -1.1, -0.016089855), (-2.0, -0.4, -0.263837963)]:
        loss = orpo.orpo_loss(torch.tensor([chosen]), torch.tensor([rejected]), 0.1).item()
        assert loss + chosen == pytest.approx(-theirs, abs=1e-6)


def test_only_adapters_learn_when_lora_is_set() -> None:
    tokenizer = make_tokenizer()
    adapters = lora.config({"r": 2, "target_modules": ["q_proj"]}, "orpo.lora")
    model = lora.wrap(make_model(tokenizer), adapters)
    batch = preference_pairs.collate([{"prompt_ids": [5, 6, 7], "chosen_ids": [8, 9], "rejected_ids": [10]}])
    orpo.pair_loss(model, batch, 0.1).backward()
    learning = [name for name, weight in model.named_parameters() if weight.grad is not None]
    assert learning
    assert all("lora_" in name for name in learning)
