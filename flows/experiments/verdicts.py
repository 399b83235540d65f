"""What the numbers of an experiment say: an effect with its interval over seeds and questions, and
whether the claim holds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from flows.experiments.plan import Contrast, Experiment, Measured, Values
from stages.common.runtime.errors import DataError

Verdict = Literal["holds", "does not hold", "not shown"]
RESAMPLES = 4000
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t at 0.975 for 1 to 9 degrees of freedom."""


@dataclass(frozen=True)
class Effect:
    """A mean difference with its 95 % interval, over so many seeds and units; `by_seed` is each
    seed's own.
    """

    value: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    units: int


@dataclass(frozen=True)
class Result:
    """A test, what was found and what it says."""

    test: Contrast
    effect: Effect
    verdict: Verdict


def effect(of: Sequence[Values], against: Sequence[Values] | float) -> Effect:
    """Return the mean of `of` minus that of `against`, one mapping a seed, paired by unit.

    With several units, seeds and units are drawn anew, each seed's and each unit's weight being
    the same in the whole table (Owen 2007, "The pigeonhole bootstrap"; conservative). One seed:
    units alone. One unit: Student's t over the seeds. Raises DataError where no unit is shared, or
    one number is all there is.
    """
    import numpy

    shared: set[str] = set(of[0]).intersection(*of[1:])
    if not isinstance(against, float):
        shared = shared.intersection(*against)
    units = sorted(shared)
    if not units:
        raise DataError("the two sides of a test share no question")
    table = numpy.array([[values[unit] for unit in units] for values in of])
    table = table - (
        against if isinstance(against, float) else numpy.array([[v[unit] for unit in units] for v in against])
    )
    value, by_seed = float(table.mean()), tuple(float(mean) for mean in table.mean(axis=1))
    if len(units) == 1:
        half = _t_half(by_seed)
        return Effect(value, value - half, value + half, by_seed, 1)
    generator = numpy.random.default_rng(0)
    rows, columns = (generator.multinomial(n, [1 / n] * n, RESAMPLES) / n for n in table.shape)
    low, high = numpy.percentile(((rows @ table) * columns).sum(axis=1), [2.5, 97.5])
    return Effect(value, float(low), float(high), by_seed, len(units))


def _t_half(values: Sequence[float]) -> float:
    """Return half the width of Student's 95 % interval of a mean."""
    count = len(values)
    if not 2 <= count <= len(T_975) + 1:
        raise DataError(f"one number a seed needs 2 to {len(T_975) + 1} seeds for an interval; there are {count}")
    mean = sum(values) / count
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    return T_975[count - 2] * deviation / math.sqrt(count)


def verdict(test: Contrast, found: Effect) -> Verdict:
    """Return whether the whole interval lies where the claim puts the effect, outside of it, or
    neither.
    """
    if test.expects == "more":
        return "holds" if found.low > test.margin else "does not hold" if found.high <= test.margin else "not shown"
    if -test.margin < found.low and found.high < test.margin:
        return "holds"
    return "does not hold" if found.high <= -test.margin or found.low >= test.margin else "not shown"


def results(experiment: Experiment, measured: Mapping[tuple[str, int], Measured]) -> list[Result]:
    """Return every test's result; `measured` is by arm and seed. Raises DataError for a measurement
    that is not there.
    """
    found = []
    for test in experiment.tests:
        against = test.against if isinstance(test.against, float | int) else _side(experiment, measured, test.against)
        one = effect(_side(experiment, measured, test.of), float(against) if isinstance(against, int) else against)
        found.append(Result(test, one, verdict(test, one)))
    return found


def _side(experiment: Experiment, measured: Mapping[tuple[str, int], Measured], side: tuple[str, str]) -> list[Values]:
    arm, name = side
    try:
        return [measured[arm, seed][name] for seed in experiment.seeds]
    except KeyError as error:
        there = ", ".join(sorted(measured.get((arm, experiment.seeds[0]), {})))
        raise DataError(f"arm {arm!r} measured no {name!r}; it did measure: {there}") from error


def whole(found: Sequence[Result]) -> Verdict:
    """Return the verdict on the claim: it holds where every test does, and does not where one does
    not.
    """
    said = {one.verdict for one in found}
    return "does not hold" if "does not hold" in said else "not shown" if "not shown" in said else "holds"
