"""A policy's weights on disk as an engine reads them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stages.common.core import models
from stages.common.generation.engines import mirrored_policy
from tests.support.vllm import wide_model


def test_a_tied_policy_is_written_with_an_output_matrix_of_its_own(tmp_path: Path) -> None:
    policy = wide_model(0).train()
    for parameter in policy.parameters():
        parameter.data += 0.01
    mirrored_policy.write(policy, tmp_path / "mirror", torch.float32)
    mirrored_policy.write(policy, tmp_path / "mirror", torch.float32)  # in the place of the one before
    config = json.loads((tmp_path / "mirror/config.json").read_text())
    assert not config["tie_word_embeddings"] and policy.config.tie_word_embeddings
    read = models.load(tmp_path / "mirror").eval()
    assert read.lm_head.weight is not read.model.embed_tokens.weight
    tokens = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(read(tokens).logits, policy.eval()(tokens).logits)


def test_an_index_names_the_output_matrix_too(tmp_path: Path) -> None:
    policy = wide_model(0)
    save = policy.save_pretrained
    policy.save_pretrained = lambda *given, **named: save(*given, **named, max_shard_size="50KB")
    mirrored_policy.write(policy, tmp_path / "mirror", torch.bfloat16)
    index = json.loads((tmp_path / "mirror" / mirrored_policy.INDEX).read_text())["weight_map"]
    assert index["lm_head.weight"] == mirrored_policy.HEAD and len(set(index.values())) > 2
    held = load_file(tmp_path / "mirror" / mirrored_policy.HEAD)["lm_head.weight"]
    assert held.dtype == torch.bfloat16
    assert torch.equal(held, policy.model.embed_tokens.weight.bfloat16())
    assert torch.equal(models.load(tmp_path / "mirror").lm_head.weight, held.float())


class Engine:
    """In `Vllm`'s place: what it is told, in order."""

    def __init__(self, folder: Path, context: int, **named: Any) -> None:
        self.told: list[str] = ["sleeps" if named["sleeps"] else "awake"]

    def load(self, folder: Path) -> None:
        self.told.append("load")

    def sleep(self) -> None:
        self.told.append("sleep")


def test_an_engine_sleeps_between_two_rollouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrored_policy, "Vllm", Engine)
    mirror = mirrored_policy.MirroredPolicy(tmp_path / "mirror", rows=2, most_tokens=64)
    mirror.rest()  # before the first, there is none
    for _ in range(2):
        engine: Any = mirror.of(wide_model(0))
        mirror.rest()
    assert engine.told == ["sleeps", "sleep", "load", "sleep"]
