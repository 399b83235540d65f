"""Tiny language models of many architectures with random weights, large enough that no two logits
are nearly equal.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VOCABULARY = 67
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
NARROW = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
SLOTS: dict[str, dict[str, Any]] = {
    "gemma": SHAPE,
    "gpt2": NARROW,
    "gpt_neox": NARROW | {"intermediate_size": 48},
    "llama": SHAPE,
    "mistral": SHAPE | {"sliding_window": None},
    "olmo2": SHAPE,
    "phi3": SHAPE | {"num_key_value_heads": 4, "pad_token_id": 0},
    "qwen2": SHAPE,
    "qwen3": SHAPE,
    "smollm3": SHAPE | {"num_hidden_layers": 4, "pad_token_id": 0},
}
PADDED: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "gemma2": SHAPE | {"sliding_window": 8},
    "opt": NARROW | {"ffn_dim": 48, "word_embed_proj_dim": 32},
}
CONFIGS = SLOTS | PADDED


def build(model_type: str, seed: int = 0, **changes: Any) -> "PreTrainedModel":
    """Return the model of that type in evaluation mode."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokens = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None, "tie_word_embeddings": False}
    config = AutoConfig.for_model(model_type, **(tokens | CONFIGS[model_type] | changes))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def prompts(count: int, longest: int = 12) -> list[list[int]]:
    """Return prompts of mixed lengths, one token and more, all different."""
    import torch

    dice = torch.Generator().manual_seed(count)
    lengths = (torch.randperm(count, generator=dice) % longest + 1).tolist()
    return [torch.randint(VOCABULARY, (length,), generator=dice).tolist() for length in lengths]


def alone(
    model: "PreTrainedModel", prompt: list[int], stop: list[int], max_new_tokens: int = 12, **given: Any
) -> list[int]:
    """Return what transformers' own `generate` answers to one prompt, without the stop token."""
    import torch

    from stages.common.generation.generator import until

    ids = torch.tensor([prompt])
    found = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        eos_token_id=stop,
        pad_token_id=stop[0],
        **({"do_sample": False} | given),
    )
    return until(found[0, len(prompt) :].tolist(), set(stop))
