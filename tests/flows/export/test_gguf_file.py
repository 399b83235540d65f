"""GGUF: what transformers reads back is the registered model, and what it cannot be is refused."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from flows.export import __main__ as export
from flows.export import gguf_file, plain
from stages import tokenizer as tokenizer_stage
from stages.common.core import models
from stages.common.runtime.errors import DataError
from tests.support import bases, exported, tiny

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GROUPED = {"num_attention_heads": 4, "num_key_value_heads": 2}


def like_qwen() -> "PreTrainedTokenizerBase":
    """Return a tokenizer that cuts text as Qwen2's does."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    made = bases.tokenizer(special=("<|im_start|>", "<|im_end|>"))
    split = next(text for text, name in gguf_file.SPLITS.items() if name == "qwen2")
    made.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.backend_tokenizer.normalizer = normalizers.NFC()
    return made


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("llama", torch.float32), ("qwen2", torch.bfloat16)],
)
def test_a_file_is_read_back_as_the_same_model(
    kind: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(plain, "apart", plain.found)
    tokenizer = bases.tokenizer() if kind == "llama" else like_qwen()
    tokenizer = tokenizer_stage.with_template(tokenizer, "chatml", [bases.EOS])
    torch.manual_seed(5)
    sizes = tiny.CONFIG | GROUPED | {"model_type": kind, "tie_word_embeddings": kind == "llama"}
    model = models.build(sizes, len(tokenizer) + 3, "test.model").to(dtype)
    for name, value in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(value)
    exported.project(tmp_path, tokenizer, model)
    validated = Path("data/validated")
    talks, test = validated / "conversations/validation", validated / "questions"
    export.main("1", "gguf", 4, Path("exports"), False, None, test, talks)
    folder = Path("exports/lathe-1-gguf")
    facts = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert facts["questions"]["equal"] == 4 and facts["architecture"].lower().startswith(kind)
    assert {file.suffix for file in folder.iterdir()} == {".gguf", ".json", ".md", ""}


def test_a_tensor_that_is_read_back_otherwise_is_an_error(project: Path) -> None:
    from flows.export import source as sources

    source = sources.read("1")
    found = plain.found(source.job(source.folder, None) | {"conversations": [], "questions": [], "weights": True})
    gguf_file.compare(source, found)
    theta = found["config"]["rope_parameters"] | {"rope_theta": 5e5}
    with pytest.raises(DataError, match="rope_theta is read back otherwise"):
        gguf_file.compare(source, found | {"config": found["config"] | {"rope_parameters": theta}})
    name = "model.layers.1.self_attn.q_proj.weight"
    with pytest.raises(DataError, match=f"tensor {name} is read back otherwise"):
        gguf_file.compare(source, found | {"weights": found["weights"] | {name: "0"}})


def test_the_tokenizer_that_is_trained_here_is_refused_by_name(project: Path) -> None:
    from flows.export import source as sources

    with pytest.raises(
        DataError, match=r"cuts text by Digits \+ Split \+ ByteLevel, which has no name there.*export hf"
    ):
        gguf_file.check(sources.read("1"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "gpt2"}, "a gpt2 model; written are llama, qwen2"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, r"scaled \(llama3\)"),
        ({"attention_bias": True}, "its layers have biases"),
        ({"hidden_act": "gelu"}, "its activation is gelu"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "a sliding window"),
    ],
)
def test_a_model_that_the_format_cannot_carry_is_refused_by_name(change: dict[str, Any], said: str) -> None:
    from types import SimpleNamespace

    plain_one = {"model_type": "llama", "rope_parameters": {"rope_type": "default"}, "hidden_act": "silu"}
    config = SimpleNamespace(**{"attention_bias": False, "mlp_bias": False} | plain_one | change)
    found = " ".join(gguf_file.beyond(config))
    import re

    assert re.search(said, found)
