"""What a reviewer reads first: what became of each candidate and why, where each is surely better
or worse than the one put forward, and answers to questions on both sides.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.common.evaluation import compare
from stages.common.evaluation.metrics import Answer
from stages.common.evaluation.paired_bootstrap import Change, lower_is_better
from stages.common.evaluation.results import Evaluated
from stages.common.release import comparisons
from stages.common.release.gate import Choice, Decision
from stages.common.release.traffic.votes import Tally

ANSWERS = 3
"""Questions shown on each side."""
MARK = "<!-- the decision -->"
"""Where a page is to have it."""
TEMPLATE = Path(__file__).with_name("verdict.html.jinja")


@dataclass(frozen=True)
class Standing:
    """What became of a candidate, and where it is surely better and worse than the one put
    forward.
    """

    name: str
    outcome: str
    value: str
    why: str
    better: list[str] = field(default_factory=list)
    worse: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Pair:
    """A question that two candidates answer differently well."""

    group: str
    question: str
    reference: str
    ours: str
    theirs: str


@dataclass(frozen=True)
class Verdict:
    """The decision with what it rests on; `against` is whose answers stand beside the best's."""

    best: Evaluated
    outcome: str
    metric: str
    decision: Decision
    standings: Sequence[Standing]
    against: str = ""
    better: Sequence[Pair] = ()
    worse: Sequence[Pair] = ()
    votes: Sequence[Tally] = ()
    """Of people who compared it blind with a champion."""

    @property
    def value(self) -> str:
        """The metric that ranks, with its interval."""
        return measured(self.best, self.metric)


def of(
    candidates: Sequence[Evaluated],
    chosen: Choice,
    outcome: str,
    metric: str,
    against: str | None,
    votes: Sequence[Tally] = (),
) -> Verdict:
    """Return the verdict on who is put forward, beside the answers of candidate `against`, or where
    that is nobody or the best itself, of the next best one; and the `votes` on it.
    """
    best, sign = chosen.best, -1 if lower_is_better(metric) else 1
    others = [one for one in candidates if one.weights_sha256 != best.weights_sha256]
    others.sort(key=lambda one: -sign * one.metrics[metric])
    beside = next((one for one in others if one.candidate == against), next(iter(others), None))
    standings = [standing(one, best, chosen.judged, metric) for one in others]
    better, worse = pairs(best, beside) if beside else ([], [])
    name = "" if beside is None else beside.candidate
    return Verdict(best, outcome, metric, chosen.decision, standings, name, better, worse, votes)


def standing(one: Evaluated, best: Evaluated, judged: Mapping[str, Decision], metric: str) -> Standing:
    """Return what became of a candidate that was not put forward."""
    decision = judged.get(one.candidate)
    if decision is None:
        outcome, why = "base", "what the others are compared with"
    elif decision.passed:
        ours, theirs = comparisons.value(one.metrics[metric], metric), comparisons.value(best.metrics[metric], metric)
        outcome, why = "passed", f"{metric} {ours} against {best.candidate}'s {theirs}"
    else:
        outcome, why = "refused", decision.reason
    better, worse = places(one, best) if decision else ([], [])
    return Standing(one.candidate, outcome, comparisons.value(one.metrics[metric], metric), why, better, worse)


def places(one: Evaluated, best: Evaluated) -> tuple[list[str], list[str]]:
    """Return where a candidate is surely better than the best one, and where surely worse."""
    better: list[str] = []
    worse: list[str] = []
    for name, change in compare.changes(one, best).items():
        sign = _sign(name, change)
        after, before = comparisons.value(change.after, name), comparisons.value(change.before, name)
        said = f"{name.removeprefix('accuracy/')} {after} against {before}"
        if sign:
            (better if sign > 0 else worse).append(said)
    return better, worse


def pairs(best: Evaluated, other: Evaluated) -> tuple[list[Pair], list[Pair]]:
    """Return questions that the best one answers better, and such that it answers worse, by the
    rules that rank answers; drawn by hash.
    """
    found = sorted(compare.compared(best, other), key=lambda pair: hashlib.sha256(pair[0]["id"].encode()).digest())
    better = [_pair(*pair) for pair in found if pair[0]["grade"] > pair[1]["grade"]]
    worse = [_pair(*pair) for pair in found if pair[0]["grade"] < pair[1]["grade"]]
    return better[:ANSWERS], worse[:ANSWERS]


def measured(one: Evaluated, name: str) -> str:
    """Return a candidate's metric with its interval, shares in percent; "" for one it lacks."""
    if name not in one.metrics:
        return ""
    value = comparisons.value(one.metrics[name], name)
    if name not in one.intervals:
        return value
    low, high = (comparisons.value(end, name) for end in one.intervals[name])
    return f"{value} [{low}, {high}]"


def on_page(page: str, verdict: Verdict) -> str:
    """Return a page with the verdict where it is to have one."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    section = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(verdict=verdict)
    return page.replace(MARK, section, 1)


def as_json(judged: Mapping[str, Decision]) -> dict[str, dict[str, Any]]:
    """Return what was decided on each candidate as the promotion's report holds it."""
    return {name: {"passed": one.passed, "reason": one.reason} for name, one in judged.items()}


def _sign(name: str, change: Change) -> int:
    """Return 1 for a change that is surely for the better, -1 for the worse, 0 for neither."""
    same = 1.0 if name.startswith("perplexity/") else 0.0
    sign = (change.low > same) - (change.high < same)
    return -sign if lower_is_better(name) else sign


def _pair(ours: Answer, theirs: Answer) -> Pair:
    return Pair(ours["group"], ours["question"], ours["reference"] or "", ours["said"], theirs["said"])
