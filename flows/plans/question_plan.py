"""Whether the test has the questions that the gate's rules need: how many a guard asks for, how
small a gain is seen.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stages import promote
from stages.common.core import left_out
from stages.common.evaluation import paired_bootstrap, paired_proportions
from stages.common.release import comparisons

EVALUATIONS, PROMOTION = Path("reports/evaluate"), Path("reports/promote.json")
DIFFERING = 0.1
"""Share of questions that two candidates answer differently, until a promotion has measured it."""


class Planned(NamedTuple):
    """One rule of the gate on shares: `asked` questions decide it, `there` are known."""

    metric: str
    rule: str
    asked: int | None
    """Of a guard: so many tell equals from losers, in 80 % of all runs."""
    there: int | None
    """None before anything was evaluated."""
    sees: float | None
    """The gain, or the loss, that those there show in 80 % of all runs."""
    differing: float
    measured: bool


def competing(base: str, named: Collection[str]) -> int:
    """Return how many candidates share the error: those that were evaluated and not left out, or
    before that the `named` ones of dvc.yaml.
    """
    found = [file.parent.name for file in EVALUATIONS.glob("*/metrics.json") if left_out.KEY not in _read(file)]
    return sum(name != base for name in found or named)


def plans(settings: promote.Params, candidates: int) -> Iterator[Planned]:
    """Yield every rule of section `promote` that compares shares, with the questions it needs.

    `candidates` share the error of the rule that ranks them.
    """
    counts, shares = _counts(), _differing()
    if _is_share(settings.metric):
        side = paired_proportions.SIDE / max(1, candidates)
        yield _planned(settings.metric, "beats", None, counts, shares.get(("beats", settings.metric)), side)
    tolerances: dict[str, float] = {}
    for guards in (settings.guards.base, settings.guards.champion):  # the champion's are the closer ones
        tolerances |= guards
    for metric, tolerance in tolerances.items():
        if _is_share(metric):
            share = shares.get(("guard", metric))
            yield _planned(metric, "guard", tolerance, counts, share, comparisons.GUARD)


def _planned(
    metric: str, rule: str, tolerance: float | None, counts: Mapping[str, int], share: float | None, side: float
) -> Planned:
    differing, there = DIFFERING if share is None else share, counts.get(metric)
    asked = paired_proportions.questions(tolerance, differing, side) if tolerance else None
    sees = paired_proportions.seen(there, differing, side) if there else None
    return Planned(metric, rule, asked, there, sees, differing, share is not None)


def _is_share(metric: str) -> bool:
    return metric.partition("/")[0] == "accuracy" or metric.partition("/")[0] in paired_bootstrap.BEHAVIOURS


def _counts() -> dict[str, int]:
    """Return how many questions each metric rests on, of the first candidate that was evaluated."""
    for file in sorted(EVALUATIONS.glob("*/metrics.json")):
        if counts := _read(file).get("counts"):
            return dict(counts)
    return {}


def _differing() -> dict[tuple[str, str], float]:
    """Return the share of questions answered differently, by rule and metric, of the last
    promotion; none below one question.
    """
    found: dict[tuple[str, str], float] = {}
    for one in _read(PROMOTION).get("comparisons", []):
        change = one["change"] or {}
        if change.get("gained") is not None and not one["against"].startswith(comparisons.BASE):
            found[one["rule"], one["metric"]] = max(1, change["gained"] + change["lost"]) / change["count"]
    return found


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}
