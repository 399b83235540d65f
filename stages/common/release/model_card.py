"""The model card that a reviewer reads on the version's page, and beside the reports."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stages.common.evaluation import paired_bootstrap
from stages.common.evaluation.results import Evaluated
from stages.common.release import provenance
from stages.common.release.gate import Decision
from stages.common.release.provenance import Record

PARAMS_SHOWN = 40
SHAPES = ("documents", "conversations", "comparisons", "prompts", "questions")


@dataclass(frozen=True)
class Card:
    """What a card is made of; `before` is the record of the champion it was compared with, empty without one."""

    candidates: Sequence[Evaluated]
    best: Evaluated
    decision: Decision
    outcome: str
    metric: str
    record: Record
    before: Record


def write(card: Card) -> str:
    """Return the card in Markdown: the decision first, for MLflow shows the beginning of a long one."""
    value = card.best.metrics[card.metric]
    low, high = card.best.intervals.get(card.metric, (value, value))
    head = f"# {card.best.candidate}: {card.metric} {value:.4g} (95 % interval {low:.4g} to {high:.4g})"
    parts = [
        [head, "", f"**{card.outcome}**: {card.decision.reason}."],
        ["## The gate", "", *_gate(card)],
        ["## Evaluation", "", *_evaluation(card)],
        ["## Limits", "", *_limits(card)],
        ["## Data", "", *_data(card.record)],
        ["## Parameters that differ from the champion's", "", *_parameters(card)],
        ["## How to reproduce", "", *_reproduce(card)],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _gate(card: Card) -> Iterator[str]:
    yield "| rule | against | before | after | change, 95 % interval | limit | on | |"
    yield "|---|---|---:|---:|---:|---:|---:|---|"
    for one in card.decision.comparisons:
        verdict = "holds" if one.passed else "**broken**"
        if one.change is None:
            yield f"| {one.rule} {one.metric} | {one.against} | | | not comparable | {one.limit:g} | 0 | {verdict} |"
            continue
        found, sign = one.change, "x" if paired_bootstrap.is_ratio(one.metric) else ""
        moved = f"{sign}{found.change:.4g} [{found.low:.4g}, {found.high:.4g}]"
        numbers = f"{found.before:.4g} | {found.after:.4g} | {moved} | {one.limit:g} | {found.count}"
        yield f"| {one.rule} {one.metric} | {one.against} | {numbers} | {verdict} |"


def _evaluation(card: Card) -> Iterator[str]:
    names = [name for name in card.best.metrics if name.count("/") <= 1 and not name.startswith("shots-")]
    names.sort(key=lambda name: name != card.metric)
    yield "| metric | " + " | ".join(one.candidate for one in card.candidates) + " |"
    yield "|---|" + "---:|" * len(card.candidates)
    for name in names:
        yield f"| {name} | " + " | ".join(_cell(one, name) for one in card.candidates) + " |"


def _cell(one: Evaluated, name: str) -> str:
    if name not in one.metrics:
        return ""
    value = f"{one.metrics[name]:.4g}"
    if name not in one.intervals:
        return value
    low, high = one.intervals[name]
    return f"{value} [{low:.4g}, {high:.4g}]"


def _limits(card: Card) -> Iterator[str]:
    others = len(card.candidates) - 1
    yield f"- Measured on the questions and texts of test `{card.best.test_sha256[:16]}` only; beyond them is unknown."
    yield f"- The best of {others} candidates by the same questions it is tested on: its value is a little too high."
    small = [
        f"{name} ({count})"
        for name, count in card.best.counts.items()
        if count < 100 and name.startswith("accuracy/") and name.count("/") == 1
    ]
    if small:
        yield f"- Few questions, so a wide interval: {', '.join(small)}."
    failed = card.record["validation"].get("failed", {})
    for name, rule in failed.items():
        yield f"- Expectation not met ({rule['severity']}): {name}, {rule['unexpected']} records."


def _data(record: Record) -> Iterator[str]:
    validation = record["validation"]
    if validation:
        yield f"{validation['expectations']} expectations, {len(validation['failed'])} not met."
        yield ""
    yield "| shape | raw | kept | train | validation |"
    yield "|---|---:|---:|---:|---:|"
    for shape in (name for name in SHAPES if name in record["counts"]):
        facts = record["counts"][shape]
        splits = facts.get("splits", {})
        cells = [facts.get("rows", ""), facts.get("kept", ""), splits.get("train", ""), splits.get("validation", "")]
        yield f"| {shape} | " + " | ".join(str(cell) for cell in cells) + " |"
    yield ""
    yield from (f"- `{place}` {value}" for place, value in record["data"].items())


def _parameters(card: Card) -> Iterator[str]:
    if not card.before:
        yield "There was no champion to compare with."
        return
    rows = provenance.changed(card.before["params"], card.record["params"])
    if not rows:
        yield "None."
        return
    yield "| parameter | champion | this version |"
    yield "|---|---|---|"
    yield from (f"| {key} | {_inline(old)} | {_inline(new)} |" for key, old, new in rows[:PARAMS_SHOWN])
    if len(rows) > PARAMS_SHOWN:
        yield f"| and {len(rows) - PARAMS_SHOWN} more | | |"


def _inline(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _reproduce(card: Card) -> Iterator[str]:
    changes = "" if card.record["patch"] == "" else ", with the changes kept in lineage.json"
    yield f"`make reproduce` with this version's number, or by hand: commit `{card.record['git_commit']}`{changes},"
    yield f"`dvc repro {card.record['stage'] or card.best.candidate}`."
    yield ""
    yield f"- Weights SHA-256 `{card.best.weights_sha256}` in `{card.best.model.as_posix()}`"
    yield f"- Test questions SHA-256 `{card.best.questions_sha256}`"
    yield f"- Pipeline state `{card.record['dag']}`: {', '.join(reversed(card.record['stages'])) or 'not from DVC'}"
