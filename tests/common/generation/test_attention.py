"""The kernels of a GPU give what the CPU's give, and none falls back to a matrix of all weights."""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from stages.common.generation import attention, generator, packed_forward
from tests.support import decoders

ROWS, PAIRS, TOKENS, SIZE = 5, 2, 9, 8
LENGTHS = torch.tensor([1, 9, 4, 3, 7])
NONE = (0, 0)
"""The capability of a GPU without flash-attn."""


def on_gpu(
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    heads: int = 6,
    size: int = SIZE,
    flash: tuple[int, int] = NONE,
) -> attention.Kernels:
    """Return what is chosen on a GPU, with flash-attn installed where it has a capability."""
    known = None if flash == NONE else ModuleSpec("flash_attn", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: known)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: flash)
    weight: Any = SimpleNamespace(device=torch.device("cuda:0"), dtype=dtype)
    return attention.choose(heads, PAIRS, size, weight)


def with_kvcache(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, cache_seqlens: Any, softmax_scale: float
) -> torch.Tensor:
    """Do as flash_attn 2 says: [B, 1, Hq, D] of a cache [B, T, Hkv, D], a row to its length."""
    assert cache_seqlens.dtype == torch.int32
    assert keys.stride(-1) == values.stride(-1) == 1
    found = torch.empty_like(queries)
    for row, length in enumerate(cache_seqlens.tolist()):
        for head in range(queries.shape[2]):
            pair = head // (queries.shape[2] // keys.shape[2])
            weights = (keys[row, :length, pair] @ queries[row, 0, head] * softmax_scale).softmax(0)
            found[row, 0, head] = weights @ values[row, :length, pair]
    return found


def given(heads: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(heads)
    shapes = ((ROWS, heads, TOKENS, SIZE), (ROWS, PAIRS, TOKENS, SIZE), (ROWS, PAIRS, TOKENS, SIZE))
    queries, keys, values = (torch.randn(shape, generator=dice) for shape in shapes)
    return queries, keys, values


@pytest.mark.parametrize("heads", [2, 6])
def test_every_kernel_attends_as_the_cpus(heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys, values = given(heads)
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_with_kvcache=with_kvcache))
    cpu = attention.choose(heads, PAIRS, SIZE, keys)
    later = torch.arange(TOKENS) >= LENGTHS[:, None]
    mask = torch.zeros(later.shape).masked_fill_(later, -torch.inf)[:, None, None]
    for flash in (NONE, (9, 0)):
        for dtype in (torch.float32, torch.bfloat16):
            gpu = on_gpu(monkeypatch, dtype, heads, flash=flash)
            assert gpu.masked == (flash == NONE or dtype == torch.float32)
            read = (one.read(queries, keys, values, 0.3) for one in (gpu, cpu))
            torch.testing.assert_close(*read, atol=1e-5, rtol=1e-5)
            step = (one.step(queries[:, :, 0], keys, values, mask, LENGTHS, 0.3) for one in (gpu, cpu))
            torch.testing.assert_close(*step, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "size", "flash", "named"),
    [
        (torch.bfloat16, 128, (9, 0), "flash_attn"),
        (torch.bfloat16, 128, (8, 0), "flash_attn"),
        (torch.bfloat16, 128, (7, 5), "sdpa"),  # older than the package's kernels
        (torch.bfloat16, 512, (9, 0), "sdpa"),
        (torch.float32, 128, (9, 0), "sdpa"),
        (torch.bfloat16, 128, NONE, "sdpa"),
    ],
)
def test_flash_attention_is_taken_where_it_is_and_the_log_says_so_once(
    dtype: torch.dtype,
    size: int,
    flash: tuple[int, int],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    attention._say.cache_clear()
    with caplog.at_level("INFO", logger="lathe"):
        chosen = [on_gpu(monkeypatch, dtype, size=size, flash=flash) for _ in range(3)]
        attention.choose(6, PAIRS, size, torch.zeros(1))
    assert {one.name.split(" ")[0].rstrip(",") for one in chosen} == {named}
    assert [line.split(": ")[1].split(" ")[0].rstrip(",") for line in caplog.messages] == [named]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_shared_keys_meet_no_mask_and_no_32_bits(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    sdpa: Any = scaled_dot_product_attention

    def watched(*states: torch.Tensor, **named: Any) -> torch.Tensor:
        calls.append(named)
        return sdpa(*states, **named)

    model = decoders.build("llama")
    prompts = decoders.prompts(12)
    expected = generator.generate(model, prompts, max_new_tokens=6, stop=[66], batch_size=4)
    chosen = on_gpu(monkeypatch, dtype, heads=4)
    monkeypatch.undo()
    monkeypatch.setattr(attention, "scaled_dot_product_attention", watched)
    monkeypatch.setattr(attention, "choose", lambda *_: chosen)
    assert generator.generate(model, prompts, max_new_tokens=6, stop=[66], batch_size=4) == expected
    grouped = [one for one in calls if one.get("enable_gqa")]
    assert not any(one.get("attn_mask") is not None for one in grouped)
    assert bool(grouped) == (dtype == torch.bfloat16)
    assert any(one.get("attn_mask") is not None for one in calls)


BLOCKS = ((1, 5), (3, 7), (2, 1))
"""Rows and their lengths: 28 tokens."""


def varlen_func(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *places: Any,
    dropout_p: float,
    softmax_scale: float,
    causal: bool,
) -> torch.Tensor:
    """Do as flash_attn 2 says: [T, Hq, D] of rows that end where `cu_seqlens` say."""
    query_ends, key_ends, *longest = places
    assert torch.equal(query_ends, key_ends) and query_ends.dtype == torch.int32 and causal and not dropout_p
    assert longest == [7, 7] and queries.stride(-1) == keys.stride(-1) == values.stride(-1) == 1
    ends = query_ends.tolist()
    parts = []
    for start, end in pairwise(ends):
        query, key, value = (one[start:end].transpose(0, 1)[None] for one in (queries, keys, values))
        found = scaled_dot_product_attention(query, key, value, is_causal=True, scale=softmax_scale, enable_gqa=True)
        parts.append(found[0].transpose(0, 1))
    return torch.cat(parts)


def test_rows_one_after_the_other_are_read_alike_by_their_lengths_and_group_by_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dice = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(1, heads, 28, SIZE, generator=dice) for heads in (6, PAIRS, PAIRS))
    module = SimpleNamespace(num_key_value_groups=3, is_causal=True)

    def read() -> torch.Tensor:
        return packed_forward._attend(module, query, key, value, None, BLOCKS, scaling=0.3, dropout=0.0)[0]

    dense = read()
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=varlen_func))
    monkeypatch.setattr(attention, "is_varlen", lambda _: True)
    torch.testing.assert_close(read(), dense, atol=1e-5, rtol=1e-5)
    assert attention._ends(BLOCKS, torch.device("cpu"))[0].tolist() == [0, 5, 12, 19, 26, 27, 28]


@pytest.mark.parametrize(
    ("place", "dtype", "size", "flash", "taken"),
    [
        ("cuda:0", torch.bfloat16, 128, (9, 0), True),
        ("cuda:0", torch.float16, 64, (8, 0), True),
        ("cpu", torch.bfloat16, 128, (9, 0), False),
        ("cuda:0", torch.float32, 128, (9, 0), False),
        ("cuda:0", torch.bfloat16, 512, (9, 0), False),
        ("cuda:0", torch.bfloat16, 128, NONE, False),
    ],
)
def test_lengths_are_read_by_flash_attention_on_a_gpu_that_has_it(
    place: str, dtype: torch.dtype, size: int, flash: tuple[int, int], taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu(monkeypatch, dtype, flash=flash)  # what is installed
    queries: Any = SimpleNamespace(device=torch.device(place), dtype=dtype, shape=(1, 6, 28, size))
    assert attention.is_varlen(queries) is taken
