"""Packed conversations: each is read as if it stood alone, the loss is that of padded rows, or it
is refused.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from stages import sft
from stages.common.core import checkpoints, models
from stages.common.finetuning import packing
from stages.common.runtime.errors import ParamsError
from stages.common.text.parquet_writer import write as write_records
from tests.support import trainers
from tests.support.tiny import conversation, make_model, make_tokenizer

TRAINING: dict[str, Any] = {"max_steps": 3, "learning_rate": 0.01, "per_device_train_batch_size": 4, "seed": 1}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path / "checkpoints")
    trainers.write_small(tmp_path, attention_dropout=0.0)
    rows = [conversation(number, f"town {number}. " * (1 + number % 4)) for number in range(50)]
    write_records(rows, tmp_path / "conversations/train", "conversations")
    return tmp_path


def trainer_in(work: Path, **training: Any) -> Any:
    return trainers.build("sft", sft.Params(max_tokens=200, training=TRAINING | training), work)


def loss_and_gradient(trainer: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """The mean loss of all labels of the training data, in the trainer's own batches, and its
    gradient.
    """
    trainer.model.train()
    batches = list(trainer.get_train_dataloader())
    count = sum((batch["labels"] != -100).sum() for batch in batches)
    loss = sum(trainer.compute_loss(trainer.model, batch, num_items_in_batch=count) for batch in batches)
    loss.backward()
    return loss.item(), {name: part.grad for name, part in trainer.model.named_parameters()}


def test_the_loss_and_its_gradient_are_those_of_padded_rows(work: Path) -> None:
    packed, padded = trainer_in(work, packing=True), trainer_in(work)
    assert len(packed.train_dataset) < len(padded.train_dataset) / 2
    expected, gradients = loss_and_gradient(padded)
    loss, found = loss_and_gradient(packed)
    assert loss == pytest.approx(expected, abs=1e-5)
    assert max(float(gradient.abs().max()) for gradient in gradients.values()) > 0.01
    for name, gradient in found.items():
        assert torch.allclose(gradient, gradients[name], atol=1e-5), name


def test_every_conversation_is_whole_in_one_row(work: Path) -> None:
    packed, padded = trainer_in(work, packing=True), trainer_in(work, packing=False)
    found = []
    for row in packed.train_dataset:
        assert len(row["input_ids"]) == len(row["labels"]) == sum(row["seq_lengths"]) <= 200
        start = 0
        for length in row["seq_lengths"]:
            found.append((row["input_ids"][start : start + length], row["labels"][start : start + length]))
            start += length
    assert sorted(found) == sorted((row["input_ids"], row["labels"]) for row in padded.train_dataset)
    assert "seq_lengths" not in packed.eval_dataset.column_names


def test_a_conversation_does_not_see_the_one_before_it() -> None:
    tokenizer = make_tokenizer()
    model = make_model(tokenizer).eval()
    torch.manual_seed(0)
    one, other, last = (torch.randint(5, len(tokenizer), (length,)).tolist() for length in (9, 9, 7))
    batches = []
    for first in (one, other):
        row = {"input_ids": first + last, "labels": first + last, "seq_lengths": [9, 7]}
        longer = {"input_ids": one + one, "labels": one + one}
        batch = packing.Collator(0)([row, longer])
        del batch["labels"]
        with torch.no_grad():
            batches.append(model(**batch, use_cache=False).logits[0, 9:16])
    assert torch.equal(*batches)
    with torch.no_grad():
        alone = model(input_ids=torch.tensor([last])).logits[0]
    assert torch.allclose(batches[0], alone, atol=1e-5)


def test_collate_worked_by_hand() -> None:
    none = -100
    rows = [
        {"input_ids": [5, 6, 7, 8], "labels": [none, 6, none, 8], "seq_lengths": [2, 2]},
        {"input_ids": [9, 4], "labels": [none, 4]},
    ]
    batch = packing.Collator(1)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [9, 4, 1, 1]]
    assert batch["labels"].tolist() == [[none, 6, none, 8], [none, 4, none, none]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1], [0, 1, 0, 1]]
    assert set(batch) == {"input_ids", "labels", "position_ids"}  # a mask would take the place of the positions


def test_it_trains_and_evaluates_as_without(work: Path) -> None:
    packed, padded = trainer_in(work, packing=True), trainer_in(work)
    assert packed.evaluate()["eval_loss"] == pytest.approx(padded.evaluate()["eval_loss"], abs=1e-5)
    before = packed.evaluate()["eval_loss"]
    packed.train()
    assert packed.evaluate()["eval_loss"] < before - 0.1


def test_a_model_that_carries_a_state_over_is_refused() -> None:
    tokenizer = make_tokenizer()
    shape = {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    model = models.build(shape, len(tokenizer), "test.model")
    rows = [{"input_ids": [7, 8, 9, 10], "labels": [7, 8, 9, 10]}, {"input_ids": [11, 12], "labels": [11, 12]}]
    with pytest.raises(ParamsError, match=r"sft\.training\.packing: this model .*; set it to false"):
        packing.check(model, rows, "sft.training.packing")
    packing.check(make_model(tokenizer), rows, "sft.training.packing")
