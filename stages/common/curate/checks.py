"""Why a record is left out: one question each, asked of a Document, answered by a reason or nothing."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from datatrove.data import Document

from stages.common import faults
from stages.common.curate import contamination, heuristics, members, quality, splits, talk
from stages.common.records import Shape


def faulty(doc: Document, shape: Shape, rules: talk.TalkRules) -> str:
    """Return what is wrong with the record by itself: empty, cut, out of order, contradicting itself."""
    return faults.fault(shape, doc.metadata["record"]) or talk.fault(shape, doc.metadata["record"], rules)


def foreign(doc: Document, languages: list[str]) -> str:
    """Return `other_language` for a document in none of `languages`; one too short to tell stays."""
    return "other_language" if languages and doc.metadata["language"] not in [*languages, "und"] else ""


def unfit(doc: Document, rules: heuristics.Rules) -> str:
    """Return why a document does not read like text: gibberish, spam, repetition, boilerplate."""
    return heuristics.fault(doc.text, doc.metadata["language"], rules)


def poor(doc: Document, settings: quality.Quality) -> str:
    """Return `low_quality` for a document of an untrusted source that the Pareto rule does not keep."""
    if doc.metadata["trusted"]:
        return ""
    return "" if quality.keeps(doc.text, doc.metadata["score"], settings.alpha) else "low_quality"


def leaked(doc: Document, shape: Shape, index: contamination.Index) -> str:
    """Return `leaked_question` for a record that holds a test question; metadata["of"] names it."""
    question = contamination.find(index, shape, doc.metadata["record"])
    if question:
        doc.metadata["of"] = question
    return "leaked_question" if question else ""


def serving(doc: Document, shape: Shape, others: Mapping[Shape, Path]) -> str:
    """Return `serves_<shape>` for a record whose prompt already serves one of the `others` (their prompts, merged)."""
    prompt = np.array([splits.value(shape, doc.metadata["record"])], np.uint64)
    return next(
        (f"serves_{other}" for other, file in others.items() if members.contains(_members(file), prompt)[0]), ""
    )


@cache
def _members(file: Path) -> members.Keys:
    return members.load(file)
