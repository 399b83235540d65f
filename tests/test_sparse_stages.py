"""Every trainer reads a model with sparse attention by its pattern, none reads it densely."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from stages import pretrain
from stages.common.core import checkpoints, models
from stages.common.core.sparse import attention, pattern
from stages.common.core.sparse.pattern import Pattern
from stages.common.runtime.errors import ParamsError
from stages.common.tracking.run import Run
from stages.common.training import fit
from tests.support import trainers
from tests.support.tiny import CONFIG, make_tokenizer

ALONE = {"window": 1, "stride": 997, "layers": "all"}
"""A pattern by which a token of a short row sees itself alone, so that every mask shows whether it
was kept.
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    trainers.write_world(folder)
    for name in ("model", "reward"):
        file = folder / name / "config.json"
        own = {pattern.KEY: ALONE, "attn_implementation": pattern.NAME}
        file.write_text(json.dumps(json.loads(file.read_text()) | own))
    return folder


@pytest.mark.parametrize("stage", [stage for stage in trainers.STAGES if stage != "pretrain"])
def test_a_trainer_takes_its_steps_with_every_token_seeing_itself_alone(
    stage: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path / "checkpoints")
    monkeypatch.setattr(trainers, "STEPS", 1)
    seen: list[bool] = []
    attend = sdpa_attention_forward

    def watched(module: Any, query: Any, key: Any, value: Any, mask: Any, **named: Any) -> Any:
        rows, width = query.shape[2], key.shape[2]
        if rows == width > 1:
            shown = torch.eye(width, dtype=torch.bool)
            visible = mask if mask.dtype == torch.bool else mask == 0
            seen.append(not (visible & ~shown).any())
        return attend(module, query, key, value, mask, **named)

    monkeypatch.setattr(attention, "sdpa_attention_forward", watched)
    monkeypatch.setattr("transformers.integrations.sdpa_attention.sdpa_attention_forward", None)
    settings, made = trainers.trainer(stage, world)
    fit.fit(made, settings, Run(None), stage)
    assert len(seen) >= 2 and all(seen)


def build(settings: dict[str, Any]) -> Any:
    own = make_tokenizer()
    return pretrain.base_model(pretrain.Params.model_validate({"training": {}} | settings), own)


def test_pretraining_writes_the_pattern_into_the_model_and_a_dense_model_has_no_word_of_it(tmp_path: Path) -> None:
    chosen = {"pattern": "local_strided", "window": 4, "stride": 8, "layers": "alternate"}
    model = build({"model": CONFIG, "attention": chosen})
    models.save(model, make_tokenizer(), tmp_path / "sparse")
    written = json.loads((tmp_path / "sparse/config.json").read_text())
    assert written[pattern.KEY] == {"window": 4, "stride": 8, "layers": "alternate"}
    continued = build({"base": str(tmp_path / "sparse")})  # dense is the default, and leaves a base as it is
    assert pattern.of(continued.config) == Pattern(4, 8, "alternate")
    build({"model": CONFIG}).save_pretrained(tmp_path / "dense")
    plain = json.loads((tmp_path / "dense/config.json").read_text())
    assert set(written) - set(plain) == {pattern.KEY, "attn_implementation"}
    ids = torch.arange(40)[None]
    dense = build({"base": str(save(tmp_path))})
    assert pattern.of(dense.config) is None
    changed = build({"base": str(tmp_path / "base"), "attention": chosen})
    assert not torch.allclose(changed.eval()(ids).logits, dense.eval()(ids).logits)


def save(folder: Path) -> Path:
    models.save(build({"model": CONFIG}), make_tokenizer(), folder / "base")
    return folder / "base"


def test_a_sparse_model_is_not_compiled(world: Path) -> None:
    chosen = {"pattern": "local_strided", "window": 4, "stride": 8}
    with pytest.raises(ParamsError, match=r"'pretrain.training.torch_compile': this model has sparse attention"):
        build({"model": CONFIG, "attention": chosen, "training": {"torch_compile": True}})
    with pytest.raises(ParamsError, match=r"'sft.training.torch_compile'"):
        trainers.trainer("sft", world, torch_compile=True)


def test_a_model_with_a_window_of_its_own_is_refused_by_name() -> None:
    chosen = {"pattern": "local_strided", "window": 4, "stride": 8}
    with pytest.raises(ParamsError, match=r"'pretrain.attention': this mistral model has a window of its own"):
        build({"model": CONFIG | {"model_type": "mistral", "sliding_window": 8}, "attention": chosen})
