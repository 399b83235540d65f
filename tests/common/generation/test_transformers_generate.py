"""Models whose rows do not share calls answer by transformers' own loop, and as asked: samples,
penalty, scores.
"""

from collections.abc import Sequence

import pytest
import torch

from stages.common.generation import generator, transformers_generate
from stages.common.generation.batch import Continuation, Order
from stages.common.generation.sampling import Sampling
from stages.common.runtime.errors import DataError
from tests.support import architectures, decoders

PROMPTS = [architectures.row(length) for length in (5, 2, 9, 1, 12)] + [[7, 8], [9, 10]]
STOP = list(range(280, 320))
SAMPLED = Sampling(temperature=1.2, top_p=0.95, seed=3)


@pytest.fixture(scope="module")
def hybrid() -> "torch.nn.Module":
    return architectures.build("qwen3_next")


def flat(answers: list[list[Continuation]]) -> list[list[list[int]]]:
    return [[one.tokens for one in some] for some in answers]


@pytest.mark.parametrize("model_type", ["mamba", "falcon_h1"])
def test_recurrent_models_answer_as_transformers_does(model_type: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    if model_type == "mamba":
        torch.manual_seed(0)
        config = AutoConfig.for_model("mamba", vocab_size=320, hidden_size=16, num_hidden_layers=1, state_size=4)
        model = AutoModelForCausalLM.from_config(config).eval()
    else:
        model = architectures.build(model_type)
    expected = [decoders.alone(model, prompt, STOP, max_new_tokens=6) for prompt in PROMPTS]
    assert generator.generate(model, PROMPTS, max_new_tokens=6, stop=STOP, batch_size=2) == expected


def test_with_longrope_short_rows_share_a_batch_and_long_ones_do_not() -> None:
    model = architectures.build("phi3, LongRoPE")

    def needed(prompts: Sequence[Sequence[int]], tokens: int) -> bool:
        order = Order(prompts, 256, tokens, STOP, generator.GREEDY, 1, False)
        return transformers_generate.needed(model, order)

    assert not needed([[5] * 10], 6)
    assert needed([[5] * 10, [6]], 7)
    expected = [decoders.alone(model, prompt, STOP, max_new_tokens=10) for prompt in PROMPTS]
    assert generator.generate(model, PROMPTS, max_new_tokens=10, stop=STOP) == expected


def test_samples_depend_on_the_seed_not_on_order_or_batch(hybrid: torch.nn.Module) -> None:
    def draw(prompts: Sequence[Sequence[int]], batch_size: int, sampling: Sampling = SAMPLED) -> list[list[list[int]]]:
        return flat(
            generator.decode(
                hybrid, prompts, max_new_tokens=5, stop=STOP, sampling=sampling, samples=2, batch_size=batch_size
            )
        )

    expected = draw(PROMPTS, 8)
    assert draw(PROMPTS[::-1], 1) == expected[::-1]
    assert draw(PROMPTS, 8, Sampling(temperature=1.2, top_p=0.95, seed=4)) != expected


@pytest.mark.parametrize("sampling", [Sampling(repetition_penalty=1.5), SAMPLED], ids=["penalty", "sampled"])
def test_log_probabilities_are_those_of_one_plain_pass(hybrid: torch.nn.Module, sampling: Sampling) -> None:
    answers = generator.decode(
        hybrid, PROMPTS, max_new_tokens=5, stop=STOP, sampling=sampling, log_probabilities=True, batch_size=3
    )
    for prompt, (one,) in zip(PROMPTS, answers, strict=True):
        answer = one.tokens + ([] if one.stop is None else [one.stop])
        with torch.inference_mode():
            logits = hybrid(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        expected = (logits / (sampling.temperature or 1)).log_softmax(-1)[range(len(answer)), answer]
        torch.testing.assert_close(torch.tensor(one.log_probabilities), expected, atol=1e-4, rtol=1e-4)
    if sampling.repetition_penalty != 1:
        alone = [decoders.alone(hybrid, prompt, STOP, 5, repetition_penalty=1.5) for prompt in PROMPTS]
        assert [one.tokens for (one,) in answers] == alone


def test_what_the_models_folder_says_of_generation_does_not_count(hybrid: torch.nn.Module) -> None:
    from transformers import GenerationConfig

    expected = generator.generate(hybrid, PROMPTS, max_new_tokens=5, stop=STOP)
    held = hybrid.generation_config
    hybrid.generation_config = GenerationConfig(
        repetition_penalty=9.0, do_sample=True, eos_token_id=list(range(150)), suppress_tokens=list(range(200))
    )
    given = hybrid.generation_config
    try:
        assert generator.generate(hybrid, PROMPTS, max_new_tokens=5, stop=STOP) == expected
        assert hybrid.generation_config is given
    finally:
        hybrid.generation_config = held


def test_the_context_ends_an_answer_and_a_nan_is_refused() -> None:
    model = architectures.build("qwen3_next")
    model.config.max_position_embeddings = 12
    ((answer,), (other,)) = generator.decode(model, [[5] * 10, [6]], max_new_tokens=4, stop=[])
    assert (len(answer.tokens), answer.stop, len(other.tokens)) == (2, None, 4)
    with torch.no_grad():
        model.get_output_embeddings().weight[5] = float("nan")
    with pytest.raises(DataError, match="logits are not numbers, at token 1 of prompt 1's answer"):
        generator.decode(model, [[5], [6, 7]], max_new_tokens=3, stop=STOP)
