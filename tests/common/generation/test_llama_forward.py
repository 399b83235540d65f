"""Prompts and steps read here are what transformers makes of them, in logits and in what the cache
then holds.
"""

from typing import Any

import pytest
import torch

from stages.common.core import models
from stages.common.finetuning import lora
from stages.common.generation import kv_cache, llama_forward, onednn_weights
from stages.common.generation.kv_cache import Slots
from tests.support import decoders

LENGTHS = (3, 9, 1, 6)
SIZES: dict[str, Any] = {"num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
MADE: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "num_key_value_heads": 4},
    "llama, shared keys": {"model_type": "llama", "num_key_value_heads": 2},
    "llama, biases, wide heads": {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "head_dim": 16},
    "llama, stretched": {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
    },
    "mistral": {"model_type": "mistral", "num_key_value_heads": 1, "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2},
}


def build(name: str) -> Any:
    torch.manual_seed(4)
    model = models.build(SIZES | MADE[name], 50, "test").eval()
    for weight in model.parameters():  # biases and norms are otherwise 0 and 1
        weight.data += 0.2 * torch.randn_like(weight)
    return model


def states(slots: Slots) -> torch.Tensor:
    return torch.stack([torch.stack((layer.keys[: slots.used], layer.values[: slots.used])) for layer in slots.layers])


@torch.no_grad()
def compared(model: Any) -> None:
    """Take three steps both ways, with rows of unlike length, one of which leaves."""
    theirs, ours = (Slots(model, 4) for _ in range(2))
    theirs.short = None
    assert ours.short
    positions = torch.tensor(LENGTHS)
    for slots in (theirs, ours):
        slots.admit([[7 + place for place in range(length)] for length in LENGTHS], [1] * 4, 12)
    for turn in range(3):
        tokens = torch.tensor([11, 12, 13, 14][: len(positions)]) + turn
        expected, found = (slots.step(tokens, positions, int(positions.max())) for slots in (theirs, ours))
        assert torch.allclose(found, expected, atol=2e-5), turn
        assert torch.allclose(states(ours), states(theirs), atol=2e-5), turn
        positions = positions + 1
        if turn == 1:
            for slots in (theirs, ours):
                slots.keep(torch.tensor([0, 3, 2]))
            positions = positions[[0, 3, 2]]


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("laid_out", [True, False])
def test_it_is_transformers_forward(name: str, laid_out: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn_weights, "pays", lambda _: laid_out)
    compared(build(name))


def test_adapters_count() -> None:
    adapters = lora.config({"r": 2, "target_modules": "all-linear"}, "test")
    model = lora.wrap(build("qwen2"), adapters).eval()
    before = build("qwen2")
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()
    compared(model)
    wrapped, plain = Slots(model, 1), Slots(before, 1)
    for slots in (wrapped, plain):
        slots.admit([[5, 6]], [1], 4)
    with torch.no_grad():
        found, without = (slots.step(torch.tensor([7]), torch.tensor([2]), 2) for slots in (wrapped, plain))
    assert not torch.allclose(found, without, atol=1e-2)


def test_it_goes_on_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn_weights, "pays", lambda _: False)
    slots = Slots(build("llama"), 1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        slots.admit([[5, 6]], [1], 4)
        low = slots.step(torch.tensor([7]), torch.tensor([2]), 2)
    exact = Slots(build("llama"), 1)
    with torch.no_grad():
        exact.admit([[5, 6]], [1], 4)
        assert torch.allclose(low.float(), exact.step(torch.tensor([7]), torch.tensor([2]), 2), atol=0.1)


def test_who_watches_the_models_forward_sees_every_step() -> None:
    model, calls = build("llama"), []
    slots = Slots(model, 1)
    slots.admit([[5, 6]], [1], 4)
    hook = model.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        watched = slots.step(torch.tensor([7]), torch.tensor([2]), 2)
        hook.remove()
        alone = slots.step(torch.tensor([7]), torch.tensor([2]), 2)
    assert calls == [1] and torch.allclose(watched, alone, atol=2e-5)


def test_models_built_otherwise_keep_their_own_forward() -> None:
    short = {name for name in decoders.SLOTS if llama_forward.suits(decoders.build(name))}
    assert short == {"llama", "mistral", "qwen2"}
    eager = build("llama")
    eager.set_attn_implementation("eager")
    assert Slots(eager, 1).short is None
    assert isinstance(kv_cache.for_model(eager, 1), Slots)
