"""What every trainer's mixin does with batches, and with checkpoints of another number of
processes.
"""

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from stages import sft
from stages.common.core import checkpoints, models
from stages.common.runtime.errors import ParamsError
from stages.common.tracking.run import Run
from stages.common.training import data_order, fit, kept_models
from stages.common.training.resumable import Resumable
from tests.support.trainers import write_small


class Bare(Resumable, Trainer):
    """A trainer without its library's parts."""

    def __init__(self, **given: Any) -> None:
        for name, value in given.items():
            setattr(self, name, value)


def test_numbers_of_a_batch_are_not_rounded_to_the_models_dtype() -> None:
    config = SimpleNamespace(dtype=lambda: torch.bfloat16)
    state = SimpleNamespace(deepspeed_plugin=SimpleNamespace(hf_ds_config=config))
    given: dict[str, Any] = {"args": SimpleNamespace(device="cpu"), "accelerator": SimpleNamespace(state=state)}
    batch = {"input_ids": torch.tensor([[1, 2]]), "ref_chosen_logps": torch.tensor([-57.123])}
    made = Bare(is_deepspeed_enabled=True, **given)
    found = made._prepare_input(batch)
    assert torch.equal(found["ref_chosen_logps"], batch["ref_chosen_logps"])
    assert found["input_ids"].dtype == torch.long
    rounded = Trainer._prepare_input(made, batch["ref_chosen_logps"])
    assert float(rounded[0]) == -57.0, "what the library does: an eighth of a nat"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_small(tmp_path, attention_dropout=0.0)  # drawn otherwise in halves of a batch


def trained(work: Path, batch: int) -> tuple[list[float], Path]:
    """Train two epochs of SFT, rows of like length together, or go on; return losses and folder."""
    training: dict[str, Any] = {"num_train_epochs": 2, "per_device_train_batch_size": batch, "seed": 1}
    training |= {"train_sampling_strategy": "group_by_length", "gradient_checkpointing": False}
    settings = sft.Params(training=training, checkpoint_minutes=1e-9, keep_checkpoints=100)
    trainer = sft.build_trainer(settings, work / "model", work / "conversations", "f")
    fit.fit(trainer, settings, Run(None), "sft")
    return [row["loss"] for row in trainer.state.log_history if "loss" in row], Path(trainer.args.output_dir)


def cut(folder: Path, last: int) -> None:
    """Leave the checkpoints up to step `last`, which lies in the second epoch."""
    for checkpoint in checkpoints.in_order(folder):
        if checkpoints.step(checkpoint) > last:
            shutil.rmtree(checkpoint)
    shutil.rmtree(folder / kept_models.KEPT / "epoch-2")


def test_in_a_later_epoch_the_order_is_the_one_that_was_drawn(
    work: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then with half the batch, as one process of the two that shared an optimiser step."""
    expected, folder = trained(work, 16)
    weights = models.weights_sha256(folder / kept_models.KEPT / "epoch-2")
    cut(folder, 5)
    assert trained(work, 16)[0] == expected
    assert models.weights_sha256(folder / kept_models.KEPT / "epoch-2") == weights
    cut(folder, 5)
    known = json.loads((folder / "checkpoint-5" / data_order.FILE).read_text())
    assert known == {"processes": 1, "split_by": "", "examples": 16}
    with caplog.at_level(logging.INFO, logger="lathe"):
        monkeypatch.setattr(logging.getLogger("lathe"), "propagate", True)
        halves = trained(work, 8)[0]
    assert "steps stay of 16 examples: 8 a process, 2 times" in caplog.text
    assert halves == pytest.approx(expected, abs=1e-5)


def written(folder: Path, **known: Any) -> Path:
    checkpoint = folder / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    (checkpoint / data_order.FILE).write_text(json.dumps({"processes": 2, "split_by": "", "examples": 24} | known))
    return checkpoint


@pytest.mark.parametrize(
    ("world", "batch", "times", "expected"),
    [(2, 12, 1, (12, 1)), (1, 12, 1, (12, 2)), (4, 12, 1, (6, 1)), (3, 2, 2, (2, 4)), (1, 5, 1, (4, 6))],
)
def test_another_number_of_processes_shares_steps_of_as_many_examples(
    world: int, batch: int, times: int, expected: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", str(world))
    given = {data_order.BATCH: batch, data_order.ACCUMULATION: times, "seed": 1}
    found = data_order.as_before(given, TrainingArguments, tmp_path)
    assert (found[data_order.BATCH], found[data_order.ACCUMULATION]) == expected and found["seed"] == 1


def test_without_a_checkpoint_nothing_is_changed_and_what_cannot_be_shared_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert data_order.as_before({"seed": 1}, TrainingArguments, tmp_path) == {"seed": 1}
    written(tmp_path)
    with pytest.raises(ParamsError, match=r"5 processes cannot share steps of 24 examples.*divides 24"):
        data_order.as_before({}, TrainingArguments, tmp_path)


@pytest.mark.parametrize(
    ("known", "world", "split", "said"),
    [
        ({}, 2, "", ""),
        ({}, 1, "", "going on with 1 processes where 2 were"),
        ({"split_by": "DeepSpeed's ZeRO-3"}, 2, "DeepSpeed's ZeRO-3", ""),
        ({"split_by": "DeepSpeed's ZeRO-3"}, 1, "DeepSpeed's ZeRO-3", "wrote it: 2 of DeepSpeed's ZeRO-3; now: 1"),
        ({}, 2, "FSDP", "wrote it: 2 of neither DeepSpeed nor FSDP; now: 2 of FSDP"),
    ],
)
def test_whoever_cannot_go_on_is_told_so(
    known: dict[str, str], world: int, split: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    checkpoint = written(tmp_path, **known)
    monkeypatch.setattr(data_order, "split_by", lambda _: split)
    monkeypatch.setattr(logging.getLogger("lathe"), "propagate", True)
    trainer = SimpleNamespace(args=SimpleNamespace(world_size=world))
    if split and said:
        with pytest.raises(ParamsError, match=said):
            data_order.check(checkpoint, trainer)
    else:
        data_order.check(checkpoint, trainer)
        assert said in caplog.text and bool(said) == bool(caplog.text)
