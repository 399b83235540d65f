"""Residual dropout: what each layer adds loses its share in training, nowhere else, to the same
bits each time.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from stages import sft
from stages.common.core import checkpoints, models
from stages.common.generation import generator
from stages.common.tracking.run import Run
from stages.common.training import dropout, fit, kept_models
from tests.support import architectures, decoders
from tests.support.trainers import write_small

SHARE = 0.2
BLOCKS = {"llama": 2, "qwen3_moe": 2, "gemma2": 2, "gpt_neox": 2, "falcon_h1": 3, "qwen3_next": 2, "bloom": 1, "opt": 1}
"""Parts that each layer adds; of OPT and BLOOM, the layer."""


def build(name: str) -> Any:
    model = architectures.build(name) if name in architectures.MADE else decoders.build(name)
    for module in model.modules():
        dropout.switch_off(module)
    return model


@torch.no_grad()
@pytest.mark.parametrize(("name", "parts"), BLOCKS.items())
def test_a_fifth_of_what_each_layer_adds_is_0_in_training_and_nothing_else(name: str, parts: int) -> None:
    model = build(name)
    ids = torch.arange(1, 41).repeat(4, 1)
    before = model(ids).logits
    dropout.add_residual(model, SHARE, "sft.dropout")
    assert torch.equal(model(ids).logits, before), "evaluation"
    layers = [one for one in model.modules() if one.__class__.__name__.endswith(("Layer", "Block"))]
    hooked = [one for one in model.modules() if one._forward_hooks]
    assert len(hooked) == parts * model.config.num_hidden_layers and layers
    given: list[tuple[Any, Any, Any]] = []
    for part in hooked:
        part.register_forward_hook(lambda _, args, named, result: given.append((args, named, result)), with_kwargs=True)
    model.train()
    assert not torch.allclose(model(ids).logits, before)
    for args, named, result in given:
        values = result[0] if isinstance(result, tuple) else result
        if parts == 1:  # the whole layer: what it adds
            values = values - (args[0] if args else named["hidden_states"])
        assert 0.15 < (values == 0).float().mean() < 0.25
    model.eval()
    assert torch.equal(model(ids).logits, before)


def test_what_is_left_is_scaled_up_so_that_the_mean_stays() -> None:
    model = build("llama")
    part = model.model.layers[0].mlp
    hidden = torch.randn(8, 32)
    plain = part(hidden)
    dropout.add_residual(model, SHARE, "sft.dropout")
    part.train()
    found = part(hidden)
    kept = found != 0
    assert torch.allclose(found[kept], plain[kept] / (1 - SHARE), atol=1e-6)


def test_a_share_of_0_leaves_the_model_as_it_is() -> None:
    model = build("llama")
    dropout.add_residual(model, 0.0, "sft.dropout")
    assert not any(module._forward_hooks for module in model.modules())


def trained(work: Path, share: float) -> tuple[list[float], Any, Path]:
    training: dict[str, Any] = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "seed": 1}
    settings = sft.Params(training=training, dropout=share, checkpoint_minutes=1e-9, keep_checkpoints=100)
    trainer = sft.build_trainer(settings, work / "model", work / "conversations", f"f{share}")
    fit.fit(trainer, settings, Run(None), "sft")
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return losses, trainer, Path(trainer.args.output_dir)


def test_sft_with_dropout_resumes_to_the_same_bits_and_keeps_a_model_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    work = write_small(tmp_path, attention_dropout=0.0)
    losses, trainer, folder = trained(work, SHARE)
    assert any(module._forward_hooks for module in trainer.model.modules())
    kept = folder / kept_models.KEPT / "epoch-2"
    weights = models.weights_sha256(kept)
    for checkpoint in checkpoints.in_order(folder):
        if checkpoints.step(checkpoint) > 2:
            shutil.rmtree(checkpoint)
    for number in (1, 2):
        shutil.rmtree(folder / kept_models.KEPT / f"epoch-{number}", ignore_errors=number == 1)
    assert trained(work, SHARE)[0] == losses
    assert models.weights_sha256(kept) == weights
    saved = models.load(kept)
    assert json.loads((kept / "config.json").read_text()).get("dropout") is None
    assert not any(module._forward_hooks for module in saved.modules())
    prompts = [[5, 6, 7], [8, 9]]
    trainer.model.train()  # the decoder itself turns dropout off
    answers = generator.generate(trainer.model, prompts, max_new_tokens=8, stop=[])
    assert answers == generator.generate(saved, prompts, max_new_tokens=8, stop=[])
