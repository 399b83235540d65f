"""The sections of the review page, each a pure function of evaluations."""

import hashlib
from collections.abc import Mapping, Sequence

from stages.common.evaluation.compare import Wins, compared
from stages.common.evaluation.paired_bootstrap import Change
from stages.common.evaluation.results import Evaluated
from stages.common.report import charts, layout
from stages.common.report.charts import Point
from stages.common.report.layout import text
from stages.common.text.rule_grader import Indicator

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
MARKED = " The base model is asked with marked questions (Q: ... A: ...) throughout, the others with turns."


def lead(against: str, wins: Mapping[str, Mapping[str, Wins]]) -> str:
    """Return the sentences that a reader in a hurry gets."""
    lines = []
    for candidate, found in wins.items():
        for judge in ("rules", "reward"):
            if judge in found:
                one = found[judge]
                verdict = "beats" if one.low > 0.5 else "loses to" if one.high < 0.5 else "is not told from"
                rate = layout.share(one.rate, (one.low, one.high))
                lines.append(f"<b>{text(candidate)}</b> {verdict} {text(against)} by {judge}: {rate}")
    return f'<p class="lead">{"<br>".join(lines)}</p>' if lines else ""


def accuracy(evaluations: Sequence[Evaluated]) -> str:
    """Return exact-match accuracy by group: chart and table."""
    names = _names(evaluations, "accuracy/", depth=2)
    series = {one.candidate: _points(one, names) for one in evaluations}
    drawn = charts.legend(list(series)) + charts.dots(series, 0.0, 1.0) if names else ""
    rows = [[text(name.removeprefix("accuracy/")), *(_share(one, name) for one in evaluations)] for name in names]
    return drawn + layout.table(["group", *_heads(evaluations)], rows)


def worked_examples(evaluations: Sequence[Evaluated]) -> str:
    """Return accuracy over the number of worked examples, a chart a group, and the table."""
    names = _names(evaluations, "shots-", depth=2)
    groups = list(dict.fromkeys(name.partition("/")[2] for name in names))
    counts = sorted({int(name.removeprefix("shots-").partition("/")[0]) for name in names})
    if len(counts) < 2:
        return ""
    drawn = [
        charts.lines({one.candidate: _over_shots(one, group, counts) for one in evaluations}, group) for group in groups
    ]
    rows = [
        [text(group), str(count), *(_share(one, f"shots-{count}/{group}") for one in evaluations)]
        for group in groups
        for count in counts
    ]
    charted = f'{charts.legend([one.candidate for one in evaluations])}<div class="row">{"".join(drawn)}</div>'
    head = ["group", "examples", *_heads(evaluations)]
    note = f"<p>Exact match after 0, 1 or more worked examples from the training conversations.{MARKED}</p>"
    return note + charted + layout.details("as a table", layout.table(head, rows))


def win_rates(against: str, wins: Mapping[str, Mapping[str, Wins]]) -> str:
    """Return the win rates against one candidate: chart by group, table by judge."""
    parts = []
    for judge in ("rules", "reward"):
        series = {
            candidate: [_won(name, one) for name, one in found.items() if name.startswith(judge)]
            for candidate, found in wins.items()
        }
        if any(series.values()):
            parts.append(f"<h3>by {judge}</h3>{charts.legend(list(series))}{charts.dots(series, 0.0, 1.0, mark=0.5)}")
    rows = [
        [
            text(candidate),
            text(name),
            layout.share(one.rate, (one.low, one.high)),
            *map(str, (one.wins, one.ties, one.losses)),
        ]
        for candidate, found in wins.items()
        for name, one in found.items()
    ]
    note = (
        f"<p>Against {text(against)} on the same questions; a tie counts one half, and intervals resample questions. "
        "Rules: the indicators that rank answers. Right comes before right with words around it, then admitted "
        "ignorance, then wrong, then a refusal that was due and is missing; loops and rudeness count against.</p>"
    )
    found = layout.table(["candidate", "judge and group", "win rate", "wins", "ties", "losses"], rows)
    return note + "".join(parts) + layout.details("as a table", found) if rows else ""


def behaviour(evaluations: Sequence[Evaluated]) -> str:
    """Return refusals, ignorance, variety and length."""
    rows = []
    for name, label in BEHAVIOUR.items():
        cell = _share if name.startswith(("refusal", "unsure")) else _number
        if any(name in one.metrics for one in evaluations):
            rows.append([label, *(cell(one, name) for one in evaluations)])
    return layout.table(["", *_heads(evaluations)], rows)


def forgetting(changes: Mapping[tuple[str, str], Mapping[str, Change]]) -> str:
    """Return the change since the stage before: differences of accuracy, ratios of perplexity."""
    rows = []
    for (candidate, before), found in changes.items():
        for name, one in found.items():
            rows.append([f"{text(candidate)} since {text(before)}", text(name), *_changed(name, one)])
    note = "<p>Paired on the same questions and texts. Accuracy: difference; perplexity: ratio, above 1 is worse.</p>"
    return note + layout.table(["stage", "measure", "before", "after", "change", ""], rows) if rows else ""


def examples(evaluations: Sequence[Evaluated], per_group: int) -> str:
    """Return questions at which the candidates differ, `per_group` of each group, chosen by hash."""
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
    rows = [
        [text(group), text(first.answers[name]["question"]), text(first.answers[name]["reference"] or "")]
        + [_answered(*grades[name][one.candidate]) if one.candidate in grades[name] else "" for one in evaluations]
        for group, names in sorted(shown.items())
        for name in names[:per_group]
    ]
    note = f"<p>{len(differing):,} of {len(grades):,} questions tell the candidates apart; drawn from them by hash.</p>"
    return note + layout.table(["group", "question", "reference", *_heads(evaluations)], rows) if rows else ""


def _answered(said: str, found: list[Indicator]) -> str:
    sign = "good" if found == ["right"] else "bad"
    return f'<b class="{sign}">{text(", ".join(found).replace("_", " "))}</b>: {text(said, 160)}'


def _changed(name: str, one: Change) -> list[str]:
    interval = (one.low, one.high)
    if name.startswith("accuracy/"):
        sign = "good" if one.low > 0 else "bad" if one.high < 0 else ""
        shown = layout.share(one.change, interval, sign="+")
        return [layout.share(one.before), layout.share(one.after), shown, _verdict(sign)]
    sign = "good" if one.high < 1 else "bad" if one.low > 1 else ""
    return [layout.number(one.before), layout.number(one.after), layout.number(one.change, interval), _verdict(sign)]


def _verdict(sign: str) -> str:
    words = {"good": "better", "bad": "worse", "": "no clear change"}
    return f'<span class="{sign}">{words[sign]}</span>'


def _names(evaluations: Sequence[Evaluated], prefix: str, depth: int) -> list[str]:
    found = dict.fromkeys(name for one in evaluations for name in one.metrics if name.startswith(prefix))
    return [name for name in found if name.count("/") < depth]


def _heads(evaluations: Sequence[Evaluated]) -> list[str]:
    return [text(one.candidate) for one in evaluations]


def _points(one: Evaluated, names: Sequence[str]) -> list[Point]:
    return [
        Point(name.partition("/")[2], one.metrics[name], *one.intervals[name]) for name in names if name in one.metrics
    ]


def _over_shots(one: Evaluated, group: str, counts: Sequence[int]) -> list[Point]:
    named = {count: f"shots-{count}/{group}" for count in counts}
    return [Point(n, one.metrics[name], *one.intervals[name]) for n, name in named.items() if name in one.metrics]


def _won(name: str, one: Wins) -> Point:
    return Point(name.partition("/")[2] or "all", one.rate, one.low, one.high)


def _share(one: Evaluated, name: str) -> str:
    return layout.share(one.metrics[name], one.intervals.get(name)) if name in one.metrics else ""


def _number(one: Evaluated, name: str) -> str:
    return layout.number(one.metrics[name], one.intervals.get(name)) if name in one.metrics else ""
