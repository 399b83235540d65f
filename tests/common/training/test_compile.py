"""`training.torch_compile` in pretrain and sft: the steps, the weights and the resume of a model
that is not compiled. The backend here traces as the default one does, and compiles no C++.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stages.common.core import checkpoints
from stages.common.tracking.run import Run
from stages.common.training import fit, kept_models
from tests.support.trainers import trainer, write_small


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("compiled"), attention_dropout=0.0)


def trained(stage: str, world: Path, **more: Any) -> tuple[list[float], dict[str, torch.Tensor], Path]:
    settings, made = trainer(stage, world, **more)
    *_, kept = fit.fit(made, settings, Run(None), stage)
    losses = [row["loss"] for row in made.state.log_history if "loss" in row]
    return losses, load_file(kept / "model.safetensors"), Path(made.args.output_dir)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "sft"])
def test_compiled_it_trains_and_resumes_as_it_is(stage: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for more in ({}, {"torch_compile_backend": "eager"}):
        monkeypatch.setattr(checkpoints, "ROOT", world / f"{stage}-{len(more)}")
        found.append(trained(stage, world, **more))
    (losses, weights, _), (compiled_losses, compiled, folder) = found
    assert compiled_losses == pytest.approx(losses, abs=1e-5)
    torch.testing.assert_close(compiled, weights, rtol=0, atol=1e-5)
    if stage == "sft":  # it has a checkpoint after each step
        for late in ("checkpoint-5", "checkpoint-6", kept_models.KEPT):
            shutil.rmtree(folder / late)
        again, resumed, _ = trained(stage, world, torch_compile_backend="eager")
        assert again == compiled_losses
        torch.testing.assert_close(resumed, compiled, rtol=0, atol=0)
