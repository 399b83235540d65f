"""Models in and out of a folder."""

from pathlib import Path

from safetensors.torch import load_file

from stages.common.core import models
from tests.support.tiny import make_model, make_tokenizer


def test_copies_of_tied_weights_are_written_once(tmp_path: Path) -> None:
    model = make_model(make_tokenizer())
    copies = {name: value.clone() for name, value in model.state_dict().items()}
    assert "lm_head.weight" in copies
    model.save_pretrained(tmp_path / "plain")
    model.save_pretrained(tmp_path / "gathered", state_dict=models.tied_once(model, copies))
    plain, gathered = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "gathered"))
    assert set(plain) == set(gathered) and "lm_head.weight" not in plain
