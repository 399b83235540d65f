"""Rows of unlike length read in one call are what each is when read alone."""

from typing import Any

import pytest
import torch

from stages.common.core import models
from stages.common.finetuning import lora
from stages.common.generation import architecture, kv_cache, packed_forward

ROWS = [[(7 * row + at) % 97 + 1 for at in range(length)] for row, length in enumerate([3, 29, 4, 5, 29, 3, 28, 11, 1])]
SHAPE = {
    "num_key_value_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LLAMA = {"model_type": "llama", **SHAPE}
PACKED = [
    LLAMA,
    {"model_type": "qwen2", **SHAPE},
    {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4},
    {"model_type": "gpt_neox", **{name: size for name, size in SHAPE.items() if name != "num_key_value_heads"}},
    {"model_type": "mistral", "sliding_window": 64, **SHAPE},
]


def build(config: dict[str, Any]) -> Any:
    torch.manual_seed(1)
    return models.build(config, 100, "test").eval()


def alone(model: Any, row: list[int]) -> torch.Tensor:
    hidden: torch.Tensor = (
        architecture.inner(model).base_model(torch.tensor([row]), use_cache=False).last_hidden_state[0]
    )
    return hidden


def laid(model: Any) -> tuple[list[list[int]], list[int], list[tuple[int, int]]]:
    """Return the groups, every third place and the last of each row, and which token of which row
    stands there.
    """
    groups, places, tokens, start = packed_forward.groups(model, list(map(len, ROWS))), [], [], 0
    for group in groups:
        width = max(len(ROWS[row]) for row in group)
        for row in group:
            own = sorted({*range(0, len(ROWS[row]), 3), len(ROWS[row]) - 1})
            places += [start + at for at in own]
            tokens += [(row, at) for at in own]
            start += width
    return groups, places, tokens


def check(model: Any) -> None:
    expected = [alone(model, row) for row in ROWS]
    groups, places, tokens = laid(model)
    for hidden, (row, at) in zip(packed_forward.read(model, ROWS, groups, places), tokens, strict=True):
        torch.testing.assert_close(hidden, expected[row][at], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", PACKED, ids=lambda config: config["model_type"])
def test_a_row_is_read_as_alone_forward_and_backward(config: dict[str, Any]) -> None:
    model, same = build(config), build(config)
    assert packed_forward.enable(model)
    with torch.no_grad():
        check(model)
    groups, places, tokens = laid(model)
    assert len(groups) == 3
    weight = torch.randn(32)
    (packed_forward.read(model, ROWS, groups, places) @ weight).tanh().sum().backward()
    torch.stack([alone(same, ROWS[row])[at] @ weight for row, at in tokens]).tanh().sum().backward()
    for (name, one), two in zip(model.named_parameters(), same.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None), name
        if one.grad is not None and two.grad is not None:
            torch.testing.assert_close(one.grad, two.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_generation_and_checkpointed_training_go_on_as_before() -> None:
    model, same = build(LLAMA), build(LLAMA)
    assert packed_forward.enable(model)
    ids = torch.arange(1, 25).view(2, 12)
    given = {"max_new_tokens": 5, "do_sample": False, "attention_mask": torch.ones_like(ids), "pad_token_id": 0}
    assert model.generate(ids, **given).tolist() == same.generate(ids, **given).tolist()
    assert isinstance(kv_cache.for_model(model, 2), kv_cache.Slots)
    for one in (model, same):
        packed_forward.enable(one)
        one.train()
    groups, places, _ = laid(model)
    model.gradient_checkpointing_enable()
    for one in (model, same):
        packed_forward.read(one, ROWS, groups, places).square().sum().backward()
    for one, two in zip(model.parameters(), same.parameters(), strict=True):
        if two.grad is not None:
            torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-6)


def test_adapters_are_read_too() -> None:
    model = lora.wrap(build(LLAMA), lora.config({"r": 2}, "test"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    assert packed_forward.enable(model)
    with torch.no_grad():
        check(model)


def test_a_model_that_cannot_is_read_group_by_group() -> None:
    model = build({"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 4})
    assert not packed_forward.enable(model)
    with torch.no_grad():
        check(model)


@pytest.mark.parametrize("window", [3, 16])
def test_rows_beyond_a_sliding_window_are_read_group_by_group(window: int) -> None:
    model = build({"model_type": "mistral", "sliding_window": window, **SHAPE})
    assert packed_forward.enable(model)
    with torch.no_grad():
        check(model)


def test_with_rope_by_length_a_row_is_read_by_its_own_length() -> None:
    turned = {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}}
    config = LLAMA | {"max_position_embeddings": 8} | turned
    model = build(config)
    assert packed_forward.enable(model)
    with torch.no_grad():
        expected = [alone(build(config), row) for row in ROWS]
        groups, places, tokens = laid(model)
        for _ in range(2):  # nor by what was read before
            found = packed_forward.read(model, ROWS, groups, places)
            for hidden, (row, at) in zip(found, tokens, strict=True):
                torch.testing.assert_close(hidden, expected[row][at], rtol=1e-4, atol=1e-5)
    assert {len({len(ROWS[row]) for row in group}) for group in groups} == {1}
    assert len(packed_forward.groups(model, [3, 3, 4, 8, 8])) < 3  # all within the length it was trained for


def test_groups_hold_every_row_once_and_little_padding() -> None:
    lengths = [3, 100, 4, 5, 101, 3, 3, 4, 5, 4, 3, 99, 98, 3, 100, 101, 100, 99, 3, 3]
    model = build(LLAMA)
    for padding, count in ((packed_forward.CALL_TOKENS, 2), (packed_forward.GROUP_TOKENS, 3)):
        groups = packed_forward.groups(model, lengths)
        assert sorted(row for group in groups for row in group) == list(range(20)) and len(groups) == count
        for group in groups:
            assert max(lengths[row] for row in group) * len(group) - sum(lengths[row] for row in group) <= padding
        assert packed_forward.groups(model, [7] * 50) == [list(range(50))]
        assert packed_forward.enable(model)
