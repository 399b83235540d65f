"""A reward model of several heads: what one head is today stays to the byte, each head learns from
a sample of its own, and the reward is their mean less what they disagree.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from stages import reward
from stages.common.core import checkpoints, models
from stages.common.pairs.losses import Scored, kwise_loss
from stages.common.reward import batches, score_head, scoring
from stages.common.reward import report as reward_report
from stages.common.runtime.errors import ParamsError
from stages.common.tracking.run import Run
from tests.support import small_ppo, trainers

TRAINING = {"max_steps": 12, "per_device_train_batch_size": 8, "learning_rate": 0.01, "warmup_steps": 2}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path / "checkpoints")
    return trainers.write_small(tmp_path)


def trainer_in(work: Path, **own: Any) -> Any:
    return trainers.build("reward", reward.Params(**({"training": TRAINING} | own)), work)


def test_three_heads_are_trained_apart_and_read_as_one_reward(work: Path) -> None:
    trainer = trainer_in(work, heads=3)
    trainer.train()
    trainer.save_model(str(work / "out"))
    rows = [answer for row in trainer.eval_dataset for answer in row["rows"]]
    reward.shift(work / "out", rows)
    known = json.loads((work / "out/config.json").read_text())
    assert (known["reward_heads"], len(known["reward_offset"])) == (3, 3)
    found = scoring.head_rows(scoring.load(work / "out"), rows)
    for head in zip(*found, strict=True):
        assert sum(head) / len(head) == pytest.approx(0.0, abs=1e-5), "each is centred"
    assert scoring.score_rows(scoring.load(work / "out"), rows) == pytest.approx([sum(one) / 3 for one in found])
    penalised = scoring.score_rows(scoring.load(work / "out", std_penalty=2.0), rows)
    deviations = torch.tensor(found).std(1)
    assert torch.tensor(penalised) == pytest.approx(torch.tensor(found).mean(1) - 2 * deviations, abs=1e-5)
    assert float(deviations.min()) > 0
    one = score_head.folded(scoring.load(work / "out"))
    assert (one.config.num_labels, hasattr(one.config, "reward_heads")) == (1, False)
    assert scoring.score_rows(one, rows) == pytest.approx([sum(one) / 3 for one in found], abs=1e-5)
    scored, heads = reward_report.score(work / "out", list(trainer.eval_dataset))
    told = reward_report.write(work / "r.json", scored, {}, Run(None), heads)["heads"]
    assert len(told["pair_accuracy"]) == 3 and 0.5 < told["agreed"] <= 1 and told["deviation"] > 0


def test_it_loads_as_a_classifier_of_transformers(work: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    for heads in (1, 2):
        model = scoring.begin(work / "model", models.load_tokenizer(work / "model"), heads)
        models.save(model, models.load_tokenizer(work / "model"), work / f"{heads}")
        plain = AutoModelForSequenceClassification.from_pretrained(work / f"{heads}")
        assert plain.config.num_labels == heads
        assert torch.equal(plain.score.weight, model.score.weight)
        assert ("reward_heads" in json.loads((work / f"{heads}/config.json").read_text())) == (heads > 1)
    with pytest.raises(ParamsError, match="'heads_std_penalty' has no effect: the reward model has one head"):
        scoring.load(work / "1", std_penalty=0.5)


def test_a_heads_sample_is_its_own_and_always_the_same() -> None:
    drawn = torch.tensor([batches.draws(f"ranked:{number}", 4) for number in range(2000)])
    assert drawn.tolist()[7] == batches.draws("ranked:7", 4)
    assert drawn.mean(0) == pytest.approx(torch.ones(4), abs=0.1)  # Poisson(1): mean and variance are 1
    assert drawn.var(0) == pytest.approx(torch.ones(4), abs=0.15)
    correlations = torch.corrcoef(drawn.T) - torch.eye(4)
    assert float(correlations.abs().max()) < 0.1
    row = {"rows": [[1, 2], [1, 3], [1, 4]], "ranks": [1, 2, 3], "lengths": [1, 1, 1], "id": "a"}
    batch = batches.Collator(0, heads=2)([row])
    assert batch["draws"].tolist() == [batches.draws("a", 2)] * 3
    assert "draws" not in batches.Collator(0)([row])


def test_the_loss_of_two_heads_by_hand() -> None:
    scores = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    better, worse = torch.tensor([0]), torch.tensor([1])
    weight = torch.tensor([[2.0, 1.0]]) / 2  # the first head drew the prompt twice
    # (2 log(1 + e^-1) + log(1 + e^2)) / 2
    assert kwise_loss(scores, better, worse, weight).item() == pytest.approx((2 * 0.3132617 + 2.1269280) / 2)


def test_agreement_by_hand() -> None:
    def head(*scores: float) -> list[Scored]:
        return [Scored([1, 2, 3], scores, [1, 1, 1])]

    # Pairs (1, 2), (1, 3), (2, 3): two heads order all rightly, the third errs on the first.
    found = reward_report.agreement([head(3, 2, 1), head(3, 2, 1), head(2, 3, 1)])
    assert found["agreed"] == pytest.approx(2 / 3)
    assert (found["accuracy_agreed"], found["accuracy_apart"]) == (1.0, 1.0)
    assert found["pair_accuracy"] == [1.0, 1.0, pytest.approx(2 / 3)]
    assert found["deviation"] == pytest.approx((1 / 3**0.5 + 1 / 3**0.5 + 0) / 3)
    assert scoring.united([1.0, 2.0, 3.0], 0.5) == pytest.approx(1.5)
    assert scoring.united([4.0], 0.0) == 4.0


def test_ppo_starts_its_value_model_from_the_mean_head(work: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ppo"
    small_ppo.write_ppo(folder)
    tokenizer = models.load_tokenizer(folder / "model")
    models.save(scoring.begin(folder / "model", tokenizer, 3), tokenizer, folder / "reward")
    trainer = small_ppo.trainer_in(folder, heads_std_penalty=1.0)
    assert trainer.model.value.score.weight.shape[0] == 1
    assert trainer.setup.collector.reward.std_penalty == 1.0
    small_ppo.fit(trainer)
    assert trainer.state.global_step == trainer.state.max_steps
