"""The gate: which candidate is best, whether it may become champion, and why, as pure functions of
evaluations.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt

from stages.common.core import params
from stages.common.evaluation import paired_bootstrap
from stages.common.evaluation.metrics import TASKS
from stages.common.evaluation.results import Evaluated
from stages.common.release import comparisons
from stages.common.release.comparisons import BASE, CHAMPION, WITH, Comparison
from stages.common.runtime.errors import DataError

Approval = Literal["auto", "manual"]


@dataclass(frozen=True)
class Incumbent:
    """Whom a candidate must beat beside the base: the champion, or who stands in before there is
    one.
    """

    name: str
    """`champion`, or the candidate that stands in."""
    found: Evaluated


class Guards(params.StageParams):
    """How much worse each metric may get, by whom it is compared with: shares absolute,
    perplexities relative.
    """

    champion: dict[str, NonNegativeFloat] = {}
    """Against the champion, or who stands in before there is one."""
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


class Decision(BaseModel):
    """Whether the candidate may become champion, by which rules, and why, with the numbers."""

    model_config = ConfigDict(frozen=True)

    passed: bool
    reason: str
    comparisons: tuple[Comparison, ...] = ()
    asks_person: bool = False
    """Too little to judge by: whatever `approval` says, it waits for a person."""


@dataclass(frozen=True)
class Choice:
    """Who is put forward, the decision on it, and why others that were judged before it are not."""

    best: Evaluated
    decision: Decision
    passed_over: Mapping[str, str]
    """Reason by candidate; empty where the best of them is put forward."""
    judged: Mapping[str, Decision] = field(default_factory=dict)
    """The decision on every candidate but the base."""


def choose(
    found: Sequence[Evaluated],
    base: str,
    rules: Rules,
    incumbent: Incumbent | None = None,
    settled: Callable[[Evaluated], Decision | None] = lambda one: None,
) -> Choice:
    """Return the best candidate that passes, else the incumbent if it is one of them, else the best
    one, refused.

    Every candidate but the base must surely beat base and incumbent; the incumbent itself must beat
    the base. `settled` says what was decided before about a candidate. Raises DataError when one
    was not evaluated, or an evaluation lacks the metric.
    """
    check_metric(found, rules.metric)
    bases = [one for one in found if one.candidate == base]
    others = [one for one in found if one.candidate != base]
    if not bases or not others:
        names = ", ".join(one.candidate for one in found)
        what = f"needs the base '{base}' and another candidate; evaluated are: {names}"
        raise DataError(what, where=params.PARAMS_FILE, remedy="set promote.base, or evaluate more in dvc.yaml")
    same = [one for one in others if incumbent and one.weights_sha256 == incumbent.found.weights_sha256]
    holder = max(same, key=lambda one: incumbent is not None and one.candidate == incumbent.name, default=None)

    def judged(one: Evaluated) -> Decision:
        beaten = None if one is holder else incumbent
        return settled(one) or decide(one, bases[0], beaten, rules, len(others))

    sign = -1 if paired_bootstrap.lower_is_better(rules.metric) else 1

    def worth(one: Evaluated) -> tuple[bool, bool, float]:
        decision = decisions[one.candidate]
        return decision.passed, decision.passed and not decision.asks_person, sign * one.metrics[rules.metric]

    decisions = {one.candidate: judged(one) for one in others if one is not holder}
    best = max((one for one in others if one is not holder), key=worth, default=None)
    if best and (holder is None or decisions[best.candidate].passed):
        held = {holder.candidate: judged(holder)} if holder else {}
        return Choice(best, decisions[best.candidate], {}, decisions | held)
    assert holder is not None
    held = {holder.candidate: judged(holder)}
    reasons = {name: decision.reason for name, decision in decisions.items()}
    return Choice(holder, held[holder.candidate], reasons, decisions | held)


def check_metric(found: Sequence[Evaluated], metric: str) -> None:
    """Raise DataError when an evaluation lacks the metric that ranks."""
    for one in found:
        if metric not in one.metrics:
            known = ", ".join(sorted(one.metrics)) or "none"
            what = f"{one.candidate} has no metric '{metric}'; there are: {known}"
            raise DataError(what, where=params.PARAMS_FILE, remedy="set promote.metric to one of these")


def decide(
    best: Evaluated, base: Evaluated, incumbent: Incumbent | None, rules: Rules, candidates: int = 1
) -> Decision:
    """Return the decision on one of so many `candidates`: surely better than base and incumbent,
    and surely no worse anywhere than is allowed.

    All rules are looked at, and every broken one is named. Where none is broken, but the questions
    are too few to be sure, a person decides: about a first champion that is better than the base,
    about guards that may have been broken by chance.
    """
    found = tuple(_comparisons(best, base, incumbent, rules, candidates))
    unsure = [one for one in found if one.too_few]
    if any(not one.passed and not one.too_few for one in found) or (
        incumbent and any(one.rule == "beats" for one in unsure)
    ):
        broken = "; ".join(one.reason for one in found if not one.passed)
        return Decision(passed=False, reason=broken, comparisons=found)
    kept = [one for one in found if one.rule == "guard" and one.passed]
    said = [one.reason for one in found if one.rule == "beats"]
    said += [one.reason for one in unsure if one.rule == "guard"]
    said += [] if incumbent and incumbent.name == CHAMPION else ["there was no champion"]
    said += [f"{len(kept)} guard{'s hold' if len(kept) > 1 else ' holds'}"] if kept else []
    said += ["a person decides"] if unsure else []
    return Decision(passed=True, reason="; ".join(said), comparisons=found, asks_person=bool(unsure))


def _comparisons(
    best: Evaluated, base: Evaluated, incumbent: Incumbent | None, rules: Rules, candidates: int
) -> Iterator[Comparison]:
    asked, called = at_its_best(base, rules.metric)
    beaten = [(called, asked)] + ([(incumbent.name, incumbent.found)] if incumbent else [])
    for name, other in beaten:
        yield comparisons.beats(
            rules.metric, rules.margin, name, best, other, least=rules.min_questions, candidates=candidates
        )
    guarded = [(BASE, base, rules.guards.base)]
    guarded += [(incumbent.name, incumbent.found, rules.guards.champion)] if incumbent else []
    for name, other, guards in guarded:
        for metric, tolerance in guards.items():
            yield comparisons.guard(metric, tolerance, name, best, other)


def at_its_best(base: Evaluated, metric: str) -> tuple[Evaluated, str]:
    """Return the base as it answers best by `metric`, bare or after worked examples, and what to
    call it.

    A base that was not tuned answers a bare question poorly; to beat it there proves little.
    """
    if paired_bootstrap.is_ratio(metric) or metric.startswith(TASKS):
        return base, BASE
    sign = -1 if paired_bootstrap.lower_is_better(metric) else 1
    ways = [(base, BASE)] + [
        (base.model_copy(update={"answers": rows}), f"{BASE}{WITH}{count} example{'' if count == 1 else 's'}")
        for count, rows in sorted(base.examples.items())
    ]

    def value(way: tuple[Evaluated, str]) -> float:
        scores = [paired_bootstrap.score(metric, row, base.prompt) for row in way[0].answers.values()]
        counted = [one for one in scores if one is not None]
        return sign * sum(counted) / len(counted) if counted else -math.inf

    return max(ways, key=value)
