"""The batched decoder answers as transformers does one by one, whatever the batch; bad input is
refused by name.
"""

from typing import Any

import pytest
import torch

from stages.common.generation import generator, kv_cache
from stages.common.generation.sampling import Sampling
from stages.common.runtime import progress
from stages.common.runtime.errors import DataError, ParamsError
from tests.support import decoders

STOP = list(range(8))
SAMPLED = Sampling(temperature=1.0, top_p=0.9, seed=7)


@pytest.fixture(scope="module")
def llama() -> "torch.nn.Module":
    return decoders.build("llama")


def test_every_model_that_has_slots_is_compared_with_transformers_here() -> None:
    assert set(decoders.SLOTS) == kv_cache.SLOT_MODELS


@pytest.mark.parametrize("model_type", decoders.CONFIGS)
def test_greedy_answers_are_those_of_transformers_in_any_batch(model_type: str) -> None:
    model = decoders.build(model_type)
    kind = kv_cache.Slots if model_type in decoders.SLOTS else kv_cache.Padded
    assert type(kv_cache.for_model(model, 1)) is kind
    prompts = decoders.prompts(20)
    expected = [decoders.alone(model, prompt, STOP) for prompt in prompts]
    assert len({len(answer) for answer in expected}) > 2  # rows leave at different times
    for batch_size in (1, 3, 64):
        assert generator.generate(model, prompts, max_new_tokens=12, stop=STOP, batch_size=batch_size) == expected


@pytest.mark.parametrize("changes", [{"attn_implementation": "eager"}, {"sliding_window": 6}], ids=str)
def test_eager_attention_and_a_sliding_window_answer_the_same_too(changes: dict[str, Any]) -> None:
    model = decoders.build("mistral", **changes)
    prompts = decoders.prompts(10)
    expected = [decoders.alone(model, prompt, STOP) for prompt in prompts]
    assert generator.generate(model, prompts, max_new_tokens=12, stop=STOP, batch_size=4) == expected


def test_rows_are_refilled_while_others_go_on(llama: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    step = kv_cache.Slots.step

    def counted(self: kv_cache.Slots, tokens: torch.Tensor, *rest: object) -> torch.Tensor:
        sizes.append(len(tokens))
        return step(self, tokens, *rest)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(kv_cache.Slots, "step", counted)
    answers = generator.decode(llama, decoders.prompts(60), max_new_tokens=12, stop=STOP, batch_size=8)
    tokens = sum(len(one.tokens) + (one.stop is not None) for (one,) in answers)
    assert sum(sizes) == tokens  # no row is stepped once its answer is over
    assert max(sizes) == 8
    assert len(sizes) < 1.25 * tokens / 8  # and hardly any stays empty


def test_prompts_far_longer_than_the_rows_in_use_and_back(llama: torch.nn.Module) -> None:
    model = decoders.build("llama", max_position_embeddings=400)
    prompts = [*decoders.prompts(6), *decoders.prompts(4, longest=300)[:2], *decoders.prompts(9)]
    prompts += [[5] * 250, [6] * 2]
    expected = [decoders.alone(model, prompt, STOP) for prompt in prompts]
    assert generator.generate(model, prompts, max_new_tokens=12, stop=STOP, batch_size=2) == expected


def test_the_context_ends_an_answer(llama: torch.nn.Module) -> None:
    prompt = decoders.prompts(64, longest=64)[0] * 64
    ((answer,),) = generator.decode(llama, [prompt[:60]], max_new_tokens=12, stop=[])
    assert len(answer.tokens) == 4  # of 64
    assert answer.stop is None
    assert answer.tokens == decoders.alone(llama, prompt[:60], [66], max_new_tokens=4)
    with pytest.raises(DataError, match="prompt 1: it has 64 tokens, and the model's context of 64 leaves no room"):
        generator.decode(llama, [[1], prompt[:64]], max_new_tokens=12, stop=[])


def test_what_ended_an_answer_is_said(llama: torch.nn.Module) -> None:
    prompts = decoders.prompts(20)
    answers = [one for (one,) in generator.decode(llama, prompts, max_new_tokens=12, stop=STOP)]
    assert {one.stop for one in answers if one.stop is not None} <= set(STOP)
    assert {len(one.tokens) for one in answers if one.stop is None} == {12}
    assert not any(set(one.tokens) & set(STOP) for one in answers)
    assert any(one.stop is not None for one in answers)


def test_no_prompt_gives_no_answer_and_an_empty_one_is_refused(llama: torch.nn.Module) -> None:
    assert generator.decode(llama, [], max_new_tokens=3, stop=STOP) == []
    with pytest.raises(DataError, match="prompt 1: it has no tokens"):
        generator.decode(llama, [[5], []], max_new_tokens=3, stop=STOP)


@pytest.mark.parametrize("wrong", ["max_new_tokens", "samples", "batch_size"])
def test_a_count_below_one_is_refused(llama: torch.nn.Module, wrong: str) -> None:
    with pytest.raises(ParamsError, match=f"{wrong} is 0"):
        generator.decode(llama, [[5]], stop=STOP, **({"max_new_tokens": 3} | {wrong: 0}))  # type: ignore[arg-type]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0), SAMPLED, Sampling(1.0, top_k=5)], ids=str)
@pytest.mark.parametrize("model_type", ["llama", "bloom"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_numbers_are_refused_with_a_remedy(
    sampling: Sampling, model_type: str, value: float
) -> None:
    model = decoders.build(model_type)
    with torch.no_grad():
        model.get_output_embeddings().weight[5] = value
    with pytest.raises(DataError, match="logits are not numbers, at token 1 of prompt") as caught:
        generator.decode(
            model, decoders.prompts(3), max_new_tokens=3, stop=STOP, sampling=sampling, log_probabilities=True
        )
    assert "earlier checkpoint" in caught.value.remedy


@pytest.mark.parametrize("model_type", ["llama", "gemma2"])
def test_sampled_answers_depend_on_the_seed_not_on_order_or_batch(model_type: str) -> None:
    model, prompts = decoders.build(model_type), decoders.prompts(12)

    def draw(order: list[int], batch_size: int, seed: int = 7) -> list[list[list[int]]]:
        sampling = Sampling(temperature=1.3, top_p=0.95, seed=seed)
        rows = [prompts[index] for index in order]
        found = generator.decode(
            model, rows, max_new_tokens=10, stop=STOP, sampling=sampling, samples=3, batch_size=batch_size
        )
        by_prompt = dict(zip(order, found, strict=True))
        return [[one.tokens for one in by_prompt[index]] for index in range(len(prompts))]

    forward = list(range(12))
    expected = draw(forward, 64)
    assert draw(forward[::-1], 64) == expected
    assert draw(forward, 1) == draw(forward[6:] + forward[:6], 5) == draw(forward, 2) == expected
    assert draw(forward, 64, seed=8) != expected
    assert len({tuple(one) for answers in expected for one in answers}) > 24  # the three of a prompt differ


def test_a_prompt_given_twice_is_answered_twice(llama: torch.nn.Module) -> None:
    sampling = Sampling(temperature=2.0)
    (one,), (two,), (other,) = generator.decode(
        llama, [[5, 6, 7], [5, 6, 7], [5, 6]], max_new_tokens=10, stop=[], sampling=sampling
    )
    assert one.tokens != two.tokens
    (again,) = generator.decode(llama, [[5, 6]], max_new_tokens=10, stop=[], sampling=sampling)
    assert again[0].tokens == other.tokens


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=0.7, top_p=0.8, repetition_penalty=1.2)], ids=str
)
def test_log_probabilities_are_those_of_one_plain_pass(model_type: str, sampling: Sampling) -> None:
    model, prompts = decoders.build(model_type), decoders.prompts(9)
    answers = generator.decode(
        model,
        prompts,
        max_new_tokens=10,
        stop=STOP,
        sampling=sampling,
        samples=2,
        log_probabilities=True,
        batch_size=4,
    )
    for prompt, pair in zip(prompts, answers, strict=True):
        for one in pair:
            answer = one.tokens + ([] if one.stop is None else [one.stop])
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            expected = (logits / (sampling.temperature or 1)).log_softmax(-1)[range(len(answer)), answer]
            torch.testing.assert_close(torch.tensor(one.log_probabilities), expected, atol=1e-5, rtol=1e-5)


def test_a_penalty_over_prompt_and_answer_is_that_of_transformers(llama: torch.nn.Module) -> None:
    prompts = decoders.prompts(12)
    answers = generator.decode(
        llama, prompts, max_new_tokens=12, stop=STOP, sampling=Sampling(repetition_penalty=1.5), batch_size=5
    )
    expected = [decoders.alone(llama, prompt, STOP, repetition_penalty=1.5) for prompt in prompts]
    assert [one.tokens for (one,) in answers] == expected
    assert expected != generator.generate(llama, prompts, max_new_tokens=12, stop=STOP)


@pytest.mark.parametrize("stop", [STOP, [66]], ids=["many", "one"])
def test_beams_answer_in_a_batch_as_alone(llama: torch.nn.Module, stop: list[int]) -> None:
    prompts = [*decoders.prompts(7), *decoders.prompts(5)]
    found = generator.beam(llama, prompts, beams=3, max_new_tokens=8, stop=stop, repetition_penalty=1.2, batch_size=4)
    given = {"max_new_tokens": 8, "num_beams": 3, "repetition_penalty": 1.2}
    assert found == [decoders.alone(llama, prompt, stop, **given) for prompt in prompts]  # type: ignore[arg-type]
    assert found != generator.generate(llama, prompts, max_new_tokens=8, stop=stop)


def test_beams_end_at_the_context_and_refuse_what_has_no_room(llama: torch.nn.Module) -> None:
    (answer,) = generator.beam(llama, [[5] * 61], beams=2, max_new_tokens=8, stop=[66])
    assert len(answer) <= 3
    with pytest.raises(DataError, match="no room"):
        generator.beam(llama, [[5] * 64], beams=2, max_new_tokens=8, stop=[66])


def test_a_model_in_training_answers_without_dropout_and_trains_on() -> None:
    model = decoders.build("gpt2")
    prompts = decoders.prompts(5)
    expected = generator.generate(model, prompts, max_new_tokens=8, stop=STOP)
    model.train()
    model.transformer.wte.eval()  # frozen by its owner
    assert generator.generate(model, prompts, max_new_tokens=8, stop=STOP) == expected
    assert model.training and model.transformer.h[0].training and not model.transformer.wte.training
    assert not any(weight.is_inference() for weight in model.parameters())


def test_long_work_tells_how_far_it_is(
    llama: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level("INFO", logger="lathe"):
        generator.decode(llama, decoders.prompts(5), max_new_tokens=3, stop=[], samples=2)
    assert len(caplog.messages) == 10
    assert caplog.messages[4].startswith("5 rows, 50 %, ")
    assert caplog.messages[-1].startswith("10 rows, 100 %, ")


def test_an_answer_ends_before_its_stop_token() -> None:
    assert generator.until([5, 6, 2, 7], {2}) == [5, 6]
    assert generator.until([5, 6], {2}) == [5, 6]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_answers_are_those_on_a_cpu() -> None:
    for model_type in ("llama", "gpt2", "gemma2"):
        model = decoders.build(model_type).to("cuda")
        prompts = decoders.prompts(40)
        on_cpu = generator.generate(decoders.build(model_type), prompts, max_new_tokens=12, stop=STOP)
        for batch_size in (3, 64):
            assert generator.generate(model, prompts, max_new_tokens=12, stop=STOP, batch_size=batch_size) == on_cpu
