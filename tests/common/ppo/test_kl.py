"""KL and its controllers on numbers worked by hand."""

import math
from typing import Any

import pytest
import torch

from stages.common.ppo import kl as ppo_kl
from stages.common.ppo.kl import AdaptiveKL, FixedKL
from stages.common.runtime.errors import DataError, ParamsError


def test_kl_estimates_by_hand() -> None:
    log_probs, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    # k1: -1 + 1.5 = 0.5 and -2 + 1 = -1; k3 with r = -0.5 and r = 1: e^-0.5 - 1 + 0.5 = 0.106531, e
    # - 1 - 1 = 0.718282
    assert ppo_kl.kl_k1(log_probs, reference).tolist() == [0.5, -1.0]
    assert ppo_kl.kl_k3(log_probs, reference).tolist() == pytest.approx([0.106531, 0.718282], abs=1e-6)


def test_a_fixed_coefficient_stays() -> None:
    control = FixedKL(0.05)
    control.update(1000.0, 32)
    assert control.coefficient == 0.05
    assert control.state() == {"coefficient": 0.05}


def test_an_adaptive_coefficient_by_hand() -> None:
    control = AdaptiveKL(0.1, target=6.0, horizon=100)
    control.update(60.0, 10)  # 60 / 6 - 1 = 9, cut to 0.2: * (1 + 0.2 * 10 / 100)
    assert control.coefficient == pytest.approx(0.102)
    control.update(6.6, 50)  # 0.1: * 1.05
    assert control.coefficient == pytest.approx(0.1071)
    control.update(-3.0, 100)  # -1.5, cut to -0.2: * 0.8
    assert control.coefficient == pytest.approx(0.08568)
    control.update(6.0, 100)  # on target
    assert control.coefficient == pytest.approx(0.08568)
    resumed = AdaptiveKL(0.1, target=6.0, horizon=100)
    resumed.restore(control.state())
    assert resumed.coefficient == control.coefficient


@pytest.mark.parametrize("changed", [{"coefficient": -0.1}, {"coefficient": math.nan}, {"target": 0.0}, {"horizon": 0}])
def test_controllers_refuse_numbers_without_a_meaning(changed: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=next(iter(changed))):
        AdaptiveKL(**({"coefficient": 0.1, "target": 6.0, "horizon": 100} | changed))


def test_a_kl_that_is_not_a_number_stops() -> None:
    with pytest.raises(DataError, match="not a number"):
        AdaptiveKL(0.1, 6.0, 100).update(math.nan, 32)


def test_a_target_makes_the_weight_of_kl_a_steered_one() -> None:
    assert type(ppo_kl.controller(0.1, None, 100)) is FixedKL
    steered = ppo_kl.controller(0.1, 6.0, 100)
    steered.update(60.0, 10)
    assert steered.coefficient == pytest.approx(0.102)
