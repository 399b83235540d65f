"""One rule of the gate at a time: is a candidate surely better, and is it surely not worse than is
allowed?

Answers that are right or wrong are compared by McNemar's exact test and by Tango's score test for a
margin, all else by the ends of a paired bootstrap interval.
"""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict

from stages.common.core.statistics import sign_test
from stages.common.evaluation import paired_bootstrap, paired_proportions
from stages.common.evaluation.paired_bootstrap import Change
from stages.common.evaluation.results import Evaluated

BASE, CHAMPION = SIDES = ("base", "champion")
WITH = " with "
"""Between who was asked, and how."""
SHARES = ("accuracy/", "refusal/", "unsure/")
"""Metrics that are shares of questions, and shown in percent."""
POINTS = " points"
"""Of a hundred: how shares differ."""
NEAR = 0.01
"""To 1: so near, a ratio is shown with six digits, or it would be said to be 1."""
ROUNDING = 1e-9
GUARD = 0.05
"""How often a loss as large as a guard allows passes it."""
POWER = 0.8


class Comparison(BaseModel):
    """One rule with its numbers; `limit` is the margin it had to beat, or the tolerance of
    a guard.
    """

    model_config = ConfigDict(frozen=True)

    metric: str
    against: str
    rule: Literal["beats", "guard"]
    limit: float
    change: Change | None
    passed: bool
    reason: str
    too_few: bool = False
    """Too few questions to tell: it was better, but on fewer than a comparison is believed on, or a
    guard lost no more than is allowed, but by chance it may have.
    """


def beats(
    metric: str, margin: float, against: str, after: Evaluated, before: Evaluated, *, least: int, candidates: int
) -> Comparison:
    """Return whether `after` is surely better than `before` by `margin`, on `least` questions or
    more.

    It is the best of so many `candidates`: the test's error of 2.5 % is shared among them
    (Bonferroni, which for the best is the first step of Holm 1979).
    """
    side = paired_proportions.SIDE / candidates
    change = paired_bootstrap.change(metric, after, before, side)
    ratio, lower = paired_bootstrap.is_ratio(metric), paired_bootstrap.lower_is_better(metric)
    edge = (1 - margin) if ratio else (-margin if lower else margin)
    passed = too_few = False
    if change is None:
        reason = _incomparable(metric, against)
    elif change.count < least:
        too_few = change.change < edge if lower else change.change > edge
        reason = f"{metric} was compared with {_whose(against)} on {change.count} only, fewer than {least}"
        reason += " (promote.min_questions)"
        reason += f"; it is better there ({_shown(change, metric, lower)})" if too_few else ""
    else:
        passed = _surely_better(change, margin, side, edge, lower)
        said = f"{metric} {value(change.after, metric)} {'beats' if passed else 'does not surely beat'}"
        reason = f"{said} {_whose(against, value(change.before, metric))}: {_shown(change, metric, lower)}"
        reason += "" if passed else f", needs {'less' if lower else 'more'} than {moved(edge, metric)} for sure"
        reason += "" if passed else _sees(change, side)
    return Comparison(
        metric=metric,
        against=against,
        rule="beats",
        limit=margin,
        change=change,
        passed=passed,
        reason=reason,
        too_few=too_few,
    )


def guard(metric: str, tolerance: float, against: str, after: Evaluated, before: Evaluated) -> Comparison:
    """Return whether `after` surely loses no more than `tolerance`: a test of non-inferiority.

    One that lost no more, but may have by chance, is neither: it is `too_few`, and the reason says
    how many questions would tell.
    """
    change = paired_bootstrap.change(metric, after, before, GUARD)
    passed = too_few = False
    if change is None:
        reason = _incomparable(metric, against)
    else:
        ratio, lower = paired_bootstrap.is_ratio(metric), paired_bootstrap.lower_is_better(metric)
        sign = 1 if lower else -1
        worse, most = (change.change - 1, change.high - 1) if ratio else (sign * change.change, _most(change, lower))
        passed = most <= tolerance + ROUNDING
        too_few = not passed and worse <= tolerance + ROUNDING
        edge = 1 + tolerance if ratio else sign * tolerance
        verb = "holds" if passed else "may get worse" if too_few else "gets worse"
        than = _whose(against, value(change.before, metric))
        reason = f"{metric} {verb}: {value(change.after, metric)} after {than}, "
        reason += f"{_shown(change, metric, lower)}, allowed is {moved(edge, metric)}"
        reason += f"; {_needed(change, tolerance, most - worse)}" if too_few else ""
    return Comparison(
        metric=metric,
        against=against,
        rule="guard",
        limit=tolerance,
        change=change,
        passed=passed,
        reason=reason,
        too_few=too_few,
    )


def value(found: float, metric: str) -> str:
    """Return a metric's value as people read it: shares in percent."""
    return f"{found:.1%}" if metric.startswith(SHARES) else f"{found:.4g}"


def moved(found: float, metric: str) -> str:
    """Return a metric's change as people read it: of shares in points."""
    if metric.startswith(SHARES):
        return f"{100 * found:+.1f}{POINTS}"
    if not paired_bootstrap.is_ratio(metric):
        return f"{found:+.4g}"
    return f"x{found:.{6 if abs(found - 1) < NEAR else 4}g}"


def _surely_better(change: Change, margin: float, side: float, edge: float, lower: bool) -> bool:
    if change.gained is None or change.lost is None:
        return change.high < edge if lower else change.low > edge
    gained, lost = (change.lost, change.gained) if lower else (change.gained, change.lost)
    surely = sign_test(gained, lost) <= side
    z = paired_proportions.quantile(side)
    return surely and paired_proportions.score(gained, lost, change.count, margin) > z


def _most(change: Change, lower: bool) -> float:
    """Return the largest loss that the interval holds."""
    return change.high if lower else -change.low


def _asked(change: Change, tolerance: float, half: float) -> int:
    """Return how many questions tell equals from losers, going by how much this change varies."""
    if change.gained is not None and change.lost is not None:
        differing = max(1, change.gained + change.lost) / change.count
        return paired_proportions.questions(tolerance, differing, GUARD, POWER)
    spread = half / paired_proportions.quantile(GUARD) * math.sqrt(change.count)
    z = paired_proportions.quantile(GUARD) + paired_proportions.quantile(1 - POWER)
    return math.ceil((z * spread / tolerance) ** 2) if tolerance else 2 * change.count


def _needed(change: Change, tolerance: float, half: float) -> str:
    asked = _asked(change, tolerance, half)
    return f"{asked:,} would tell" if asked > change.count else "too close to that to tell"


def _sees(change: Change, side: float) -> str:
    """Return the power of a verdict that shares differ; nothing for other metrics."""
    if change.gained is None or change.lost is None:
        return ""
    differing = max(1, change.gained + change.lost) / change.count
    least = paired_proportions.seen(change.count, differing, side, POWER)
    return f" ({change.count} questions see {100 * least:.2g} points in {POWER:.0%})"


def _whose(against: str, shown: str = "") -> str:
    """Return whose value it is: `the base's 50.0% with 1 example`, `sft_best's 70.0%`."""
    name, *how = against.partition(WITH)
    return f"{'the ' if name in SIDES else ''}{name}'s{' ' if shown else ''}{shown}{''.join(how)}"


def _incomparable(metric: str, against: str) -> str:
    missing = "texts read in the same tokens" if paired_bootstrap.is_ratio(metric) else "questions that both were asked"
    return f"{metric} cannot be compared with {_whose(against)}: there are no {missing}"


def _shown(change: Change, metric: str, lower: bool) -> str:
    """Return a change with its interval and sample: +20.0 points [+10.0, +30.0] on 100."""
    low, high = (moved(end, metric).removesuffix(POINTS) for end in (change.low, change.high))
    said = f"{moved(change.change, metric)} [{low}, {high}] on {change.count}"
    if change.gained is None or change.lost is None:
        return said
    gained, lost = (change.lost, change.gained) if lower else (change.gained, change.lost)
    return f"{said}, {gained} better and {lost} worse"
