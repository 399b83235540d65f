"""Why a record is left out: the questions it is asked, the datatrove step that drops by their
answers, the writer that keeps every drop aside and counts it.

A question is a function of a Document; its answer is a reason, or nothing.
"""

import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.writers import JsonlWriter

from stages.common.core.records import Record, Shape
from stages.common.curate import record_counts, splits
from stages.common.curate.dedup import key_sets
from stages.common.curate.filters import contamination, conversation_checks, heuristics, quality_classifier
from stages.common.curate.record_counts import Tally
from stages.common.text import record_checks


class Drops(JsonlWriter):
    """Keeps what a filter drops in `<folder>/<reason>/<shape>-<task>.jsonl`, and counts it by
    source and reason.
    """

    def __init__(self, folder: Path, shape: Shape, counts: Path) -> None:
        super().__init__(str(folder), f"${{filter_reason}}/{shape}-${{rank}}.jsonl", compression=None)
        self.folder, self.shape, self.counts, self.counted = folder, shape, counts, Tally()
        self.rank = 0
        self.names: set[str] = set()

    def _get_output_filename(self, document: Document, rank: int | str = 0, **kwargs: object) -> str:
        """Return a name of this process's own; `close` gives the file its own."""
        return f"{super()._get_output_filename(document, rank, **kwargs)}.{os.getpid()}"

    def write(self, document: Document, rank: int = 0, **_: object) -> None:
        """Write and count one dropped record."""
        self.rank = rank
        self.names.add(self._get_output_filename(document, rank))
        super().write(document, rank)
        self.counted["dropped", document.metadata["record"]["source"], document.metadata["filter_reason"]] += 1

    def _default_adapter(self, document: Document) -> Record:
        """Return a line: why, what of (a duplicate's original, a test question), and the record."""
        known = document.metadata
        head = {"reason": known["filter_reason"], "shape": self.shape}
        return head | ({"of": known["of"]} if "of" in known else {}) | known.get("raw", known["record"])

    def close(self) -> None:
        """Close the files, give them their names and save the counts."""
        super().close()
        for name in self.names:
            own = self.folder / name
            own.replace(own.with_suffix(""))
        self.names.clear()
        if self.counted:
            record_counts.save(self.counted, self.counts, self.rank)


class Drop(PipelineStep):
    """Drops the records for which `check` gives a reason, and keeps them aside.

    Not a BaseFilter, which spends more time on a document's statistics than most checks on the
    document.
    """

    type = "FILTER"

    def __init__(self, name: str, check: Callable[[Document], str], aside: Drops) -> None:
        super().__init__()
        self.name, self.check, self.aside = name, check, aside

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yield the Documents that stay; the others are written with metadata["filter_reason"]."""
        total = dropped = 0
        with self.aside as aside:
            for doc in data:
                total += 1
                reason = self.check(doc)
                if not reason:
                    yield doc
                    continue
                dropped += 1
                doc.metadata["filter_reason"] = reason
                aside.write(doc, rank)
        self.stat_update("total", value=total)
        self.stat_update("dropped", value=dropped)


def faulty(doc: Document, shape: Shape, rules: conversation_checks.TalkRules) -> str:
    """Return what is wrong with the record by itself: empty, cut, out of order, contradicting
    itself.
    """
    return record_checks.fault(shape, doc.metadata["record"]) or conversation_checks.fault(
        shape, doc.metadata["record"], rules
    )


def foreign(doc: Document, languages: list[str]) -> str:
    """Return `other_language` for a document in none of `languages`; one too short to tell
    stays.
    """
    return "other_language" if languages and doc.metadata["language"] not in [*languages, "und"] else ""


def unfit(doc: Document, rules: heuristics.Rules) -> str:
    """Return why a document does not read like text: gibberish, spam, repetition, boilerplate."""
    return heuristics.fault(doc.text, doc.metadata["language"], rules)


def poor(doc: Document, settings: quality_classifier.Quality) -> str:
    """Return `low_quality` for a document of an untrusted source that the Pareto rule does not
    keep.
    """
    if doc.metadata["trusted"]:
        return ""
    return "" if quality_classifier.keeps(doc.text, doc.metadata["score"], settings.alpha) else "low_quality"


def leaked(doc: Document, shape: Shape, index: contamination.Index) -> str:
    """Return `leaked_question` for a record that holds a test question; metadata["of"] names it."""
    question = contamination.find(index, shape, doc.metadata["record"])
    if question:
        doc.metadata["of"] = question
    return "leaked_question" if question else ""


def serving(doc: Document, shape: Shape, others: Mapping[Shape, Path]) -> str:
    """Return `serves_<shape>` for a record whose prompt already serves one of the `others` (their
    prompts, merged).
    """
    prompt = np.array([splits.value(shape, doc.metadata["record"])], np.uint64)
    return next(
        (f"serves_{other}" for other, file in others.items() if key_sets.contains(_members(file), prompt)[0]), ""
    )


@cache
def _members(file: Path) -> key_sets.Keys:
    return key_sets.load(file)
