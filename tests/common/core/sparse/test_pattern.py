"""Which tokens a sparse pattern shows, how params and config.json say it, and who refuses it."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from stages.common.core import models
from stages.common.core.sparse import attention, pattern
from stages.common.core.sparse.pattern import Attention, Pattern
from stages.common.generation.engines import vllm_process
from stages.common.runtime.errors import DataError, ParamsError
from tests.support import decoders


def drawn(mask: torch.Tensor) -> list[str]:
    return ["".join("x" if seen else "." for seen in row) for row in mask.tolist()]


def distances(length: int) -> torch.Tensor:
    return torch.arange(length)[:, None] - torch.arange(length)


def test_a_token_sees_its_window_and_every_token_a_stride_away() -> None:
    (both,) = Pattern(2, 3).visible(distances(7))
    assert drawn(both) == ["x......", "xx.....", ".xx....", "x.xx...", ".x.xx..", "..x.xx.", "x..x.xx"]
    near, far = Pattern(2, 3, "alternate").visible(distances(7))
    assert drawn(near) == ["x......", "xx.....", ".xx....", "..xx...", "...xx..", "....xx.", ".....xx"]
    assert drawn(far) == ["x......", ".x.....", "..x....", "x..x...", ".x..x..", "..x..x.", "x..x..x"]


@pytest.mark.parametrize("layers", ["all", "alternate"])
def test_it_is_dense_exactly_where_nothing_before_a_token_is_hidden(layers: pattern.Layers) -> None:
    before = distances(6) >= 0
    for window in (1, 5, 6, 7):
        for stride in (1, 2, 6):
            chosen = Pattern(window, stride, layers)
            dense = all(torch.equal(kind, before) for kind in chosen.visible(distances(6)))
            assert chosen.is_dense(6) == dense, chosen


@pytest.mark.parametrize(
    "given",
    [
        {"pattern": "local_strided"},
        {"pattern": "local_strided", "window": 4},
        {"pattern": "local_strided", "stride": 4},
        {"pattern": "local_strided", "window": 0, "stride": 4},
        {"pattern": "dense", "window": 4},
        {"pattern": "dense", "window": 4, "stride": 4},
        {"window": 4, "stride": 4},
    ],
)
def test_params_that_say_half_of_a_pattern_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Attention.model_validate(given)


def test_params_without_a_pattern_are_dense() -> None:
    assert Attention().sparse() is None
    assert Attention(pattern="local_strided", window=4, stride=8).sparse() == Pattern(4, 8, "all")


@pytest.mark.parametrize("given", [{"window": 4}, {"window": 4, "stride": 2, "layers": "some"}, "dense", {"size": 3}])
def test_a_config_with_another_pattern_is_refused(given: object) -> None:
    config = decoders.build("llama").config
    setattr(config, pattern.KEY, given)
    with pytest.raises(DataError, match=pattern.KEY):
        pattern.of(config)


@pytest.mark.parametrize(
    ("model_type", "what"),
    [("bloom", "a bloom model has attention of its own"), ("gemma2", "gemma2"), ("mistral", "sliding_window")],
)
def test_models_with_other_attention_are_refused_by_name(model_type: str, what: str) -> None:
    changes = {"sliding_window": 8} if model_type == "mistral" else {}
    with pytest.raises(ParamsError, match=what):
        attention.enable(decoders.build(model_type, **changes), Pattern(2, 3), "pretrain.attention")


def test_vllm_refuses_a_sparse_model_before_it_starts(tmp_path: Path) -> None:
    model = decoders.build("llama")
    attention.enable(model, Pattern(2, 3), "pretrain.attention")
    model.save_pretrained(tmp_path)
    with pytest.raises(ParamsError, match="vLLM reads every model densely"):
        vllm_process.Vllm(tmp_path, 64, rows=2, dtype="float32")


def test_transformers_alone_refuses_a_sparse_model_instead_of_reading_it_densely(tmp_path: Path) -> None:
    from transformers import AttentionInterface, AutoModelForCausalLM

    model = decoders.build("llama")
    attention.enable(model, Pattern(2, 3), "pretrain.attention")
    model.save_pretrained(tmp_path / "once")
    models.load(tmp_path / "once").save_pretrained(tmp_path / "twice")
    held = AttentionInterface._global_mapping.pop(pattern.NAME)
    try:
        with pytest.raises(ValueError, match=pattern.NAME):
            AutoModelForCausalLM.from_pretrained(tmp_path / "twice")
    finally:
        AttentionInterface._global_mapping[pattern.NAME] = held
    assert pattern.of(models.load(tmp_path / "twice").config) == Pattern(2, 3)
