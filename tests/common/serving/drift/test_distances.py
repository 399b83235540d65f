"""Distances and their chances on numbers worked by hand."""

import math

import pytest

from stages.common.serving.drift import distances
from stages.common.serving.drift.distances import REST, Drift

SETTINGS = Drift()


def test_the_stability_index_is_the_sum_over_the_bins() -> None:
    """With half a record more in each bin: shares 0.5, 0.5 and 80.5 / 101, 20.5 / 101."""
    q, r = 80.5 / 101, 20.5 / 101
    by_hand = (q - 0.5) * math.log(q / 0.5) + (r - 0.5) * math.log(r / 0.5)
    assert by_hand == pytest.approx(0.406286, abs=1e-6)
    assert distances.psi({"a": 50, "b": 50}, {"a": 80, "b": 20}) == pytest.approx(by_hand)
    assert distances.psi({"a": 50, "b": 50}, {"a": 50, "b": 50}) == 0


def test_a_bin_that_one_side_lacks_has_a_finite_distance() -> None:
    """Shares 9.5 / 11, 1.5 / 11 and 10.5 / 11, 0.5 / 11."""
    by_hand = (1 / 11) * math.log(10.5 / 9.5) + (-1 / 11) * math.log(0.5 / 1.5)
    assert distances.psi({"a": 9, "b": 1}, {"a": 10}) == pytest.approx(by_hand)


def test_the_chance_is_that_of_pearsons_test() -> None:
    """30 of 100 against 50 of 100: 200 (30 * 50 - 70 * 50)^2 / (80 * 120 * 100 * 100) = 8.3333, of
    one degree of freedom: erfc(sqrt(8.3333 / 2)).
    """
    by_hand = math.erfc(math.sqrt(200 * 2000**2 / (80 * 120 * 100 * 100) / 2))
    assert distances.chance({"a": 30, "b": 70}, {"a": 50, "b": 50}) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(0.0038924, abs=1e-6)


def test_three_bins_have_two_degrees_of_freedom() -> None:
    """With two the p is exp(-x / 2). Expected 15, 15, 20: x = 2 (25 / 15 + 25 / 15) = 6.6667."""
    p = distances.chance({"a": 10, "b": 20, "c": 20}, {"a": 20, "b": 10, "c": 20})
    assert p == pytest.approx(math.exp(-10 / 3))


def test_one_bin_tells_nothing() -> None:
    assert distances.chance({"a": 10}, {"a": 500}) == 1


def test_the_exact_chance_is_fishers() -> None:
    """3 of 4 against 1 of 4: of C(8, 4) = 70 tables 1 + 16 are as rare or rarer on each side."""
    assert distances.exact_chance((3, 4), (1, 4)) == pytest.approx(34 / 70)


def test_rare_bins_are_thrown_together() -> None:
    """The window has a sixth of all 600 records: a bin needs 30 of them to expect 5 there."""
    reference = {"en": 460, "de": 21, "fr": 19}
    window = {"en": 93, "de": 3, "fr": 3, "eo": 1}
    one, other = distances.pooled(reference, window)
    assert one == {"en": 460, REST: 40} and other == {"en": 93, REST: 7}


def test_a_large_distance_of_few_records_is_no_drift() -> None:
    few = distances.level("prompt_language", {"en": 50, "zh": 50}, {"en": 9, "zh": 2}, SETTINGS)
    assert few.psi > SETTINGS.psi and few.chance > SETTINGS.chance and not few.is_drifted
    many = distances.level("prompt_language", {"en": 500, "zh": 500}, {"en": 800, "zh": 300}, SETTINGS)
    assert many.is_drifted and many.records == 1100


def test_a_certain_but_small_distance_is_no_drift() -> None:
    found = distances.level("prompt_language", {"en": 50_000, "zh": 50_000}, {"en": 52_000, "zh": 48_000}, SETTINGS)
    assert found.chance < 1e-9 and not found.is_drifted


@pytest.mark.parametrize(
    ("now", "is_drifted"),
    [(100, True), (50, False), (70, False), (16, True), (80, False)],
)
def test_a_share_drifts_when_it_is_a_multiple_and_no_accident(now: int, is_drifted: bool) -> None:
    """Of 1000 each; expected are 50. 70 are too few more, 80 (1.6 times) are with p = 0.008."""
    counts = {"yes": now, "no": 1000 - now}
    found = distances.level("answer_refused", {"yes": 50, "no": 950}, counts, SETTINGS)
    assert found.is_drifted is is_drifted
    assert (found.share, found.expected) == (now / 1000, 0.05)
    assert f"answer_refused: {now / 1000:.1%}, expected 5.0%" in str(found)


def test_a_share_of_what_never_happened_is_judged_by_chance_alone() -> None:
    reference = {"no": 1000}
    assert not distances.level("answer_cut", reference, {"yes": 3, "no": 997}, SETTINGS).is_drifted
    assert distances.level("answer_cut", reference, {"yes": 12, "no": 988}, SETTINGS).is_drifted
    assert not distances.level("answer_cut", reference, {"no": 1000}, SETTINGS).is_drifted


def test_what_has_no_reference_has_no_level() -> None:
    window = {"prompt_tokens": {"16": 3}, "prompt_perplexity": {"8": 3}}
    found = distances.levels({"prompt_tokens": {"16": 30}}, window, SETTINGS)
    assert [one.quantity for one in found] == ["prompt_tokens"]
