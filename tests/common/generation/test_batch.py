"""Rows that leave and the ones that take their places; the cache holds what its rows need and
little more.
"""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.common.finetuning import lora, merging
from stages.common.generation import batch, generator, kv_cache
from stages.common.generation.sampling import Sampling
from stages.common.memory import available
from tests.support import decoders


@pytest.mark.parametrize("rows", range(1, 7))
def test_survivors_fill_the_gaps_and_move_as_little_as_possible(rows: int) -> None:
    for over in itertools.product([False, True], repeat=rows):
        alive = [row for row in range(rows) if not over[row]]
        order = batch.survivors(torch.tensor(over)).tolist()
        assert sorted(order) == alive
        assert [row for place, row in enumerate(order) if row == place] == [row for row in alive if row < len(alive)]


@pytest.mark.parametrize("model_type", ["llama", "gemma2"])
def test_a_row_keeps_its_past_when_others_leave(model_type: str) -> None:
    model = decoders.build(model_type)
    prompts = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [14, 15], [16, 17, 18]]
    with torch.inference_mode():
        cache = kv_cache.for_model(model, 6)
        cache.admit([prompt[:-1] for prompt in prompts], [1, 1, 1, 1, 2], 4)
        rows = [prompts[index] for index in (0, 1, 2, 3, 4, 4)]
        for over in ([1, 0, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0], [0, 0, 1]):
            order = batch.survivors(torch.tensor(over, dtype=torch.bool))
            cache.keep(order)
            rows = [rows[index] for index in order.tolist()]
            last, places = torch.tensor([row[-1] for row in rows]), torch.tensor([len(row) - 1 for row in rows])
            logits = cache.step(last, places, int(places.max()))
            for row, found in zip(rows, logits, strict=True):
                expected = model(input_ids=torch.tensor([row])).logits[0, -1]
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
            rows = [[*row, 20 + number] for number, row in enumerate(rows)]
    assert len(rows) == 2


def test_the_slots_grow_to_what_their_rows_need_and_shrink_when_they_are_gone() -> None:
    model = decoders.build("llama", max_position_embeddings=2_000)
    with torch.inference_mode():
        cache = kv_cache.Slots(model, 2)
        cache.admit([[5] * 1_000], [2], 0)
        assert cache.capacity == 1_024
        cache.step(torch.tensor([5, 6]), torch.tensor([1_024, 1_000]), 1_024)
        assert cache.capacity == 1_088
        assert {tuple(layer.keys.shape) for layer in cache.layers if layer.keys is not None} == {(2, 2, 1_088, 8)}
        cache.keep(torch.tensor([], dtype=torch.long))
        cache.admit([[5] * 10], [1], 0)
        assert cache.capacity == 64


def test_a_prompt_is_read_once_for_all_its_answers() -> None:
    model = decoders.build("llama")
    read: list[list[int]] = []
    hook = model.model.embed_tokens.register_forward_hook(lambda _, ids, __: read.append(ids[0].flatten().tolist()))
    with torch.inference_mode():
        cache = kv_cache.Slots(model, 8)
        cache.admit([[5, 6, 7], [8, 9]], [4, 4], 0)
        logits = cache.step(torch.tensor([3] * 8), torch.tensor([3] * 4 + [2] * 4), 3)
    hook.remove()
    prompts, step = read
    assert sorted(token for token in prompts if token) == [5, 6, 7, 8, 9] and step == [3] * 8
    assert torch.equal(logits[0], logits[3])


def test_adapters_in_front_of_a_padded_model_answer_as_the_merged_model(tmp_path: Path) -> None:
    model = lora.wrap(decoders.build("gemma2"), lora.config({"r": 2}, "test")).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    merged, prompts = merging.merged(model, tmp_path), decoders.prompts(5)
    expected = [decoders.alone(merged, prompt, [66]) for prompt in prompts]
    assert generator.generate(model, prompts, max_new_tokens=12, stop=[66], batch_size=2) == expected


@pytest.mark.parametrize("model_type", ["llama", "gemma2"])
@pytest.mark.parametrize("samples", [1, 3])
def test_rows_wait_for_room_in_the_cache_and_the_answers_stay_the_same(
    model_type: str, samples: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, prompts = decoders.build(model_type), [*decoders.prompts(20), [5] * 50]
    named: dict[str, Any] = {"max_new_tokens": 12, "stop": [66], "batch_size": 16, "samples": samples}
    named["sampling"] = Sampling(temperature=1.0)
    expected = generator.decode(model, prompts, **named)
    sizes: list[int] = []
    step = kv_cache.Slots.step if model_type == "llama" else kv_cache.Padded.step

    def watched(cache: Any, tokens: torch.Tensor, *given: Any) -> torch.Tensor:
        sizes.append(len(tokens))
        if isinstance(cache, kv_cache.Slots):
            assert {layer.keys.shape[0] * layer.keys.shape[2] <= 300 for layer in cache.layers[:1]} == {True}
        return step(cache, tokens, *given)

    monkeypatch.setattr(kv_cache.Slots if model_type == "llama" else kv_cache.Padded, "step", watched)
    monkeypatch.setattr(kv_cache, "most_tokens", lambda _: 300)
    with caplog.at_level("INFO", logger="lathe"):
        assert generator.decode(model, prompts, **named) == expected
    # Blocks of 64 tokens: four rows, into which a second prompt's three answers do not go.
    assert max(sizes) in ({4} if samples == 1 else {3, 4})
    said = [one for one in caplog.messages if "memory" in one]  # a slow machine's progress is said too
    assert said == ["memory has room for the keys and values of 300 tokens: 4 rows at first, not 16"]


def test_a_row_that_does_not_fit_is_tried_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoders.build("llama")
    expected = generator.generate(model, [[5] * 40, [6]], max_new_tokens=4, stop=[66])
    monkeypatch.setattr(kv_cache, "most_tokens", lambda _: 10)
    assert generator.generate(model, [[5] * 40, [6]], max_new_tokens=4, stop=[66]) == expected


def test_more_rows_are_read_once_the_long_ones_have_left(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoders.build("llama", max_position_embeddings=512)
    prompts = [[5] * 300, *([6, 7 + number] for number in range(30))]
    expected = generator.generate(model, prompts, max_new_tokens=4, stop=[])
    sizes: list[tuple[int, int]] = []
    step = kv_cache.Slots.step

    def watched(cache: kv_cache.Slots, *given: Any) -> torch.Tensor:
        sizes.append((cache.used, cache.rows * cache.capacity))
        return step(cache, *given)

    monkeypatch.setattr(kv_cache.Slots, "step", watched)
    monkeypatch.setattr(kv_cache, "most_tokens", lambda _: 1_000)
    assert generator.generate(model, prompts, max_new_tokens=4, stop=[]) == expected
    assert sizes[0][0] == 3  # 1,000 tokens are three rows of 320
    assert max(used for used, _ in sizes) == 15  # or 15 of 64
    assert max(held for _, held in sizes) <= 1_000


@pytest.mark.parametrize(("processes", "tokens"), [(1, 4_000), (4, 1_000)])
def test_the_budget_is_a_share_of_the_memory_that_is_free(
    processes: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = decoders.build("llama")  # 2 layers x 2 heads x 8 numbers x 4 bytes, keys and values: 256 bytes
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr(available, "system_free", lambda: 256 * 5_000)
    assert kv_cache.most_tokens(model) == tokens
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1_000, 9_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 300)
    assert available.unused(torch.device("cuda:0"), processes) == 1_400  # a GPU belongs to one process
