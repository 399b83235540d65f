"""How far what is asked now lies from what it is compared with: distance, chance, and whether both
are enough to call it a drift.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import Field

from stages.common.core import params
from stages.common.serving.drift.histograms import SHARES, YES, Counts, Profile

REST = "rest"
FEWEST = 5.0
"""Records that a bin is expected to have for the chi-squared approximation (Cochran 1954)."""


class Drift(params.StageParams):
    """Key `deploy.drift`: when what is asked has drifted from the champion's own data."""

    window: int = Field(default=1000, ge=0)
    """So many of the latest questions are compared; 0: nothing is."""
    psi: float = Field(default=0.2, gt=0)
    """Population stability index of a histogram from which it may have drifted."""
    ratio: float = Field(default=1.5, gt=1)
    """Times more or less often than expected from which refused, unsure or cut answers may have."""
    chance: float = Field(default=0.001, gt=0, lt=1)
    """How improbable such a difference must be, were nothing drifting."""
    days: int = Field(default=90, ge=1)
    """Days whose histograms are kept."""


class Level(NamedTuple):
    """How a quantity stands: of how many records, its distance, the probability of such a
    difference by chance, and whether that is a drift. `share` and `expected` are of YES.
    """

    quantity: str
    records: int
    psi: float
    chance: float
    is_drifted: bool
    share: float | None = None
    expected: float | None = None

    def __str__(self) -> str:
        told = f"{self.quantity}: "
        if self.share is not None and self.expected is not None:
            told += f"{self.share:.1%}, expected {self.expected:.1%}"
        else:
            told += f"PSI {self.psi:.2f}"
        return f"{told}, by chance {self.chance:.1g}, of {self.records} records"


def pooled(reference: Mapping[str, int], window: Mapping[str, int]) -> tuple[Counts, Counts]:
    """Return both histograms with the bins in which the smaller of the two would have fewer than
    FEWEST records thrown together.
    """
    many, few = sum(reference.values()), sum(window.values())
    part = min(many, few) / (many + few)
    both = {name: reference.get(name, 0) + window.get(name, 0) for name in {**reference, **window}}
    bins = {name: name if count * part >= FEWEST else REST for name, count in both.items()}
    found: list[Counts] = []
    for counts in (reference, window):
        kept = dict.fromkeys(bins.values(), 0)
        for name, count in counts.items():
            kept[bins[name]] += count
        found.append(kept)
    return found[0], found[1]


def psi(reference: Mapping[str, int], window: Mapping[str, int]) -> float:
    """Return the population stability index, sum of (q - p) ln(q / p) over the bins (Siddiqi 2006;
    Yurdakul & Naranjo 2020 for its distribution): Jeffreys' divergence in nats.

    Half a record is added to each bin, so that an empty one has a logarithm.
    """
    names = {**reference, **window}
    many = sum(reference.values()) + len(names) / 2
    few = sum(window.values()) + len(names) / 2
    found = 0.0
    for name in names:
        p, q = (reference.get(name, 0) + 0.5) / many, (window.get(name, 0) + 0.5) / few
        found += (q - p) * math.log(q / p)
    return found


def chance(reference: Mapping[str, int], window: Mapping[str, int]) -> float:
    """Return the p of Pearson's chi-squared test that both are samples of one distribution; 1 with
    a single bin.
    """
    from scipy.special import chdtrc

    many, few = sum(reference.values()), sum(window.values())
    statistic, bins = 0.0, 0
    for name in {**reference, **window}:
        one, other = reference.get(name, 0), window.get(name, 0)
        if one + other:
            statistic += (one * few - other * many) ** 2 / (one + other)
            bins += 1
    return float(chdtrc(bins - 1, statistic / (many * few))) if bins > 1 else 1.0


def exact_chance(reference: tuple[int, int], window: tuple[int, int]) -> float:
    """Return the two-sided p of Fisher's exact test for (yes, of all) against (yes, of all)."""
    from scipy.stats import fisher_exact

    table = [[yes, count - yes] for yes, count in (reference, window)]
    return float(fisher_exact(table).pvalue)


def level(quantity: str, reference: Mapping[str, int], window: Mapping[str, int], settings: Drift) -> Level:
    """Return how one quantity stands: a drift is both large and no accident."""
    many, few = sum(reference.values()), sum(window.values())
    if quantity in SHARES:
        yes, now = reference.get(YES, 0), window.get(YES, 0)
        expected, share = yes / many, now / few
        by_chance = exact_chance((yes, many), (now, few))
        is_large = share >= settings.ratio * expected or share * settings.ratio <= expected
        is_drifted = is_large and by_chance < settings.chance
        return Level(quantity, few, psi(reference, window), by_chance, is_drifted, share, expected)
    one, other = pooled(reference, window)
    distance, by_chance = psi(one, other), chance(one, other)
    return Level(quantity, few, distance, by_chance, distance >= settings.psi and by_chance < settings.chance)


def levels(reference: Profile, window: Profile, settings: Drift) -> list[Level]:
    """Return how every quantity stands that both have."""
    return [
        level(quantity, reference[quantity], counts, settings)
        for quantity, counts in sorted(window.items())
        if reference.get(quantity)
    ]
