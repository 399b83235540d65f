"""Intervals against published and hand-worked numbers."""

import pytest

from stages.common.core.statistics import bootstrap_mean, bootstrap_ratio, correlation, distinct, wilson


def test_wilson_equals_published_values() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81/263, 15/148, 0/20, 1/29
    for successes, count, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(successes, count) == pytest.approx((low, high), abs=5e-5)


def test_none_and_all_end_exactly_at_the_edge() -> None:
    assert wilson(0, 43)[0] == 0.0
    assert wilson(43, 43)[1] == 1.0


def test_nothing_counted_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_bootstrap_of_a_constant_ratio_is_that_ratio() -> None:
    assert bootstrap_ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == pytest.approx((2.0, 2.0))


def test_bootstrap_interval_of_a_mean_is_near_the_normal_one_and_repeats() -> None:
    import numpy

    sample = numpy.random.default_rng(7).normal(3.0, 2.0, 400)
    low, high = bootstrap_ratio(sample.tolist(), [1.0] * 400)
    half = 1.96 * sample.std(ddof=1) / 20
    assert (low, high) == pytest.approx((sample.mean() - half, sample.mean() + half), abs=0.04)
    assert (low, high) == bootstrap_ratio(sample.tolist(), [1.0] * 400)


def test_bootstrap_of_a_mean_of_equal_numbers_is_that_number() -> None:
    assert bootstrap_mean([0.5] * 20) == (0.5, 0.5)


def test_bootstrap_of_wins_and_losses_is_near_the_normal_interval() -> None:
    outcomes = [1.0] * 60 + [0.5] * 300 + [0.0] * 40
    low, high = bootstrap_mean(outcomes)
    # mean 0.525; standard error sqrt((60 * 0.475^2 + 300 * 0.025^2 + 40 * 0.525^2) / 400) / 20 =
    # 0.012437
    assert (low, high) == pytest.approx((0.525 - 1.96 * 0.012437, 0.525 + 1.96 * 0.012437), abs=0.003)


def test_distinct_worked_by_hand() -> None:
    texts = [["a", "b", "a"], ["a", "b"], ["c"]]
    assert distinct(texts, 1) == pytest.approx(3 / 6)
    assert distinct(texts, 2) == pytest.approx(2 / 3)
    assert distinct(texts, 4) == 0.0


def test_correlation_worked_by_hand() -> None:
    assert correlation([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) == pytest.approx(1.0)
    # deviations (-1, 0, 1) and (-1, 1, 0): 1 / sqrt(2 * 2)
    assert correlation([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]) == pytest.approx(0.5)
    assert correlation([1.0, 1.0], [1.0, 2.0]) == 0.0
