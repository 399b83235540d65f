"""What a config says of rows that share a call."""

import math

import pytest
import torch

from stages.common.generation import architecture
from tests.support import architectures


@pytest.mark.parametrize(
    ("name", "window", "rope_limit", "is_attention_only"),
    [
        ("llama", math.inf, math.inf, True),
        ("llama, dynamic RoPE", math.inf, 128, True),
        ("phi3, LongRoPE", math.inf, 16, True),
        ("mistral, sliding window", 8, math.inf, True),
        ("gemma3, with a vision model", 8, math.inf, True),
        ("falcon_h1", math.inf, math.inf, False),
        ("qwen3_next", math.inf, math.inf, False),
    ],
)
def test_windows_rope_and_recurrent_layers(
    name: str, window: float, rope_limit: float, is_attention_only: bool
) -> None:
    config = architectures.build(name).config
    assert architecture.window(config) == window
    assert architecture.rope_limit(config) == rope_limit
    assert architecture.is_attention_only(config) is is_attention_only


def test_the_body_is_all_but_the_head() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    model = architectures.build("llama")
    assert architecture.body(model) is model.model
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
    }
    experts = {"num_local_experts": 1, "intermediate_size": 16, "intermediate_size_mlp": 16, "vocab_size": 50}
    other = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama4_text", **shape, **experts))
    assert other.base_model is other  # its name for it is that of another class
    assert architecture.body(other) is other.model


def test_dynamic_rope_forgets_the_longest_row() -> None:
    model = architectures.build("llama, dynamic RoPE")
    row, longer = (torch.tensor([architectures.row(length)]) for length in (140, 200))
    with torch.no_grad():
        expected = model(row).logits
        model(longer)
        assert not torch.allclose(model(row).logits, expected, atol=1e-2)
        architecture.forget_length(model)
        assert torch.equal(model(row).logits, expected)
