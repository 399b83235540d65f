"""The gate: which candidate is best, whether it may become champion, and why, as pure functions of
evaluations.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt

from stages.common.core import params
from stages.common.evaluation import paired_bootstrap
from stages.common.evaluation.paired_bootstrap import Change
from stages.common.evaluation.results import Evaluated
from stages.common.runtime.errors import DataError

Side = Literal["base", "champion"]
Approval = Literal["auto", "manual"]
ROUNDING = 1e-9


class Guards(params.StageParams):
    """How much worse each metric may get, by whom it is compared with: shares absolute,
    perplexities relative.
    """

    champion: dict[str, NonNegativeFloat] = {}
    """Against the champion, where there is one."""
    base: dict[str, NonNegativeFloat] = {}
    """Against the base: what alignment may cost at all."""


class Rules(params.StageParams):
    """The gate's part of section `promote` of params.yaml."""

    metric: str = "accuracy/iid"
    """Metric that ranks the candidates; `perplexity/…` and `…/false` are better when lower."""
    margin: float = Field(default=0.0, ge=0, lt=1)
    """How much better than base and champion a candidate is for sure; of perplexities a share of
    theirs.
    """
    min_questions: PositiveInt = 30
    """Fewest questions (or texts) that a comparison is believed on; on fewer, a person approves a
    first champion.
    """
    guards: Guards = Guards()
    """What must not get worse, and by how much it may."""
    approval: Approval = "auto"
    """`auto` moves alias champion; `manual` leaves review=pending for a person."""


class Comparison(BaseModel):
    """One rule of the gate with its numbers; `limit` is the margin it had to beat, or the tolerance
    of a guard.
    """

    model_config = ConfigDict(frozen=True)

    metric: str
    against: Side
    rule: Literal["beats", "guard"]
    limit: float
    change: Change | None
    passed: bool
    reason: str
    too_few: bool = False
    """It was better, but on fewer questions than a comparison is believed on."""


class Decision(BaseModel):
    """Whether the candidate may become champion, by which rules, and why, with the numbers."""

    model_config = ConfigDict(frozen=True)

    passed: bool
    reason: str
    comparisons: tuple[Comparison, ...] = ()
    asks_person: bool = False
    """Too little to judge by for a first champion: whatever `approval` says, it waits for a
    person.
    """


def choose(
    found: list[Evaluated], metric: str, base: str, guards: Mapping[str, float] | None = None
) -> tuple[Evaluated, Evaluated]:
    """Return the best candidate that is not the base, and the base.

    One that breaks a guard against the base comes after all that break none: refused, it would keep
    out one that is as good. Raises DataError when one was not evaluated, or an evaluation lacks the
    metric.
    """
    for one in found:
        if metric not in one.metrics:
            known = ", ".join(sorted(one.metrics)) or "none"
            what = f"{one.candidate} has no metric '{metric}'; there are: {known}"
            raise DataError(what, where=params.PARAMS_FILE, remedy="set promote.metric to one of these")
    bases = [one for one in found if one.candidate == base]
    others = [one for one in found if one.candidate != base]
    if not bases or not others:
        names = ", ".join(one.candidate for one in found)
        what = f"needs the base '{base}' and another candidate; evaluated are: {names}"
        raise DataError(what, where=params.PARAMS_FILE, remedy="set promote.base, or evaluate more in dvc.yaml")
    sign = -1 if paired_bootstrap.lower_is_better(metric) else 1

    def worth(one: Evaluated) -> tuple[bool, float]:
        held = (
            _guard(name, limit, "base", paired_bootstrap.change(name, one, bases[0]))
            for name, limit in (guards or {}).items()
        )
        return all(guard.passed for guard in held), sign * one.metrics[metric]

    return max(others, key=worth), bases[0]


def decide(best: Evaluated, base: Evaluated, champion: Evaluated | None, rules: Rules) -> Decision:
    """Return the decision: surely better than base and champion, and no guard lost more than its
    tolerance.

    Surely means that the paired 95 % interval lies beyond the margin; a guard goes by the value
    itself, for an interval on few questions would let every loss pass. All rules are looked at, and
    every broken one is named. A first champion that is better, but on too few questions to be sure,
    is a person's to approve.
    """
    comparisons = tuple(_comparisons(best, base, champion, rules))
    broken = [one.reason for one in comparisons if not one.passed]
    if champion is None and broken and all(one.passed or one.too_few for one in comparisons):
        few = next(one.change for one in comparisons if one.too_few)
        reason = f"{'; '.join(broken)} (promote.min_questions); it is better there"
        reason += f" ({_shown(few, rules.metric)}) and there was no champion: a person decides" if few else ""
        return Decision(passed=True, reason=reason, comparisons=comparisons, asks_person=True)
    if broken:
        return Decision(passed=False, reason="; ".join(broken), comparisons=comparisons)
    kept = [one for one in comparisons if one.rule == "guard"]
    said = [one.reason for one in comparisons if one.rule == "beats"]
    said += [] if champion else ["there was no champion"]
    said += [f"{len(kept)} guard{'s hold' if len(kept) > 1 else ' holds'}"] if kept else []
    return Decision(passed=True, reason="; ".join(said), comparisons=comparisons)


def _comparisons(best: Evaluated, base: Evaluated, champion: Evaluated | None, rules: Rules) -> Iterator[Comparison]:
    sides: list[tuple[Side, Evaluated, dict[str, float]]] = [("base", base, rules.guards.base)]
    if champion:
        sides.append(("champion", champion, rules.guards.champion))
    for side, other, _ in sides:
        yield _beats(rules, side, paired_bootstrap.change(rules.metric, best, other))
    for side, other, guards in sides:
        for metric, tolerance in guards.items():
            yield _guard(metric, tolerance, side, paired_bootstrap.change(metric, best, other))


def _beats(rules: Rules, side: Side, change: Change | None) -> Comparison:
    metric, margin, ratio = rules.metric, rules.margin, paired_bootstrap.is_ratio(rules.metric)
    lower = paired_bootstrap.lower_is_better(metric)
    edge = (1 - margin) if ratio else (-margin if lower else margin)
    too_few = False
    if change is None:
        passed, reason = False, _incomparable(metric, side)
    elif change.count < rules.min_questions:
        passed, too_few = False, change.change < edge if lower else change.change > edge
        reason = f"{metric} was compared with the {side}'s on {change.count} only, fewer than {rules.min_questions}"
    else:
        passed = change.high < edge if lower else change.low > edge
        needed = f"needs {'less' if lower else 'more'} than {_moved(edge, metric)} for sure"
        said = f"{metric} {change.after:.4g} {'beats' if passed else 'does not surely beat'} the {side}'s"
        reason = f"{said} {change.before:.4g}: {_shown(change, metric)}" + ("" if passed else f", {needed}")
    return Comparison(
        metric=metric,
        against=side,
        rule="beats",
        limit=margin,
        change=change,
        passed=passed,
        reason=reason,
        too_few=too_few,
    )


def _guard(metric: str, tolerance: float, side: Side, change: Change | None) -> Comparison:
    if change is None:
        passed, reason = False, _incomparable(metric, side)
    else:
        sign = 1 if paired_bootstrap.lower_is_better(metric) else -1
        worse = change.change - 1 if paired_bootstrap.is_ratio(metric) else sign * change.change
        passed = worse <= tolerance + ROUNDING
        edge = 1 + tolerance if paired_bootstrap.is_ratio(metric) else sign * tolerance
        verb = "holds" if passed else "gets worse"
        reason = f"{metric} {verb}: {change.after:.4g} after the {side}'s {change.before:.4g}, {_shown(change, metric)}"
        reason += f", allowed is {_moved(edge, metric)}"
    return Comparison(
        metric=metric, against=side, rule="guard", limit=tolerance, change=change, passed=passed, reason=reason
    )


def _incomparable(metric: str, side: Side) -> str:
    missing = "texts read in the same tokens" if paired_bootstrap.is_ratio(metric) else "questions that both were asked"
    return f"{metric} cannot be compared with the {side}'s: there are no {missing}"


def _shown(change: Change, metric: str) -> str:
    """Return a change with its interval and sample: +0.0033 [-0.0167, +0.0233] on 300."""
    low, high = _moved(change.low, metric), _moved(change.high, metric)
    return f"{_moved(change.change, metric)} [{low}, {high}] on {change.count}"


def _moved(value: float, metric: str) -> str:
    return f"x{value:.4g}" if paired_bootstrap.is_ratio(metric) else f"{value:+.4g}"
