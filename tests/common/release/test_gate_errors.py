"""How often the gate errs: candidates that are no better, equal ones, and true losses, drawn a few
thousand times.
"""

from collections.abc import Callable
from functools import cache

import numpy
import pytest

from stages.common.core.statistics import sign_test
from stages.common.evaluation import paired_proportions as paired
from stages.common.release import comparisons

TRIALS = 4_000
Draw = Callable[[int, float, float], tuple[int, int]]


def draws(seed: int) -> Draw:
    generator = numpy.random.default_rng(seed)

    def draw(count: int, differing: float, loss: float = 0.0) -> tuple[int, int]:
        """Return gains and losses of a candidate that is truly worse by `loss`."""
        better = (differing - loss) / 2
        gained, lost, _ = generator.multinomial(count, [better, better + loss, 1 - differing])
        return int(gained), int(lost)

    return draw


@cache
def promoted(gained: int, lost: int, side: float) -> bool:
    return sign_test(gained, lost) <= side


@cache
def holds(gained: int, lost: int, count: int, tolerance: float) -> bool:
    return paired.score(gained, lost, count, -tolerance) >= paired.quantile(comparisons.GUARD)


@pytest.mark.parametrize("candidates", [1, 4])
@pytest.mark.parametrize("count", [30, 100, 300, 1000])
@pytest.mark.parametrize("differing", [0.02, 0.05, 0.2])
def test_no_better_candidate_is_promoted_more_often_than_in_one_of_forty(
    candidates: int, count: int, differing: float
) -> None:
    draw, wrong = draws(1), 0
    for _ in range(TRIALS):
        best = max((draw(count, differing, 0.0) for _ in range(candidates)), key=lambda one: one[0] - one[1])
        wrong += promoted(*best, paired.SIDE / candidates)
    assert wrong / TRIALS <= 0.025 + 2 * (0.025 * 0.975 / TRIALS) ** 0.5


GUARDS = [(0.05, 0.2), (0.05, 0.2), (0.05, 0.2), (0.03, 0.07), (0.02, 0.07), (0.05, 0.07), (0.02, 0.07)]
"""Tolerance, and the share of answers that differ, of the demo's seven guards on shares."""


def test_at_the_questions_asked_for_equals_pass_and_losers_do_not() -> None:
    draw, refused, undecided, let_through = draws(2), 0, 0, 0
    asked = [paired.questions(tolerance, differing, comparisons.GUARD) for tolerance, differing in GUARDS]
    for _ in range(TRIALS):
        equal = [draw(count, differing, 0.0) for count, (_, differing) in zip(asked, GUARDS, strict=True)]
        lost = [(lost - gained) / count for count, (gained, lost) in zip(asked, equal, strict=True)]
        refused += any(one > tolerance for one, (tolerance, _) in zip(lost, GUARDS, strict=True))
        undecided += not holds(*equal[0], asked[0], GUARDS[0][0])
        let_through += holds(*draw(asked[0], 0.2, 0.05), asked[0], 0.05)
    assert refused / TRIALS <= 0.10
    assert undecided / TRIALS <= 0.22
    assert let_through / TRIALS <= 0.05 + 2 * (0.05 * 0.95 / TRIALS) ** 0.5
