"""Tests of paired shares against an independent implementation, by hand, and by simulation."""

import math

import numpy
import pytest
from scipy import optimize, stats

from stages.common.core.statistics import sign_test
from stages.common.evaluation import paired_proportions as paired


@pytest.mark.parametrize(("gained", "lost"), [(4, 0), (0, 4), (12, 5), (3, 3), (60, 30)])
def test_the_sign_test_is_scipys(gained: int, lost: int) -> None:
    expected = stats.binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue
    assert sign_test(gained, lost) == pytest.approx(expected)


def test_without_a_question_that_differs_nothing_is_shown() -> None:
    assert sign_test(0, 0) == 1.0
    assert paired.score(0, 0, 100, 0.0) == 0.0


def likelihood_score(gained: int, lost: int, count: int, difference: float) -> float:
    """Return the same statistic, its nuisance share found by maximising the likelihood."""
    both = count - gained - lost

    def negative(share: float) -> float:
        rest = 1 - 2 * share - difference
        parts = ((gained, share + difference), (lost, share), (both, rest))
        return -sum(times * math.log(max(chance, 1e-300)) for times, chance in parts if times)

    low, high = max(0.0, -difference), (1 - difference) / 2
    share = optimize.minimize_scalar(negative, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    variance = count * (2 * share + difference - difference**2)
    return float((gained - lost - count * difference) / math.sqrt(variance))


@pytest.mark.parametrize(
    ("gained", "lost", "count", "difference"),
    [
        (12, 5, 100, 0.0),
        (12, 5, 100, 0.05),
        (12, 5, 100, -0.05),
        (3, 9, 140, -0.05),
        (1, 0, 30, 0.2),
        (80, 40, 300, 0.1),
    ],
)
def test_the_score_is_that_of_the_likelihood(gained: int, lost: int, count: int, difference: float) -> None:
    expected = likelihood_score(gained, lost, count, difference)
    assert paired.score(gained, lost, count, difference) == pytest.approx(expected, abs=1e-4)


def test_without_a_margin_the_score_is_mcnemars() -> None:
    assert paired.score(12, 5, 100, 0.0) == pytest.approx(7 / math.sqrt(17))


def test_the_interval_ends_where_the_score_is_the_quantile_and_mirrors() -> None:
    low, high = paired.interval(12, 5, 100)
    assert paired.score(12, 5, 100, low) == pytest.approx(1.959964, abs=1e-5)
    assert paired.score(12, 5, 100, high) == pytest.approx(-1.959964, abs=1e-5)
    assert low < 0.07 < high
    assert paired.interval(5, 12, 100) == pytest.approx((-high, -low))
    narrow = paired.interval(0, 0, 300)
    assert narrow[0] == pytest.approx(-narrow[1]) and 0 < narrow[1] < 0.02


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    draws = numpy.random.default_rng(3).multinomial(200, [0.10, 0.06, 0.84], 4000)
    found = {(int(gained), int(lost)): paired.interval(int(gained), int(lost), 200) for gained, lost, _ in draws}
    held = [found[int(gained), int(lost)][0] <= 0.04 <= found[int(gained), int(lost)][1] for gained, lost, _ in draws]
    assert 0.94 < sum(held) / len(held) < 0.96


def test_the_questions_asked_for_see_what_they_are_asked_for() -> None:
    count = paired.questions(0.05, 0.2)
    assert count == math.ceil((1.959964 + 0.841621) ** 2 * 0.2 / 0.0025)
    assert paired.seen(count, 0.2) == pytest.approx(0.05, rel=1e-3)
    draws = numpy.random.default_rng(5).multinomial(count, [0.125, 0.075, 0.8], 4000)
    z = (draws[:, 0] - draws[:, 1]) / numpy.sqrt(draws[:, 0] + draws[:, 1])
    assert 0.77 < float((z > 1.959964).mean()) < 0.83
