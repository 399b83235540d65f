"""DPO: TRL's trainer on our tokens, with all weights or with adapters."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from stages import dpo
from stages.common.core import checkpoints, models
from stages.common.runtime.errors import ParamsError
from stages.common.tracking.run import Run
from stages.common.training import fit
from tests.support import trainers

TRAINING = {"max_steps": 2, "per_device_train_batch_size": 4, "gradient_checkpointing": False, "learning_rate": 0.01}
LORA = {"r": 2, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path / "checkpoints")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    # TRL switches dropout layers off, not the one inside attention
    return trainers.write_small(tmp_path, attention_dropout=0.0)


def trainer_in(work: Path, **settings: Any) -> Any:
    return trainers.build("dpo", dpo.Params(**({"training": TRAINING} | settings)), work)


def test_the_reference_reads_every_pair_once_before_training(work: Path) -> None:
    trainer = trainer_in(work)
    row = trainer.train_dataset[0]
    assert trainer.ref_model is None
    policy = models.load(work / "model").eval()
    for kind in ("chosen", "rejected"):
        ids = torch.tensor([row["prompt_ids"] + row[f"{kind}_ids"]])
        with torch.no_grad():
            scores = policy(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        expected = scores[len(row["prompt_ids"]) - 1 :].sum().item()
        assert row[f"ref_{kind}_logps"] == pytest.approx(expected, abs=1e-4)


def test_the_first_loss_is_the_logarithm_of_two_and_training_lowers_it(work: Path) -> None:
    trainer = trainer_in(work, training=TRAINING | {"max_steps": 12})
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[-1] < 0.9 * losses[0]


def test_a_model_trained_with_adapters_is_kept_whole(work: Path) -> None:
    trainer = trainer_in(work, lora=LORA)
    trainer.train()
    trainer.save_model(str(work / "kept"))
    kept, start = models.load(work / "kept"), models.load(work / "model")
    ids = torch.tensor([[5, 6, 7, 8]])
    trainer.model.eval()
    with torch.no_grad():
        assert torch.allclose(kept.eval()(ids).logits, trainer.model(ids).logits, atol=1e-5)
        assert not torch.allclose(kept(ids).logits, start.eval()(ids).logits, atol=1e-4)
    assert set(kept.state_dict()) == set(start.state_dict())
    models.load_tokenizer(work / "kept")
    how = {"max_new_tokens": 12, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    assert torch.equal(kept.generate(ids, **how), trainer.model.generate(input_ids=ids, **how))


def test_a_checkpoint_keeps_adapters_apart(work: Path) -> None:
    settings = dpo.Params(training=TRAINING, lora=LORA)
    trainer = trainer_in(work, lora=LORA)
    fit.fit(trainer, settings, Run(None), "dpo")
    newest = checkpoints.newest(Path(trainer.args.output_dir))
    assert newest is not None
    names = {file.name for file in newest.glob("*.safetensors")}
    assert "adapter_model.safetensors" in names and "model.safetensors" not in names


def test_a_key_of_no_adapter_is_refused_by_name(work: Path) -> None:
    with pytest.raises(ParamsError, match=r"unknown key 'dpo\.lora\.rank_r'"):
        trainer_in(work, lora={"rank_r": 2})
