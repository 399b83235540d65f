"""What no trainer that learns from comparisons starts with, or goes on with."""

from pathlib import Path
from typing import Any

import pytest

from stages.common.core import checkpoints
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.text.parquet_writer import write as write_records
from stages.common.tracking.run import Run
from stages.common.training import fit
from tests.support import trainers
from tests.support.tiny import NOTHING_TO_LEARN

TRAINING = {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 0.01, "gradient_checkpointing": False}
NOTHING = {
    "dpo": "no pair to learn from: 0 pairs of",
    "orpo": "no pair to learn from: 0 pairs of",
    "reward": "no comparison to learn from: 0 of",
    "kto": "no answer to learn from: 0 of",
}

pytestmark = pytest.mark.parametrize("stage", NOTHING)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path / "checkpoints")
    return trainers.write_small(tmp_path)


def build(stage: str, work: Path, **own: Any) -> tuple[Any, Any]:
    own |= {"answers": "ranked"} if stage == "kto" else {}
    settings = trainers.MODULES[stage].Params(training=TRAINING, **own)
    return settings, trainers.build(stage, settings, work)


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("why", NOTHING_TO_LEARN)
def test_nothing_to_learn_from_is_an_error(work: Path, stage: str, split: str, why: str) -> None:
    write_records(NOTHING_TO_LEARN[why], work / "comparisons" / split, "comparisons")
    with pytest.raises(DataError, match=NOTHING[stage]) as caught:
        build(stage, work)
    assert str(work / "comparisons" / split) in str(caught.value)


def test_longer_than_the_context_is_refused_before_training(work: Path, stage: str) -> None:
    with pytest.raises(ParamsError, match=rf"'{stage}\.max_tokens' is 300, but the model reads 256"):
        build(stage, work, max_tokens=300)


def test_weights_that_are_no_numbers_stop_at_the_first_step(work: Path, stage: str) -> None:
    settings, trainer = build(stage, work)
    trainer.model.get_input_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(DataError, match="the loss is nan at step 1"):
        fit.fit(trainer, settings, Run(None), stage)
    assert not list(work.rglob("checkpoint-*"))
