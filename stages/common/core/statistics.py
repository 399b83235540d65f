"""Intervals for what is measured on a sample."""

import math
from collections.abc import Iterable, Sequence

Z_95 = 1.959963984540054


def wilson(successes: int, count: int, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson 1927); (0, 1) when nothing was
    counted.
    """
    if count == 0:
        return 0.0, 1.0
    share = successes / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low = 0.0 if successes == 0 else centre - half  # exactly: rounding would leave 1e-17 beside a share of 0
    high = 1.0 if successes == count else centre + half
    return low, high


def sign_test(gained: int, lost: int) -> float:
    """Return the exact one-sided p of McNemar's test (1947): so many gains or more, were gain and
    loss alike.

    1 where nothing differs.
    """
    differing = gained + lost
    return sum(math.comb(differing, more) for more in range(gained, differing + 1)) / 2**differing


def bootstrap_ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    side: float = 0.025,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of sum(numerators) / sum(denominators), 95 % unless
    another share than 0.025 lies beyond each `side`.

    Pairs are resampled together (Efron & Tibshirani 1993, chapter 13): documents, with their loss
    and their tokens. There are `resamples` of them, and more where a side would hold fewer than 25.
    """
    import numpy

    top, bottom = numpy.asarray(numerators, dtype=float), numpy.asarray(denominators, dtype=float)
    generator = numpy.random.default_rng(seed)
    resamples = max(resamples, math.ceil(25 / side))
    ratios = numpy.empty(resamples)
    for resample in range(resamples):
        rows = generator.integers(0, len(top), len(top))
        ratios[resample] = top[rows].sum() / bottom[rows].sum()
    low, high = numpy.percentile(ratios, [100 * side, 100 * (1 - side)])
    return float(low), float(high)


def bootstrap_mean(
    values: Sequence[float], *, side: float = 0.025, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of `values`, one number a question, as
    `bootstrap_ratio` does.
    """
    return bootstrap_ratio(values, [1.0] * len(values), side=side, resamples=resamples, seed=seed)


def distinct(texts: Iterable[Sequence[str]], order: int) -> float:
    """Return distinct-n (Li et al. 2016): different n-grams over all n-grams of all texts; 0 when
    there is none.
    """
    grams = [tuple(text[at : at + order]) for text in texts for at in range(len(text) - order + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Pearson's correlation, or 0 when one of the two does not vary."""
    import numpy

    if len(first) < 2 or min(first) == max(first) or min(second) == max(second):
        return 0.0
    return float(numpy.corrcoef(first, second)[0, 1])
