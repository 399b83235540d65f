"""Check 2: some of the test's questions asked again of the export, and what changed against the
answers that the evaluation kept.

An answer that differs is asked of the registered files in the same way: where those say the same as
the export, the way of asking made the difference (another machine, another engine); else the export
did, and that is an error.
"""

from collections.abc import Callable, Sequence
from typing import Any

from flows.export import source as sources
from flows.export.plain import Found, Job
from flows.export.source import Source
from stages.common.core.records import Record
from stages.common.evaluation.grading import Grading
from stages.common.evaluation.question_prompts import said
from stages.common.runtime.errors import DataError
from stages.common.runtime.logs import log

Asks = Callable[[Job], Found]
REMEDY = "report it with the export's log: the format should not change an answer"


def jobs(source: Source, questions: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the questions as other programs ask them."""
    if source.prompt == "chat":
        return [
            {"messages": [{"role": one["role"], "content": one["content"] or ""} for one in row["messages"]]}
            for row in questions
        ]
    return [{"text": row["messages"][-1]["content"] + "\n"} for row in questions]


def check(source: Source, questions: Sequence[Record], found: Found, asks: Asks) -> dict[str, Any]:
    """Return how the export answers: counts, and accuracy before and after. Raises DataError for a
    prompt of other tokens, or an answer that the registered files do not give.
    """
    for row, ids in zip(questions, found["prompts"], strict=True):
        if ids != source.asked(row):
            what = f"question {row['id']} is asked in other tokens than the evaluation's"
            raise DataError(what, where=source.title, remedy=REMEDY)
    before = sources.kept(source, questions)
    after = {row["id"]: _answer(source, row, ids) for row, ids in zip(questions, found["answers"], strict=True)}
    differ = [
        row for row in questions if row["id"] not in before or before[row["id"]]["answer"] != after[row["id"]]["answer"]
    ]
    otherwise = _registered(source, differ, asks)
    for row in differ:
        given, meant = after[row["id"]]["answer"], otherwise[row["id"]]
        if given != meant:
            what = f"question {row['id']}: the export answers {given[:80]!r}, the registered model {meant[:80]!r}"
            raise DataError(what, where=source.title, remedy=REMEDY)
    changed = [row for row in differ if row["id"] in before]
    if changed:
        what = "%s of %s answers are not the evaluation's; the registered files answer as the export does"
        log.warning(what, len(changed), len(questions))
    _grade(source, changed if before else questions, after, before)
    return report(questions, before, after, len(changed))


def _registered(source: Source, differ: Sequence[Record], asks: Asks) -> dict[str, str]:
    """Return by question what the registered files answer, loaded and asked as the export was."""
    if not differ:
        return {}
    log.info("asking the registered files %s questions in the same way", len(differ))
    job = source.job(source.folder, None) | {"conversations": [], "weights": False, "eos": source.stops()}
    found = asks(job | {"questions": [{"ids": source.asked(row)} for row in differ]})
    pairs = zip(differ, found["answers"], strict=True)
    return {row["id"]: str(source.tokenizer.decode(ids, skip_special_tokens=True)) for row, ids in pairs}


def _answer(source: Source, row: Record, ids: Sequence[int]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "group": row["group"],
        "question": row["messages"][-1]["content"],
        "reference": row["reference"],
        "answer": str(source.tokenizer.decode(list(ids), skip_special_tokens=True)),
    }


def _grade(
    source: Source, asked: Sequence[Record], after: dict[str, dict[str, Any]], before: dict[str, dict[str, Any]]
) -> None:
    """Set `correct` of every answer: as it was graded before where it is the same."""
    for name, row in after.items():
        row["correct"] = before.get(name, {}).get("correct")
    rows = [after[row["id"]] for row in asked]
    if rows:
        Grading(source.settings.grader, source.settings.judge).grade(rows, source.prompt)


def report(
    questions: Sequence[Record], before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]], changed: int
) -> dict[str, Any]:
    """Return the check's figures; those of before are None without a kept evaluation."""
    return {
        "asked": len(questions),
        "compared_with": "kept evaluation" if before else "registered files",
        "equal": len(questions) - changed,
        "accuracy_before": accuracy(before),
        "accuracy_after": accuracy(after),
        "empty": sum(not said(row["answer"], "chat").strip() for row in after.values()),
    }


def accuracy(answers: dict[str, dict[str, Any]]) -> float | None:
    """Return the share of right answers among those that have a reference; None where none has."""
    graded = [bool(row["correct"]) for row in answers.values() if row.get("correct") is not None]
    return sum(graded) / len(graded) if graded else None


def told(found: dict[str, Any]) -> str:
    """Return the check's figures in a few words."""
    if not found["asked"]:
        return "no question asked"
    shares = [
        f"{value:.1%}" if value is not None else "none" for value in (found["accuracy_before"], found["accuracy_after"])
    ]
    return f"{found['equal']} of {found['asked']} answers equal, accuracy {shares[0]} before, {shares[1]} after"
