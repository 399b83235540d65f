"""ORPO's loss against numbers worked by hand, and TRL's own; what it refuses to train on."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from stages import orpo
from stages.common.core import checkpoints, models
from stages.common.finetuning import label_positions, lora
from stages.common.pairs import preference_pairs
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.text.parquet_writer import write as write_records
from stages.common.tracking.run import Run
from stages.common.training import fit
from tests.support.tiny import NOTHING_TO_LEARN, make_model, make_tokenizer, write_validated

TRAINING = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 0.01}
HALF, QUARTER, FIFTH = math.log(0.5), math.log(0.25), math.log(0.2)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path / "checkpoints")
    write_validated(tmp_path)
    tokenizer = make_tokenizer()
    models.save(make_model(tokenizer), tokenizer, tmp_path / "model")
    return tmp_path


def trainer_in(work: Path, **settings: Any) -> Any:
    chosen = orpo.Params(**({"training": TRAINING} | settings))
    return orpo.build_trainer(chosen, work / "model", [work / "comparisons"], "test")


def test_log_odds_worked_by_hand() -> None:
    # odds of 1/2, 1/4, 1/5: 1, 1/3, 1/4
    given = torch.tensor([HALF, QUARTER, FIFTH])
    assert orpo.log_odds(given).tolist() == pytest.approx([0.0, -math.log(3), -math.log(4)], abs=1e-6)


def test_the_loss_worked_by_hand() -> None:
    # chosen 1/2 against 1/4: odds ratio 3, so -log sigmoid(log 3) = log(4/3); 1/5 against 1/5: ratio 1, log 2
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
    trainer = orpo.PairLoss()
    trainer.odds_weight = 0.1
    model = make_model(tokenizer).eval()
    rows = [
        {"prompt_ids": [5, 6, 7], "chosen_ids": [8, 9], "rejected_ids": [10]},
        {"prompt_ids": [11], "chosen_ids": [12], "rejected_ids": [13, 14, 15, 16]},
    ]
    apart = [trainer.compute_loss(model, preference_pairs.collate([row])).item() for row in rows]
    together = trainer.compute_loss(model, preference_pairs.collate(rows)).item()
    assert together == pytest.approx(sum(apart) / 2, abs=1e-6)


def test_the_odds_ratio_term_is_trls() -> None:
    # trl 1.16, trl.experimental.orpo.ORPOTrainer.odds_ratio_loss with beta 0.1 gave these log-sigmoids
    for chosen, rejected, theirs in [(-0.3, -1.1, -0.016089855), (-2.0, -0.4, -0.263837963)]:
        loss = orpo.orpo_loss(torch.tensor([chosen]), torch.tensor([rejected]), 0.1).item()
        assert loss + chosen == pytest.approx(-theirs, abs=1e-6)


def test_only_adapters_learn_when_lora_is_set() -> None:
    tokenizer = make_tokenizer()
    adapters = lora.config({"r": 2, "target_modules": ["q_proj"]}, "orpo.lora")
    model = lora.wrap(make_model(tokenizer), adapters)
    batch = preference_pairs.collate([{"prompt_ids": [5, 6, 7], "chosen_ids": [8, 9], "rejected_ids": [10]}])
    keep, targets = label_positions.labelled_positions(batch.pop("answers"))
    logits = model(**batch, logits_to_keep=keep).logits
    chosen, rejected = orpo.answer_log_probabilities(logits, targets).chunk(2)
    orpo.orpo_loss(chosen, rejected, 0.1).backward()
    learning = [name for name, weight in model.named_parameters() if weight.grad is not None]
    assert learning
    assert all("lora_" in name for name in learning)


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("why", NOTHING_TO_LEARN)
def test_no_pair_to_learn_from_is_an_error(work: Path, split: str, why: str) -> None:
    write_records(NOTHING_TO_LEARN[why], work / "comparisons" / split, "comparisons")
    with pytest.raises(DataError, match="no pair to learn from: 0 pairs of") as caught:
        trainer_in(work)
    assert str(work / "comparisons" / split) in str(caught.value)


def test_longer_than_the_context_is_refused_before_training(work: Path) -> None:
    with pytest.raises(ParamsError, match=r"'orpo\.max_tokens' is 300, but the model reads 256"):
        trainer_in(work, max_tokens=300)


def test_training_from_weights_that_are_no_numbers_stops_at_the_first_step(work: Path) -> None:
    model = models.load(work / "model")
    model.get_input_embeddings().weight.data.fill_(float("nan"))
    models.save(model, make_tokenizer(), work / "model")
    with pytest.raises(DataError, match="the loss is nan at step 1"):
        fit.fit(trainer_in(work), orpo.Params(training=TRAINING), Run(None), "orpo")
    assert not list(work.rglob("checkpoint-*"))
