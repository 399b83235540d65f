"""The gate: which candidate is best, whether it may become champion, and why, as pure functions of
evaluations.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt

from stages.common.core import params
from stages.common.evaluation import paired_bootstrap
from stages.common.evaluation.results import Evaluated
from stages.common.release import comparisons
from stages.common.release.comparisons import Comparison, Side
from stages.common.runtime.errors import DataError

Approval = Literal["auto", "manual"]


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


class Decision(BaseModel):
    """Whether the candidate may become champion, by which rules, and why, with the numbers."""

    model_config = ConfigDict(frozen=True)

    passed: bool
    reason: str
    comparisons: tuple[Comparison, ...] = ()
    asks_person: bool = False
    """Too little to judge by: whatever `approval` says, it waits for a person."""


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
        held = [comparisons.guard(name, limit, "base", one, bases[0]) for name, limit in (guards or {}).items()]
        return all(guard.passed or guard.too_few for guard in held), sign * one.metrics[metric]

    return max(others, key=worth), bases[0]


def decide(best: Evaluated, base: Evaluated, champion: Evaluated | None, rules: Rules, candidates: int = 1) -> Decision:
    """Return the decision on the best of so many `candidates`: surely better than base and
    champion, and surely no worse anywhere than is allowed.

    All rules are looked at, and every broken one is named. Where none is broken, but the questions
    are too few to be sure, a person decides: about a first champion that is better, about guards
    that may have been broken by chance.
    """
    found = tuple(_comparisons(best, base, champion, rules, candidates))
    unsure = [one for one in found if one.too_few]
    if any(not one.passed and not one.too_few for one in found) or (
        champion and any(one.rule == "beats" for one in unsure)
    ):
        broken = "; ".join(one.reason for one in found if not one.passed)
        return Decision(passed=False, reason=broken, comparisons=found)
    kept = [one for one in found if one.rule == "guard" and one.passed]
    said = [one.reason for one in found if one.rule == "beats"]
    said += [one.reason for one in unsure if one.rule == "guard"]
    said += [] if champion else ["there was no champion"]
    said += [f"{len(kept)} guard{'s hold' if len(kept) > 1 else ' holds'}"] if kept else []
    said += ["a person decides"] if unsure else []
    return Decision(passed=True, reason="; ".join(said), comparisons=found, asks_person=bool(unsure))


def _comparisons(
    best: Evaluated, base: Evaluated, champion: Evaluated | None, rules: Rules, candidates: int
) -> Iterator[Comparison]:
    sides: list[tuple[Side, Evaluated, dict[str, float]]] = [("base", base, rules.guards.base)]
    if champion:
        sides.append(("champion", champion, rules.guards.champion))
    for side, other, _ in sides:
        yield comparisons.beats(
            rules.metric, rules.margin, side, best, other, least=rules.min_questions, candidates=candidates
        )
    for side, other, guards in sides:
        for metric, tolerance in guards.items():
            yield comparisons.guard(metric, tolerance, side, best, other)
