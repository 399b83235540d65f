"""Tests of paired yes-or-no answers: two candidates were asked the same questions, `gained` of them
only the later one has right, `lost` of them only the earlier one.
"""

import math
from statistics import NormalDist

SIDE = 0.025
"""Error of a one-sided test: what lies beyond one end of a 95 % interval."""


def quantile(tail: float) -> float:
    """Return the z that a standard normal exceeds with probability `tail`."""
    return -NormalDist().inv_cdf(tail)


def score(gained: int, lost: int, count: int, difference: float) -> float:
    """Return the score statistic of the null hypothesis that the shares differ by `difference`,
    standard normal under it (Tango 1998, Statistics in Medicine 17, equations 2 to 4).

    Above 0 the answers speak for a larger difference. `difference` lies in (-1, 1).
    """
    moved = gained - lost - count * difference
    half = -gained - lost + (2 * count - gained + lost) * difference
    constant = -lost * difference * (1 - difference)
    root = math.sqrt(max(0.0, half * half - 8 * count * constant))
    lost_share = (root - half) / (4 * count)
    variance = count * (2 * lost_share + difference * (1 - difference))
    if variance <= 0:  # no question differs, and none should
        return 0.0 if moved == 0 else math.copysign(math.inf, moved)
    return moved / math.sqrt(variance)


def interval(gained: int, lost: int, count: int, side: float = SIDE) -> tuple[float, float]:
    """Return the score interval of the difference of the shares: what `score` does not reject on
    either side at `side`.
    """
    z = quantile(side)

    def edge(inside: float, outside: float, reach: float) -> float:
        for _ in range(60):
            middle = (inside + outside) / 2
            rejected = score(gained, lost, count, middle) * reach > z
            inside, outside = (inside, middle) if rejected else (middle, outside)
        return (inside + outside) / 2

    value = (gained - lost) / count
    return edge(value, -1 + 1e-12, 1.0), edge(value, 1 - 1e-12, -1.0)


def questions(margin: float, differing: float, side: float = SIDE, power: float = 0.8) -> int:
    """Return how many questions see a difference of `margin` with probability `power`, where a
    share `differing` of them is answered differently (Connor 1987, Biometrics 43).

    The same number shows with that probability that equals differ by less than `margin`.
    """
    differing = max(differing, margin)
    return math.ceil(((quantile(side) + quantile(1 - power)) / margin) ** 2 * differing)


def seen(count: int, differing: float, side: float = SIDE, power: float = 0.8) -> float:
    """Return the smallest difference that `count` questions see with probability `power`."""
    z = quantile(side) + quantile(1 - power)
    return min(1.0, max(z * math.sqrt(differing / count), z * z / count))
