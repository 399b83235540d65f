"""What `make gpu-check` measures with: the shape of Qwen2.5-0.5B on a GPU, next to nothing on a
CPU, where it is only to run.
"""

from typing import Any, NamedTuple

QWEN: dict[str, Any] = {  # the shape of Qwen2.5-0.5B
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8448,
    "tie_word_embeddings": True,
}
TINY = QWEN | {
    "hidden_size": 56,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "max_position_embeddings": 512,
}
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
"""Dense bf16 products a second, from the makers' data sheets."""


class Sizes(NamedTuple):
    """What each part reads and makes."""

    model: dict[str, Any]
    vocabulary: int
    lengths: tuple[int, ...]
    """Tokens of a training example."""
    step_tokens: int
    """Tokens of a training step."""
    steps: int
    warm: int
    """Steps before the clock starts."""
    rows: tuple[int, ...]
    """Answers that are made at once."""
    prompt_tokens: int
    new_tokens: int
    episodes: int
    """Of one PPO update."""
    episode_tokens: int
    """Longest answer of an episode."""


ON = {
    "cuda": Sizes(QWEN, 151_936, (2048, 8192), 16_384, 12, 4, (8, 64, 256), 128, 256, 64, 128),
    "cpu": Sizes(TINY, 1024, (64, 256), 512, 4, 1, (8, 64, 256), 8, 8, 4, 8),
}


def flops(model: dict[str, Any], weights: int, tokens: int) -> float:
    """Return the operations a token of training takes in sequences of `tokens`: six for each weight
    (Kaplan et al. 2020, 2.1), and those of causal attention, which sees half of them (PaLM, B).
    """
    return 6 * weights + 12 * model["num_hidden_layers"] * model["hidden_size"] * tokens / 2


def mfu(device: str, flops_per_second: float) -> float | None:
    """Return the share of a card's peak, None for a card that no data sheet here names."""
    peak = next((value for name, value in PEAK_FLOPS.items() if name in device), None)
    return flops_per_second / peak if peak else None
