"""KTO: TRL's trainer on our tokens; its loss and weights by hand, and what it learns from."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages import kto
from stages.common.core import checkpoints, models
from stages.common.core.left_out import LackError
from stages.common.pairs import labelled_answers
from stages.common.runtime.errors import ParamsError
from stages.common.text.parquet_writer import write as write_records
from tests.support import trainers
from tests.support.tiny import comparison, labelled, make_tokenizer

TRAINING = {"max_steps": 2, "per_device_train_batch_size": 4, "gradient_checkpointing": False, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainers.write_small(tmp_path_factory.mktemp("kto"), attention_dropout=0.0)


@pytest.fixture
def work(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoints, "ROOT", world / "checkpoints")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    return world


def trainer_in(work: Path, training: dict[str, Any] | None = None, **settings: Any) -> Any:
    return trainers.build("kto", kto.Params(training=TRAINING | (training or {}), **settings), work)


def log_probability(model: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """The sum over an answer's tokens."""
    ids = torch.tensor([prompt + answer])
    scores = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    return scores[len(prompt) - 1 :].sum()


def test_the_loss_is_the_papers(work: Path) -> None:
    """Ethayarajh et al. 2024, equations 7 and 8: a policy that has moved, weights that differ, and
    a reference point above 0, as the reference is made to find other prompts' answers less likely.
    """
    trainer = trainer_in(work, {"desirable_weight": 1.5, "beta": 0.3})
    rows = [trainer.train_dataset[at] for at in range(4)]
    assert {row["label"] for row in rows} == {True, False}
    policy, reference = models.load(work / "model").eval(), models.load(work / "model").eval()
    chance = torch.Generator().manual_seed(4)

    def moved(row: dict[str, Any], answer: str) -> torch.Tensor:
        pair = (row["prompt_ids"], row[answer])
        return log_probability(policy, *pair) - log_probability(reference, *pair)

    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(torch.randn(weight.shape, generator=chance) * 0.02)
        point = (torch.stack([moved(row, "KL_completion_ids") for row in rows]).mean() + 5).clamp(min=0)
        ratios = [moved(row, "completion_ids") for row in rows]
    losses = [
        1.5 * (1 - torch.sigmoid(0.3 * (ratio - point))) if row["label"] else 1 - torch.sigmoid(0.3 * (point - ratio))
        for row, ratio in zip(rows, ratios, strict=True)
    ]
    trainer.model.load_state_dict(policy.state_dict())
    trainer.model.eval()
    batch = trainer.data_collator([row | {"ref_KL_logps": row["ref_KL_logps"] - 5} for row in rows])
    found = trainer.compute_loss(trainer.model, batch)
    assert point > 0 and trainer._metrics["eval"]["kl"] == [pytest.approx(point.item(), rel=1e-4)]
    assert found.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)


def test_the_first_loss_is_half_a_weight_and_training_raises_the_margin(work: Path) -> None:
    trainer = trainer_in(work, {"max_steps": 12}, answers="both")
    trainer.train()
    history = trainer.state.log_history
    losses, margins = ([row[name] for row in history if name in row] for name in ("loss", "rewards/margins"))
    assert losses[0] == pytest.approx(0.5, abs=1e-5) and trainer.balance["desirable_weight"] == 1.0
    assert losses[-1] < 0.9 * losses[0] and margins[-1] > 0.5


@pytest.mark.parametrize(
    ("liked", "disliked", "expected"),
    [
        (100, 100, (1.0, 1.0)),
        (120, 100, (1.0, 1.0)),
        (400, 300, (1.0, 1.0)),
        (100, 400, (4.0, 1.0)),  # 4 x 100 are as many as 400
        (800, 300, (1.0, 2.0)),  # 800 are 4/3 of 2 x 300
    ],
)
def test_weights_bring_the_ratio_to_the_nearer_end_of_one_to_four_thirds(
    liked: int, disliked: int, expected: tuple[float, float]
) -> None:
    assert labelled_answers.weights(liked, disliked) == pytest.approx(expected)
    desirable, undesirable = expected
    assert 1 <= round(desirable * liked / (undesirable * disliked), 9) <= round(4 / 3, 9)


def test_weights_that_are_given_stay_and_others_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert kto.balance({}, 100, 400)["desirable_weight"] == 4.0
    assert not caplog.records
    found = kto.balance({"undesirable_weight": 0.5}, 100, 400)
    assert found == {"liked": 100, "disliked": 400, "desirable_weight": 1.0, "undesirable_weight": 0.5}
    assert "are 0.5, outside of 1 to 4/3" in caplog.text


@pytest.mark.parametrize(
    "asked",
    [
        [1, 1, 2, 2, 3, 3, 4, 4],  # the ends of comparisons
        [1, 2, 3, 4, 1, 2, 3, 4],  # likes in one file, dislikes in another
        [1, 2, 1, 2, 3, 4, 3, 4],
        [*[1] * 40, *range(2, 90)],
    ],
)
def test_no_answer_meets_its_own_prompt(asked: list[int]) -> None:
    array = np.array(asked)
    moved = labelled_answers.shift(array)
    assert 0 < moved < len(asked) and not (array == np.roll(array, moved)).any()


def test_a_single_answer_has_no_other_prompt() -> None:
    assert labelled_answers.shift(np.array([5])) == 0
    assert labelled_answers.shift(np.array([5, 5])) == 1


def test_every_row_has_the_answer_to_another_prompt(work: Path) -> None:
    data = trainer_in(work).train_dataset
    before = labelled_answers.shift(np.array(data["asked"]))
    for at in (0, 1, 7):
        assert data[at]["KL_completion_ids"] == data[at - before]["completion_ids"]
        assert data[at]["asked"] != data[at - before]["asked"]


def test_of_ranked_answers_the_best_are_liked_and_the_worst_are_not() -> None:
    counts: Counter[str] = Counter()
    row = comparison(1, ["a", "b", "c", "d"], [2, 1, 3, 3])
    assert labelled_answers.labels(row, counts) == [("b", True), ("c", False), ("d", False)]
    assert labelled_answers.labels(comparison(1, ["a", "b"], [1, 1]), counts) == []
    assert labelled_answers.labels(labelled(1, "a", False), counts) == [("a", False)]
    assert counts == {"answers between best and worst": 1, "all tied": 1}


@pytest.mark.parametrize(("answers", "rows"), [("labelled", 50), ("ranked", 100), ("both", 150)])
def test_answers_come_from_where_the_params_say(work: Path, answers: Any, rows: int) -> None:
    settings = kto.Params(training=TRAINING, answers=answers)
    folders = settings.folders(work / "labelled", [work / "comparisons"])
    train, _ = labelled_answers.both_splits(make_tokenizer(), folders, settings)
    assert len(train) == rows


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([], r"no answer to learn from: 0 of 0 records; left out: none; bring liked and disliked answers"),
        ([labelled(61, "town 7.", True)], "all 1 answers are liked"),
        ([labelled(61, "town 8.", False)], "all 1 answers are disliked"),
        ([labelled(61, "long " * 300, True)], "left out: 1 answers longer than 256 tokens"),
        ([labelled(0, "town 0.", True)], "left out: 1 held out elsewhere"),
    ],
)
def test_without_likes_and_dislikes_it_says_so(work: Path, tmp_path: Path, told: list[Any], expected: str) -> None:
    write_records(told, tmp_path / "train", "labelled")
    write_records([labelled(0, "town 0.", True)], tmp_path / "validation", "labelled")
    with pytest.raises(LackError, match=expected):
        labelled_answers.both_splits(make_tokenizer(), [tmp_path], kto.Params(training=TRAINING))


def test_a_batch_of_one_is_refused(work: Path) -> None:
    with pytest.raises(ParamsError, match=r"'kto\.training\.per_device_train_batch_size' is 1"):
        trainer_in(work, {"per_device_train_batch_size": 1})
    apart = trainer_in(work, {"per_device_train_batch_size": 1, "loss_type": "apo_zero_unpaired"})
    assert "KL_completion_ids" not in apart.train_dataset.column_names


def test_skipped_it_says_so_in_all_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("kto: {skip: true, training: {}}\n")
    kto.main(Path("model"), Path("labelled"), [Path("comparisons")], out=Path("out"), curve=Path("curve.csv"))
    assert json.loads(Path("out/left_out.json").read_text()) == {"left_out": "kto.skip is true"}
    assert Path("curve.csv").read_text() == "step,epoch,loss,learning_rate,eval_loss\n"
