"""In which dtype weights are held and kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stages.common.core import models, precision
from stages.common.reward import scoring
from tests.common.reward.test_scoring import reward_model
from tests.support.tiny import make_model, make_tokenizer

ROWS = [[5, 6, 7, 8], [9, 10, 11, 12, 13]]


def write(folder: Path, dtype: torch.dtype, model: Any = None) -> Path:
    tokenizer = make_tokenizer()
    models.save((model or make_model(tokenizer)).to(dtype), tokenizer, folder)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_folder_s_dtype_is_read_and_a_gpu_holds_frozen_models_in_16_bits(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "model", dtype)
    assert precision.stored(folder) == dtype
    assert precision.frozen(folder) == torch.float32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert precision.frozen(folder) == (torch.bfloat16 if dtype == torch.float32 else dtype)


def test_a_model_is_trained_in_fp32_whatever_it_is_on_disk(tmp_path: Path) -> None:
    model = models.load(write(tmp_path / "model", torch.bfloat16))
    assert {one.dtype for one in model.parameters()} == {torch.float32}
    assert model.stored_dtype == torch.bfloat16


def test_shards_are_rounded_one_by_one_and_their_index_says_so(tmp_path: Path) -> None:
    model = make_model(make_tokenizer())
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 1
    precision.write_rounded(tmp_path, torch.bfloat16)
    assert sorted(tmp_path.glob("*.safetensors")) == files and precision.stored(tmp_path) == torch.bfloat16
    weights = {name: value for file in files for name, value in load_file(file).items()}
    assert all(torch.equal(value, model.state_dict()[name].bfloat16()) for name, value in weights.items())
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in weights.values())
    assert set(index["weight_map"]) == set(weights)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert models.load(tmp_path).stored_dtype == torch.bfloat16


def test_what_has_the_dtype_is_not_written_again(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", torch.float32)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    precision.write_rounded(folder, torch.float32)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_a_frozen_reward_model_has_16_bits_and_a_whole_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "reward", torch.float32, reward_model())
    whole = scoring.score_rows(scoring.load(folder), ROWS)
    monkeypatch.setattr(precision, "frozen", lambda _: torch.bfloat16)
    model = scoring.load(folder)
    dtypes = {name: one.dtype for name, one in model.named_parameters()}
    assert dtypes.pop("score.weight") == torch.float32 and set(dtypes.values()) == {torch.bfloat16}
    assert torch.equal(model.get_submodule("score").weight, load_file(folder / "model.safetensors")["score.weight"])
    assert scoring.score_rows(model, ROWS) == pytest.approx(whole, abs=0.05)
    assert {one.dtype for one in scoring.load(folder, torch.float32).parameters()} == {torch.float32}
