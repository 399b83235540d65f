"""Tiny random models of many architectures, each with what makes it special."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.decoders import NARROW, SHAPE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WINDOW = 8
LONG = {"max_position_embeddings": 256}
SLIDING = SHAPE | LONG | {"sliding_window": WINDOW}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
TURNED = {"rope_theta": 10000.0}
FACTORS = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0]}
LONGROPE = TURNED | FACTORS | {"rope_type": "longrope", "original_max_position_embeddings": 16}
DYNAMIC = TURNED | {"rope_type": "dynamic", "factor": 4.0}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
IMAGES = {"mm_tokens_per_image": 4, "image_token_index": 319, "boi_token_index": 318, "eoi_token_index": 317}
SPARSE = {"window": 3, "stride": 4, "layers": "alternate"}
MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", SHAPE | LONG),
    "llama, dynamic RoPE": ("llama", SHAPE | {"max_position_embeddings": 128, "rope_parameters": DYNAMIC}),
    "llama, sparse": ("llama", SHAPE | LONG | {"sparse_attention": SPARSE, "attn_implementation": "lathe_sparse"}),
    "qwen2": ("qwen2", SHAPE | LONG),
    "qwen3": ("qwen3", SHAPE | LONG),
    "qwen3_moe": ("qwen3_moe", SHAPE | LONG | EXPERTS),
    "mistral, sliding window": ("mistral", SLIDING),
    "gemma2": ("gemma2", SLIDING),
    "gemma3_text": ("gemma3_text", SLIDING | {"layer_types": ["sliding_attention", "full_attention"]}),
    "gemma3, with a vision model": ("gemma3", {}),
    "phi3": ("phi3", SHAPE | LONG | {"num_key_value_heads": 4, "pad_token_id": 0}),
    "phi3, LongRoPE": ("phi3", {}),
    "olmo3": ("olmo3", SLIDING | {"layer_types": ["sliding_attention", "full_attention"]}),
    "granite": ("granite", SHAPE | LONG | {"logits_scaling": 2.0, "residual_multiplier": 0.5}),
    "cohere2": ("cohere2", SLIDING | {"layer_types": ["sliding_attention", "full_attention"]}),
    "gpt2": ("gpt2", NARROW | LONG),
    "gpt_neox": ("gpt_neox", NARROW | LONG | {"intermediate_size": 48}),
    "falcon_h1": ("falcon_h1", SHAPE | LONG | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8}),
    "qwen3_next": ("qwen3_next", SHAPE | LONG | EXPERTS | LINEAR | {"shared_expert_intermediate_size": 16}),
}
MADE["gemma3, with a vision model"] = (
    "gemma3",
    {
        "text_config": MADE["gemma3_text"][1] | {"vocab_size": 320, "bos_token_id": None, "eos_token_id": None},
        "vision_config": VISION | {"image_size": 28, "patch_size": 14},
        **IMAGES,
    },
)
MADE["phi3, LongRoPE"] = (
    "phi3",
    MADE["phi3"][1] | {"original_max_position_embeddings": 16, "rope_parameters": LONGROPE},
)
MADE["falcon_h1"][1].update({"mamba_d_state": 8, "lm_head_multiplier": 0.7})
MADE["qwen3_next"][1].update({"layer_types": ["linear_attention", "full_attention"]})


def build(name: str) -> "PreTrainedModel":
    """Return the model in evaluation mode, its weights so large that no two logits are nearly
    equal.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from stages.common.core.sparse import attention, pattern

    attention.register()
    model_type, settings = MADE[name]
    tokens = {"bos_token_id": None, "eos_token_id": None, "tie_word_embeddings": False}
    vocabulary = {} if "text_config" in settings else {"vocab_size": 320}
    config = AutoConfig.for_model(model_type, **(tokens | vocabulary | settings))
    pattern.keep(config)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def row(length: int) -> list[int]:
    """Return so many tokens, others for another length."""
    import torch

    return torch.randint(1, 300, (length,), generator=torch.Generator().manual_seed(length)).tolist()


def comparisons() -> list[dict[str, Any]]:
    """Return comparisons as rows of tokens, the last of them longer than the window."""
    made = []
    for prompt, answers in ((4, (2, 3, 1)), (3, (1, 2)), (20, (15, 11, 13))):
        rows = [row(prompt) + row(100 + answer)[:answer] for answer in answers]
        ranks = list(range(1, len(rows) + 1))
        made.append({"rows": rows, "ranks": ranks, "lengths": list(answers), "length": max(map(len, rows))})
    return made


def scorer(name: str, work: Path) -> Any:
    """Return a reward model over the base model, as a training begins with it."""
    from stages.common.core import models
    from stages.common.reward import scoring
    from tests.support.tiny import make_tokenizer

    tokenizer = make_tokenizer()
    models.save(build(name), tokenizer, work / "model")
    return scoring.begin(work / "model", tokenizer)


def classifier(name: str) -> Any:
    """Return a classifier of that kind with large random weights, in evaluation mode;
    padding is 9.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from stages.common.reward import score_head

    model_type, settings = MADE[name]
    config = AutoConfig.for_model(model_type, **({"vocab_size": 320, "num_labels": 1} | settings | {"pad_token_id": 9}))
    score_head.register(config)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model
