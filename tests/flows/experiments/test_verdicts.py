"""Effects and verdicts of experiments, on numbers worked by hand and on chance of known size."""

import numpy
import pytest

from flows.experiments import verdicts
from flows.experiments.plan import Arm, Contrast, Experiment, Measured, Values
from flows.experiments.verdicts import Effect, effect
from stages.common.runtime.errors import DataError, ParamsError


def test_one_number_a_seed_has_students_interval() -> None:
    found = effect([{"": 3.0}, {"": 5.0}, {"": 4.0}], [{"": 1.0}, {"": 2.0}, {"": 3.0}])
    # differences 2, 3, 1: mean 2, standard deviation 1, t(2) = 4.303, 4.303 / sqrt(3) = 2.484
    assert found.value == 2.0 and found.by_seed == (2.0, 3.0, 1.0) and found.units == 1
    assert (found.low, found.high) == pytest.approx((2 - 2.48434, 2 + 2.48434), abs=1e-4)
    with pytest.raises(DataError, match="needs 2 to 10 seeds for an interval; there are 1"):
        effect([{"": 3.0}], 0.0)


def test_questions_are_paired_and_only_shared_ones_count() -> None:
    of: list[Values] = [{"a": 1.0, "b": 1.0, "c": 0.0}, {"a": 1.0, "b": 0.0, "d": 1.0}]
    against: list[Values] = [{"a": 0.0, "b": 1.0, "e": 0.0}, {"a": 0.0, "b": 0.0}]
    found = effect(of, against)
    assert (found.value, found.by_seed, found.units) == (0.5, (0.5, 0.5), 2)
    assert (found.low, found.high) == (0.0, 1.0)
    with pytest.raises(DataError, match="share no question"):
        effect([{"a": 1.0}], [{"b": 1.0}])


def test_the_interval_covers_the_truth_where_seeds_and_questions_vary() -> None:
    generator = numpy.random.default_rng(1)
    covered = 0
    for _ in range(100):
        seeds, questions = generator.normal(0, 0.05, (5, 1)), generator.normal(0, 0.4, (1, 80))
        table = 0.1 + seeds + questions + generator.normal(0, 0.3, (5, 80))
        found = effect([{str(at): value for at, value in enumerate(row)} for row in table], 0.0)
        covered += found.low < 0.1 < found.high
    assert covered >= 90


@pytest.mark.parametrize(
    ("expects", "margin", "low", "high", "says"),
    [
        ("more", 0.0, 0.01, 0.2, "holds"),
        ("more", 0.05, 0.01, 0.2, "not shown"),
        ("more", 0.0, -0.2, 0.0, "does not hold"),
        ("near", 0.05, -0.04, 0.03, "holds"),
        ("near", 0.05, -0.06, 0.03, "not shown"),
        ("near", 0.05, 0.05, 0.30, "does not hold"),
    ],
)
def test_a_claim_holds_where_the_whole_interval_does(
    expects: str, margin: float, low: float, high: float, says: str
) -> None:
    test = Contrast("", ("run", "x"), expects=expects, margin=margin)  # type: ignore[arg-type]
    assert verdicts.verdict(test, Effect((low + high) / 2, low, high, (), 10)) == says


def experiment(*tests: Contrast) -> Experiment:
    return Experiment("", "", {"run": Arm()}, ("sft",), lambda folder: {}, tests, seeds=(1, 2))


def test_all_tests_must_hold_and_a_measurement_that_is_lacking_is_named() -> None:
    more = Contrast("", ("run", "x"))
    measured: dict[tuple[str, int], Measured] = {
        ("run", seed): {"x": {str(at): 1.0 for at in range(9)}, "y": {"0": -1.0, "1": -1.0}} for seed in (1, 2)
    }
    found = verdicts.results(experiment(more, Contrast("", ("run", "y"))), measured)
    assert [one.verdict for one in found] == ["holds", "does not hold"]
    assert verdicts.whole(found) == "does not hold" and verdicts.whole(found[:1]) == "holds"
    with pytest.raises(DataError, match="arm 'run' measured no 'z'; it did measure: x, y"):
        verdicts.results(experiment(Contrast("", ("run", "z"))), measured)
    with pytest.raises(ParamsError, match="a test names the arm 'none'; there are: run"):
        experiment(Contrast("", ("none", "x")))
