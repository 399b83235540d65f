"""Evidence that may be looked at after every observation: capital won by betting.

Whoever says "the mean is at most m" must pay fair odds against observations above it. The capital
of a bettor who begins with 1 is then, whatever he looked at before and whenever he stops, at or
above 1/alpha with probability alpha at most (Ville 1939). It is an e-value, and the test is always
valid. All arrays hold one process at each place, and bets along the last axis.

References: Waudby-Smith & Ramdas (2024), Estimating means of bounded random variables by betting,
JRSS B 86(1), section 4: the capital process K_t(m) = prod_i (1 + lambda_i (X_i - m)). Vovk & Wang
(2021), E-values: calibration, combination and applications, Annals of Statistics 49(3): the mean of
e-values is an e-value, however they hang together. Howard et al. (2021), Annals of Statistics
49(2): the same reasoning with mixtures, as in Robbins (1970).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
STAKES: Array = np.array([0.9, 0.45, 0.225, 0.1125])
"""Shares of the largest bet that cannot lose everything. The capital is spread over all of them
evenly, which costs a factor of four at most against the best, and needs no forecast.
"""
MOST = 1e100
"""Of a capital: what it has won beyond changes no decision."""


def begun(*shape: int) -> Array:
    """Return the capitals [..., 4] before the first bet."""
    return np.ones((*shape, len(STAKES)))


def bet(capitals: Array, seen: Any, most: Any, least: Any) -> Array:
    """Return the capitals [..., 4] after an observation each [...].

    A capital grows where `seen` is above `most`, the largest mean that the hypothesis allows.
    `least` is the smallest value that could have been seen, and below `most`. Both must have been
    known before; where `seen` is not a number nothing was bet.
    """
    won = (np.asarray(seen, dtype=float) - most) / (np.asarray(most, dtype=float) - least)
    won = np.where(np.isnan(won), 0.0, won)
    return np.minimum(capitals * (1 + won[..., None] * STAKES), MOST)


def e_value(capitals: Array) -> Array:
    """Return the evidence [...] against the hypothesis: the mean capital over the stakes."""
    return np.asarray(capitals.mean(axis=-1))


def assigned(outcome: Any, expected: Any, takes: Any, share: Any) -> tuple[Array, Array]:
    """Return an unbiased estimate [...] of what the challenger changes in a conversation's outcome
    (0 to 1), from the one that answered it, and the smallest value the estimate could have had.

    (Y - e) (A / p - (1 - A) / (1 - p)): the Horvitz-Thompson estimate, with `expected`, known
    before, taken off to make it vary less. `takes` says whether the challenger answered, as a
    chance of `share` between 0 and 1 had decided. Its mean given all before is the true difference,
    also where the share has grown meanwhile. Ham et al. (2022), Design-based confidence sequences,
    bet in this way.
    """
    outcome, share = np.asarray(outcome, dtype=float), np.asarray(share, dtype=float)
    estimate = (outcome - expected) * np.where(takes, 1 / share, -1 / (1 - share))
    least = -np.maximum(expected / share, (1 - np.asarray(expected)) / (1 - share))
    return estimate, least
