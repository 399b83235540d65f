"""Bets on numbers worked by hand, and what chance alone may win."""

import numpy as np
import pytest

from stages.common.release.traffic import betting


def test_a_capital_grows_by_its_stake_and_what_was_seen_above_the_mean() -> None:
    capital = betting.bet(betting.begun(), 1.0, 0.5, 0.0)
    assert capital.tolist() == pytest.approx([1.9, 1.45, 1.225, 1.1125])
    assert float(betting.e_value(capital)) == pytest.approx(np.mean([1.9, 1.45, 1.225, 1.1125]))
    lost = betting.bet(betting.begun(), 0.0, 0.5, 0.0)
    assert lost.tolist() == pytest.approx([0.1, 0.55, 0.775, 0.8875])
    assert betting.bet(capital, float("nan"), 0.5, 0.0).tolist() == capital.tolist()


def test_an_assigned_outcome_is_unbiased_at_every_share() -> None:
    for share in (0.01, 0.25, 0.5):
        theirs, _ = betting.assigned(0.9, 0.3, True, share)
        ours, _ = betting.assigned(0.6, 0.3, False, share)
        assert share * theirs + (1 - share) * ours == pytest.approx(0.9 - 0.6)


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_no_outcome_can_cost_more_than_everything(share: float) -> None:
    for outcome in (0.0, 1.0):
        for takes in (True, False):
            change, least = betting.assigned(outcome, 0.4, takes, share)
            assert change >= least - 1e-12
            assert (betting.bet(betting.begun(), change, 0.0, least) > 0).all()


def test_chance_alone_reaches_one_in_alpha_no_more_often_than_alpha_whenever_one_stops() -> None:
    chance, alpha = np.random.default_rng(7), 0.05
    capitals, reached = betting.begun(4000), np.zeros(4000, bool)
    for _ in range(400):
        seen = (chance.random(4000) < 0.3).astype(float)
        capitals = betting.bet(capitals, seen, 0.3, 0.0)
        reached |= betting.e_value(capitals) >= 1 / alpha
    assert 0.01 < reached.mean() <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / 4000)
