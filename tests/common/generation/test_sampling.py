"""The choice of a token: transformers' own processors agree, and draws fall as often as they
should.
"""

import numpy as np
import pytest
import torch

from stages.common.generation import sampling
from stages.common.generation.sampling import Sampling, choose, invert
from stages.common.runtime.errors import ParamsError

VOCABULARY = 300  # more than the CANDIDATES looked at first


def logits(rows: int, spread: float) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(3)) * spread


def by_transformers(scores: torch.Tensor, wanted: Sampling, seen: list[list[int]]) -> torch.Tensor:
    """Return the probabilities [B, V] that transformers draws from."""
    from transformers import (
        LogitsProcessorList,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(wanted.repetition_penalty)])
    processors.append(TemperatureLogitsWarper(wanted.temperature))
    if wanted.top_k:
        processors.append(TopKLogitsWarper(wanted.top_k))
    if wanted.top_p < 1:
        processors.append(TopPLogitsWarper(wanted.top_p))
    return processors(torch.tensor(seen), scores.clone()).softmax(-1)


@pytest.mark.parametrize(
    "wanted",
    [
        Sampling(1.0),
        Sampling(0.5),
        Sampling(1.0, top_p=0.9),
        Sampling(1.7, top_p=0.99),  # the nucleus is wider than the candidates
        Sampling(0.8, top_k=5),
        Sampling(0.8, top_k=1000),
        Sampling(1.2, top_p=0.7, top_k=20),
        Sampling(1.0, top_p=0.9, top_k=7, repetition_penalty=1.8),
        Sampling(1.0, repetition_penalty=0.6),
    ],
    ids=str,
)
@pytest.mark.parametrize("spread", [0.3, 4.0])
def test_draws_have_the_probabilities_of_transformers(wanted: Sampling, spread: float) -> None:
    scores = logits(4, spread)
    tokens = [[1, 2, 3, 3], [250, 8, 8, 0], [299, 298, 4, 5], [7, 7, 7, 7]]
    expected = by_transformers(scores, wanted, tokens)
    seen = torch.zeros(4, VOCABULARY, dtype=torch.bool)
    for row, ids in zip(seen, tokens, strict=True):
        row[ids] = True
    # A grid of numbers in [0, 1) hits every token as often as its probability says, to one point of
    # the grid.
    points = 20_000
    grid = (torch.arange(points) + 0.5) / points
    for number in range(4):
        drawn = choose(
            scores[number].expand(points, -1), wanted, grid, seen[number] if wanted.repetition_penalty != 1 else None
        )
        counts = torch.bincount(drawn, minlength=VOCABULARY)
        assert (counts - expected[number] * points).abs().max() < 2
        assert not counts[expected[number] == 0].any()


def test_greedy_is_the_largest_after_the_penalty() -> None:
    scores = torch.tensor([[1.0, 2.0, 1.9], [-1.0, -2.0, -1.9]])
    assert choose(scores, Sampling()).tolist() == [1, 0]
    seen = torch.tensor([[False, True, False], [True, False, False]])
    assert choose(scores, Sampling(repetition_penalty=1.5), seen=seen).tolist() == [2, 0]
    assert choose(scores, Sampling(repetition_penalty=2.0), seen=seen).tolist() == [2, 2]


def test_marks_fall_into_the_cell_they_stand_in() -> None:
    weights = torch.tensor([[0.0, 1.0, 0.0, 3.0, 0.0]]).expand(5, -1)
    just_below_one = 1 - 2.0**-24
    assert invert(weights, torch.tensor([0.0, 0.2499, 0.25, 0.9, just_below_one])).tolist() == [1, 1, 3, 3, 3]


def test_a_mark_next_to_the_total_stays_inside_whatever_the_rounding() -> None:
    weights = torch.rand(2_000, 999, generator=torch.Generator().manual_seed(1))
    weights[:, -400:] = 0
    assert invert(weights, torch.full((2_000,), 1 - 2.0**-24)).max() == 598


def test_numbers_of_the_streams_are_uniform_and_independent() -> None:
    prompts = [[number] for number in range(200)]
    made = sampling.keys(prompts, seed=1)
    assert len(set(made.tolist())) == 200
    both = [sampling.uniforms(made, np.full(200, sample, dtype=np.uint64), 100) for sample in (0, 1)]
    for found in both:
        assert found.dtype == np.float32
        assert found.min() >= 0
        assert found.max() < 1
        counts = np.bincount((found * 50).astype(int).ravel(), minlength=50)
        expected = found.size / 50
        assert ((counts - expected) ** 2 / expected).sum() < 94.6  # chi-square of 49 degrees of freedom at 0.0001
        assert abs(np.corrcoef(found[:, :-1].ravel(), found[:, 1:].ravel())[0, 1]) < 0.03
        assert abs(np.corrcoef(found[:-1].ravel(), found[1:].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(both[0].ravel(), both[1].ravel())[0, 1]) < 0.03


def test_a_stream_is_that_of_its_prompt_its_sample_and_the_seed() -> None:
    one, two = sampling.keys([[1, 2], [3]], seed=5), sampling.keys([[3], [1, 2]], seed=5)
    assert one.tolist() == two[::-1].tolist()
    assert set(one.tolist()).isdisjoint(sampling.keys([[1, 2], [3]], seed=6).tolist())
    again = sampling.keys([[3], [3]], seed=5)
    assert again[0] == one[1] != again[1]
    zero, first = np.zeros(2, dtype=np.uint64), np.ones(2, dtype=np.uint64)
    short, long = sampling.uniforms(one, zero, 4), sampling.uniforms(one, zero, 9)
    assert np.array_equal(short, long[:, :4])
    assert not np.isin(long, sampling.uniforms(one, first, 9)).any()


def splitmix64(state: int) -> tuple[int, int]:
    """Return the next state and number, as in Steele, Lea and Flood 2014, in integers of
    any size.
    """
    state = (state + 0x9E3779B97F4A7C15) % 2**64
    mixed = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
    return state, mixed ^ mixed >> 31


def test_the_numbers_are_those_of_splitmix64() -> None:
    assert splitmix64(0)[1] == 0xE220A8397B1DCDAF  # the published first number of seed 0
    inverse = -0x9E3779B97F4A7C15 % 2**64  # so that the finaliser alone is applied
    for key, sample in ((12345, 0), (2**64 - 1, 3)):
        state = splitmix64((splitmix64((key + inverse) % 2**64)[1] + sample * 0x9E3779B97F4A7C15 + inverse) % 2**64)[1]
        expected = []
        for _ in range(4):
            state, number = splitmix64(state)
            expected.append((number >> 40) / 2**24)
        found = sampling.uniforms(np.array([key], dtype=np.uint64), np.array([sample], dtype=np.uint64), 4)
        assert found.tolist() == [expected]


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": 0.001},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"repetition_penalty": 0.0},
        {"seed": 2**63},
    ],
    ids=str,
)
def test_a_value_without_meaning_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ParamsError, match=f"{next(iter(wrong))} is "):
        Sampling(**wrong)  # type: ignore[arg-type]  # that is the point
