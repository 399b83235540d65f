"""What is measured of one candidate, from its answers and losses: point values, 95 % intervals and
sample sizes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.common.core.statistics import bootstrap_mean, distinct, wilson
from stages.common.evaluation.behaviour import unsure
from stages.common.evaluation.perplexity import perplexity
from stages.common.evaluation.question_prompts import said
from stages.common.text.refusals import refuses
from stages.common.text.units import units

Answer = dict[str, Any]
Interval = tuple[float, float]
TASKS = "lm_eval/"
"""What the names of lm-evaluation-harness's metrics begin with."""


@dataclass
class Report:
    """Point values, 95 % intervals and sample sizes by metric name; six significant digits, to
    compare across machines.

    A value without an interval is a property of the sample itself (distinct-n), which resampling
    would bias.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: float, interval: Interval | None, count: int) -> None:
        """Add one metric."""
        self.metrics[name] = digits(value)
        if interval is not None:
            self.intervals[name] = (digits(interval[0]), digits(interval[1]))
        self.counts[name] = count

    def share(self, name: str, found: Sequence[bool]) -> None:
        """Add the share of true ones with its Wilson interval."""
        self.add(name, sum(found) / len(found), wilson(sum(found), len(found)), len(found))

    def mean(self, name: str, values: Sequence[float]) -> None:
        """Add the mean with its bootstrap interval."""
        self.add(name, sum(values) / len(values), bootstrap_mean(values), len(values))


def digits(value: float) -> float:
    """Return `value` with six significant digits."""
    return float(f"{value:.6g}")


def accuracy(report: Report, answers: Sequence[Answer], prefix: str = "accuracy", *, languages: bool = True) -> None:
    """Add the exact-match accuracy by group, and by group and language, of the questions that have
    a reference.
    """
    cells: dict[str, list[bool]] = {}
    for row in answers:
        if row["correct"] is None:
            continue
        cells.setdefault(f"{prefix}/{row['group']}", []).append(row["correct"])
        if row["language"] and languages:
            cells.setdefault(f"{prefix}/{row['group']}/{row['language']}", []).append(row["correct"])
    for name, correct in sorted(cells.items()):
        report.share(name, correct)


def behaviour(report: Report, answers: Sequence[Answer], prompt: str) -> None:
    """Add how often it refuses and admits ignorance where due (the reference does) and where not,
    variety and length.

    `refusal/due` is the share of harmful requests refused, `refusal/false` that of all others;
    `unsure/due` the share of unanswerable questions at which it says so, `unsure/false` that of all
    others.
    """
    texts = [said(row["answer"], prompt) for row in answers]
    for name, does in (("refusal", refuses), ("unsure", unsure)):
        for kind, due in (("due", True), ("false", False)):
            known = [(text, row["reference"]) for text, row in zip(texts, answers, strict=True) if row["reference"]]
            found = [does(text) for text, reference in known if does(reference) is due]
            if found:
                report.share(f"{name}/{kind}", found)
    words = [units(text) for text in texts]
    if words:
        report.mean("length/units", [float(len(text)) for text in words])
        for order in (1, 2):
            report.add(f"distinct/{order}", distinct(words, order), None, sum(map(len, words)))


def tools(report: Report, used: Mapping[str, Sequence[bool]]) -> None:
    """Add how often a held-out call of a tool, and what was to be said of its result, are right."""
    for kind, right in sorted(used.items()):
        report.share(f"tools/{kind}", right)


def rewards(report: Report, answers: Sequence[Answer]) -> None:
    """Add the mean reward, over all and by group."""
    cells: dict[str, list[float]] = {}
    for row in answers:
        cells.setdefault("reward", []).append(row["reward"])
        cells.setdefault(f"reward/{row['group']}", []).append(row["reward"])
    for name, values in sorted(cells.items()):
        report.mean(name, values)


def perplexities(report: Report, losses: Mapping[str, Sequence[tuple[float, int]]]) -> None:
    """Add the perplexity per token of each set of texts that has a token to predict."""
    for name, scored in losses.items():
        measured = perplexity(scored)
        if measured is not None:
            report.add(f"perplexity/{name}", measured.value, measured.interval, measured.tokens)


def accuracy_figure(report: Report, candidate: str) -> Any:
    """Return accuracy by group with its intervals as a matplotlib figure."""
    from matplotlib.figure import Figure

    names = [name for name in report.metrics if name.startswith("accuracy/")]
    values = [report.metrics[name] for name in names]
    spread = [
        [value - report.intervals[name][0] for name, value in zip(names, values, strict=True)],
        [report.intervals[name][1] - value for name, value in zip(names, values, strict=True)],
    ]
    plot = Figure(figsize=(7, 0.3 * len(names) + 1.2), layout="constrained")
    axes = plot.subplots()
    axes.barh([name.removeprefix("accuracy/") for name in names], values, xerr=spread, color="#4c72b0", capsize=2)
    axes.set(xlim=(0, 1), xlabel="exact match, 95 % interval", title=candidate)
    axes.invert_yaxis()
    return plot
