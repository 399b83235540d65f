"""Intervals against published and hand-worked numbers."""

import pytest

from stages.common.statistics import bootstrap_ratio, wilson


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
