"""What the sections of the review page show, each a pure function of evaluations; page.html.jinja
sets it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from stages.common.evaluation.compare import Wins, compared
from stages.common.evaluation.results import Evaluated
from stages.common.report import charts
from stages.common.report.charts import Point
from stages.common.text.rule_grader import Indicator

Facts = dict[str, Any]

JUDGES = ("rules", "reward", "judge")
BEHAVIOUR = {
    "refusal/due": "refused where due",
    "refusal/false": "refused where not due",
    "unsure/due": "admits ignorance where due",
    "unsure/false": "unsure where not due",
    "distinct/1": "distinct-1",
    "distinct/2": "distinct-2",
    "length/units": "length, words or characters",
    "reward": "mean reward",
}


def page(candidates: Sequence[Evaluated], wins: Mapping[str, Mapping[str, Wins]], per_group: int, **more: Any) -> str:
    """Return the page: what the candidates and their win rates say, and what else the template asks
    for.
    """
    import jinja2

    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=folder, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    colours = charts.colours([one.candidate for one in candidates])
    return environment.get_template("page.html.jinja").render(
        candidates=candidates,
        colours=colours,
        others={name: colours[name] for name in wins},
        judges=JUDGES,
        wins=wins,
        won=won(wins, colours),
        accuracy=accuracy(candidates, colours),
        shots=worked_examples(candidates, colours),
        tasks=_names(candidates, "lm_eval/", depth=9),
        behaviour={key: label for key, label in BEHAVIOUR.items() if any(key in one.metrics for one in candidates)},
        examples=examples(candidates, per_group),
        **more,
    )


def accuracy(evaluations: Sequence[Evaluated], colours: Mapping[str, str]) -> Facts:
    """Return the groups, and their accuracy as a chart."""
    names = _names(evaluations, "accuracy/", depth=2)
    series = {one.candidate: _points(one, {name.partition("/")[2]: name for name in names}) for one in evaluations}
    groups = [name.removeprefix("accuracy/") for name in names]
    return {"groups": groups, "chart": charts.dots(series, colours) if names else ""}


def worked_examples(evaluations: Sequence[Evaluated], colours: Mapping[str, str]) -> Facts:
    """Return groups, numbers of worked examples, and accuracy over them, a chart a group."""
    names = _names(evaluations, "shots-", depth=2)
    groups = list(dict.fromkeys(name.partition("/")[2] for name in names))
    counts = sorted({int(name.removeprefix("shots-").partition("/")[0]) for name in names})
    drawn = [
        charts.lines(
            {one.candidate: _points(one, {n: f"shots-{n}/{group}" for n in counts}) for one in evaluations},
            colours,
            group,
        )
        for group in (groups if len(counts) > 1 else [])
    ]
    return {"groups": groups, "counts": counts, "charts": drawn}


def won(wins: Mapping[str, Mapping[str, Wins]], colours: Mapping[str, str]) -> dict[str, Markup]:
    """Return a chart of the win rates by group for each judge that there is."""
    found = {}
    for judge in JUDGES:
        series = {
            candidate: [_won(name, one) for name, one in rates.items() if name.startswith(judge)]
            for candidate, rates in wins.items()
        }
        if any(series.values()):
            found[judge] = charts.dots(series, colours, mark=0.5)
    return found


def examples(evaluations: Sequence[Evaluated], per_group: int) -> Facts:
    """Return questions at which the candidates differ, `per_group` of each group, chosen by
    hash.
    """
    first, *others = evaluations
    grades: dict[str, dict[str, tuple[str, list[Indicator]]]] = {}
    for other in others:
        for ours, theirs in compared(other, first):
            cells = grades.setdefault(ours["id"], {first.candidate: (theirs["said"], theirs["indicators"])})
            cells[other.candidate] = (ours["said"], ours["indicators"])
    differing = [name for name, cells in grades.items() if len({tuple(found) for _, found in cells.values()}) > 1]
    shown: dict[str, list[str]] = {}
    for name in sorted(differing, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        shown.setdefault(str(first.answers[name]["group"]), []).append(name)
    rows = [(first.answers[name], grades[name]) for _, names in sorted(shown.items()) for name in names[:per_group]]
    return {"rows": rows, "differing": len(differing), "asked": len(grades)}


def _names(evaluations: Sequence[Evaluated], prefix: str, depth: int) -> list[str]:
    found = dict.fromkeys(name for one in evaluations for name in one.metrics if name.startswith(prefix))
    return [name for name in found if name.count("/") < depth]


def _points(one: Evaluated, places: Mapping[Any, str]) -> list[Point]:
    return [Point(at, one.metrics[name], *one.intervals[name]) for at, name in places.items() if name in one.metrics]


def _won(name: str, one: Wins) -> Point:
    return Point(name.partition("/")[2] or "all", one.rate, one.low, one.high)
