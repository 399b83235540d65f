"""Sparse models attend by their pattern: as under a mask written out, with exact zeros outside it,
in a cache, packed, behind one prompt, and in flex attention.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask
from transformers.masking_utils import causal_mask_function

from stages.common.core import models
from stages.common.core.sparse import attention, blocks, pattern
from stages.common.core.sparse.pattern import FAMILIES, Pattern
from stages.common.finetuning import packing
from stages.common.generation import generator, packed_forward
from stages.common.reward import scoring, shared_prompt
from tests.support import architectures, decoders
from tests.support.tiny import make_tokenizer

SPARSE = [Pattern(3, 4), Pattern(2, 5, "alternate")]
LENGTH = 17


def sparse(chosen: Pattern, model_type: str = "llama", **changes: Any) -> Any:
    model = decoders.build(model_type, **changes)
    attention.enable(model, chosen, "pretrain.attention")
    return model


def ids(rows: int = 2, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(decoders.VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(length))


def written_out(chosen: Pattern, layer: int, length: int = LENGTH) -> torch.Tensor:
    """Who sees whom in a layer [1, 1, T, T], by the paper's words rather than by our functions."""
    mask = torch.full((1, 1, length, length), torch.finfo(torch.float32).min)
    for query in range(length):
        window = set(range(max(0, query - chosen.window + 1), query + 1))
        stride = set(range(query, -1, -chosen.stride))
        seen = window | stride if chosen.layers == "all" else (window, stride)[layer % 2]
        mask[0, 0, query, list(seen)] = 0
    return mask


@contextmanager
def under(model: Any, chosen: Pattern) -> Iterator[None]:
    """Inside, a dense model's layers have masks written out."""

    def replace(number: int, _: Any, given: Any, named: dict[str, Any]) -> Any:
        return given, named | {"attention_mask": written_out(chosen, number)}

    layers = [one for one in model.modules() if hasattr(one, "layer_idx") and hasattr(one, "config")]
    layers = [one for one in layers if type(one).__name__.endswith("Attention")]
    assert len(layers) == model.config.num_hidden_layers
    hooks = [one.register_forward_pre_hook(partial(replace, one.layer_idx), with_kwargs=True) for one in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_logits_are_those_under_a_mask_written_out_and_a_cache_changes_nothing(model_type: str) -> None:
    for chosen in SPARSE:
        dense = decoders.build(model_type)
        with under(dense, chosen):
            expected = dense(ids()).logits
        model = sparse(chosen, model_type)
        found = model(ids()).logits
        assert torch.allclose(found, expected, atol=1e-5), chosen
        assert (found - dense(ids()).logits).abs().max() > 1e-2  # and it is not the dense model
        past, stepped = None, []
        for column in ids().split([6, *[1] * (LENGTH - 6)], dim=1):
            output = model(column, past_key_values=past, use_cache=True)
            past = output.past_key_values
            stepped.append(output.logits)
        assert torch.allclose(torch.cat(stepped, dim=1), found, atol=1e-5)


def test_a_token_outside_the_pattern_has_a_gradient_of_exactly_zero() -> None:
    for chosen in SPARSE:
        model = sparse(chosen, num_hidden_layers=1)
        inputs = model.get_input_embeddings()(ids(1)).detach().requires_grad_()
        model(inputs_embeds=inputs).logits[0, -1].sum().backward()
        assert inputs.grad is not None
        seen = written_out(chosen, 0)[0, 0, -1] == 0
        reached = inputs.grad[0].abs().amax(dim=-1)
        assert (reached[~seen] == 0).all() and (reached[seen] > 0).all() and 0 < seen.sum() < LENGTH - 1


@torch.no_grad()
@pytest.mark.parametrize("chosen", [Pattern(LENGTH, 5), Pattern(LENGTH + 9, 1, "alternate")])
def test_a_window_as_long_as_the_row_is_dense_attention_to_the_bit(chosen: Pattern) -> None:
    assert torch.equal(sparse(chosen)(ids()).logits, decoders.build("llama")(ids()).logits)
    padded = {"input_ids": ids(), "attention_mask": torch.ones_like(ids()).index_fill(1, torch.tensor([0, 1]), 0)}
    found, expected = sparse(chosen)(**padded).logits[:, 2:], decoders.build("llama")(**padded).logits[:, 2:]
    assert torch.allclose(found, expected, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("chosen", SPARSE)
def test_packed_documents_stay_apart(chosen: Pattern) -> None:
    model = sparse(chosen)
    rows = [row.tolist() for row in (ids(1, 9)[0], ids(1, 14)[0], ids(1, 5)[0])]
    packed: Any = {"input_ids": [token for row in rows for token in row], "labels": [0] * 28, "seq_lengths": [9, 14, 5]}
    batch = packing.Collator(0)([packed])
    found = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0]
    alone = torch.cat([model(torch.tensor([row])).logits[0] for row in rows])
    assert torch.allclose(found, alone, atol=1e-5)
    assert packed_forward.enable(model)
    together = packed_forward.read(model, rows, [[0], [1], [2]], list(range(28)))
    assert torch.allclose(model.lm_head(together), alone, atol=1e-5)


@pytest.mark.parametrize("chosen", SPARSE)
def test_the_decoder_answers_as_transformers_generate(chosen: Pattern) -> None:
    prompts = decoders.prompts(7, longest=20)
    for model_type in ("llama", "gpt_neox"):  # our own forward, and the model's with our cache
        model = sparse(chosen, model_type)
        expected = [decoders.alone(model, prompt, [1], 16) for prompt in prompts]
        assert generator.generate(model, prompts, max_new_tokens=16, stop=[1], batch_size=4) == expected
        dense = generator.generate(decoders.build(model_type), prompts, max_new_tokens=16, stop=[1])
        assert dense != expected


@pytest.mark.parametrize("layers", ["all", "alternate"])
def test_answers_behind_one_prompt_score_as_alone(layers: pattern.Layers, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    model = decoders.build("llama", vocab_size=len(tokenizer), max_position_embeddings=256)
    attention.enable(model, Pattern(3, 4, layers), "pretrain.attention")
    models.save(model, tokenizer, tmp_path / "model")
    scorer = scoring.begin(tmp_path / "model", tokenizer)
    assert scorer.config._attn_implementation == pattern.NAME
    rows: Any = architectures.comparisons()
    shared_prompt.check(scorer, rows, int(tokenizer.pad_token_id or 0), "reward.share_prompt")
    scoring.check(scorer, rows, int(tokenizer.pad_token_id or 0), "reward.share_prompt")


def test_a_mask_of_another_number_of_kinds_is_refused() -> None:
    with pytest.raises(ValueError, match="a mask of 1 kinds"):
        sparse(Pattern(2, 5, "alternate"))(ids(), attention_mask=torch.ones(2, 1, LENGTH, LENGTH, dtype=torch.bool))


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    ("chosen", "case"), [(Pattern(3, 7), "padded"), (Pattern(16, 16, "alternate"), "packed"), (Pattern(9, 5), "plain")]
)
def test_flex_attention_sees_what_the_mask_shows(chosen: Pattern, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, length = sparse(chosen, max_position_embeddings=256), 140
    rows = ids(2, length)
    padding = torch.ones_like(rows)
    padding[0, :11] = 0
    positions = torch.cat([torch.arange(60), torch.arange(length - 60)])[None].expand(2, -1)
    given = {"padded": {"attention_mask": padding}, "packed": {"position_ids": positions}, "plain": {}}[case]
    expected = model(rows, **given, use_cache=False).logits
    calls: list[int] = []
    attend = blocks.attend
    monkeypatch.setattr(attention, "kernel", lambda *_: "flex")

    def counted(*some: Any) -> Any:
        calls.append(1)
        return attend(*some)

    monkeypatch.setattr(blocks, "attend", counted)
    found = model(rows, **given, use_cache=False).logits
    assert found.isfinite().all() and len(calls) == 2
    assert torch.allclose(found[:, 11:], expected[:, 11:], atol=1e-5)


def test_blocks_are_left_out_where_positions_are_sorted_by_residue() -> None:
    """The figures are shares of 16 x 16 blocks of 128 tokens, which have one answer."""
    for layers in ("all", "alternate"):
        made = blocks.masks(Pattern(128, 128, layers), 1, 2048, causal_mask_function, None, torch.device("cpu"))
        shares = [round(part.seen.sparsity(), 1) for kind in made.kinds for part in kind]
        assert shares == [87.9, 93.8]
        assert len(made.kinds) == (1 if layers == "all" else 2)
    naive = create_block_mask(lambda _, __, q, k: (q >= k) & ((q - k) % 128 == 0), 1, None, 2048, 2048, "cpu")
    assert round(naive.sparsity(), 1) == 46.9


def test_flex_attention_is_for_whole_rows_on_a_gpu_without_dropout() -> None:
    config = decoders.build("llama").config
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert attention.kernel(config, gpu, 256, 256) == "flex"
    assert [attention.kernel(config, *one) for one in ((cpu, 256, 256), (gpu, 1, 256), (gpu, 64, 64))] == ["sdpa"] * 3
    config.attention_dropout = 0.1
    assert attention.kernel(config, gpu, 256, 256) == "sdpa"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU, or a torch without CUDA")
@pytest.mark.parametrize("chosen", [Pattern(32, 32), Pattern(32, 32, "alternate")])
def test_flex_attention_and_its_gradients_are_those_of_the_mask(
    chosen: Pattern, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = sparse(chosen, max_position_embeddings=512, head_dim=16).cuda()
    rows = ids(2, 300).cuda()
    for kernel in ("sdpa", "flex"):
        monkeypatch.setattr(attention, "kernel", lambda *_, kernel=kernel: kernel)
        model.zero_grad()
        loss = model(rows, labels=rows).loss
        loss.backward()
        gradients = [weight.grad.clone() for weight in model.parameters()]
        if kernel == "sdpa":
            expected = loss.detach(), gradients
    assert torch.allclose(loss, expected[0], rtol=1e-4)
    for found, wanted in zip(gradients, expected[1], strict=True):
        assert torch.allclose(found, wanted, rtol=1e-2, atol=1e-3 * float(wanted.abs().max()))
