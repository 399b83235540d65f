"""What a trainer does around a save."""

from pathlib import Path

import pytest

from stages import sft
from stages.common.core import checkpoints
from stages.common.runtime import process
from tests.support import trainers

pytestmark = pytest.mark.slow


def test_the_grace_of_a_stop_starts_anew_when_a_save_begins_and_when_it_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trainers.write_small(tmp_path)
    training = {"max_steps": 1, "per_device_train_batch_size": 4}
    trainer = trainers.build("sft", sft.Params(training=training), tmp_path)
    trainer.train()
    folder = Path(trainer.args.output_dir)
    for old in checkpoints.in_order(folder):
        old.rename(folder / f"old-{old.name}")
    written: list[set[str]] = []
    monkeypatch.setattr(
        process, "restart_grace", lambda: written.append({file.name for file in folder.rglob(".*/*/*")})
    )
    trainer._save_checkpoint(trainer.model, None)
    begun, hashed = written
    assert begun == set()
    assert "model.safetensors" in hashed and checkpoints.MANIFEST not in hashed
    assert (checkpoints.in_order(folder)[-1] / checkpoints.MANIFEST).exists()
