"""Bins, shares, medians and novelty, by hand."""

import math

import pytest

from stages.common.serving.drift import histograms
from stages.common.serving.drift.novelty import BUCKETS, Known, features
from tests.support.tiny import make_tokenizer


@pytest.mark.parametrize(
    ("value", "found"), [(0, "1"), (1, "1"), (1.4, "1"), (1.5, "1.414"), (16, "16"), (22, "16"), (23, "22.63")]
)
def test_a_number_falls_into_a_bin_half_an_octave_wide(value: float, found: str) -> None:
    assert histograms.number(value) == found


def test_a_quantile_lies_within_its_bin_on_a_log_scale() -> None:
    counts = {"16": 2, "1": 1, "4": 1}
    assert histograms.quantile(counts, 0.75) == pytest.approx(16 * 2**0.25)
    assert histograms.quantile(counts, 0.5) == pytest.approx(4 * math.sqrt(2))
    assert histograms.quantile(counts, 1.0) == pytest.approx(16 * math.sqrt(2))


def test_a_median_has_the_interval_of_its_order_statistics() -> None:
    """100 in one bin: at 0.5 and 0.5 -+ 0.098 of it."""
    middle, low, high = histograms.median({"16": 100})
    assert (middle, low, high) == pytest.approx((16 * 2**0.25, 16 * 2**0.201, 16 * 2**0.299))


def test_shares_are_of_all_numbers_in_order_and_names_by_size() -> None:
    assert list(histograms.shares({"16": 1, "2": 3}).items()) == [("2", 0.75), ("16", 0.25)]
    assert list(histograms.shares({"de": 1, "zh": 3})) == ["zh", "de"]


def test_an_answer_is_counted_without_its_thoughts() -> None:
    said = "<think>I can't help with that, or can I?</think>The capital of France is the city of Paris."
    found = histograms.of_answer(said, 30, cut=False)
    assert found == {
        "answer_language": "en",
        "answer_tokens": "22.63",
        "answer_refused": "no",
        "answer_unsure": "no",
        "answer_cut": "no",
    }
    assert histograms.of_answer("I can't help with that.", 8, None)["answer_refused"] == "yes"
    assert "answer_cut" not in histograms.of_answer("I can't help with that.", 8, None)
    assert histograms.of_answer("我不知道。", 8, cut=True)["answer_unsure"] == "yes"


def test_a_prompt_is_counted_in_tokens_of_its_own() -> None:
    tokenizer = make_tokenizer()
    text = "What is the capital of land 3?"
    found = histograms.of_prompt(text, tokenizer)
    assert found["prompt_language"] == "en"
    assert found["prompt_tokens"] == histograms.number(len(tokenizer.encode(text, add_special_tokens=False)))


def test_novelty_is_the_cross_entropy_under_hashed_words_and_pairs() -> None:
    """`red fox` has three features; each was seen once, or after `red` twice, of four in all."""
    known = Known.of(["red fox", "red"])
    buckets = features("red fox")
    assert buckets.total() == 3 and known.total == 4 and len(buckets) == 3
    total = 4 + BUCKETS
    by_hand = math.exp((math.log(total / 3) + 2 * math.log(total / 2)) / 3)
    assert known.perplexity("red fox") == pytest.approx(by_hand)
    assert known.perplexity("blue whale") == pytest.approx(total)


def test_a_text_that_was_counted_is_as_strange_as_one_that_was_not() -> None:
    texts = ["red fox", "red whale", "green whale"]
    without = Known.of(texts[1:])
    assert Known.of(texts).perplexity("red fox", is_one_of_them=True) == pytest.approx(without.perplexity("red fox"))
    assert Known.of(texts).perplexity("?!") is None and Known.of(texts).bins("?!") == {}
