"""A datatrove filter that drops with a reason, and the writer that keeps every drop aside and counts it."""

from collections.abc import Callable
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.writers import JsonlWriter

from stages.common.curate import tally
from stages.common.curate.tally import Tally
from stages.common.records import Record, Shape


class Drops(JsonlWriter):
    """Keeps what a filter drops in `<folder>/<reason>/<shape>-<task>.jsonl`, and counts it by source and reason."""

    def __init__(self, folder: Path, shape: Shape, counts: Path) -> None:
        super().__init__(str(folder), f"${{filter_reason}}/{shape}-${{rank}}.jsonl", compression=None)
        self.shape, self.counts, self.counted = shape, counts, Tally()
        self.rank = 0

    def write(self, document: Document, rank: int = 0, **_: object) -> None:
        """Write and count one dropped record."""
        self.rank = rank
        super().write(document, rank)
        self.counted["dropped", document.metadata["record"]["source"], document.metadata["filter_reason"]] += 1

    def _default_adapter(self, document: Document) -> Record:
        """Return a line: why, what of (a duplicate's original, a test question), and the record."""
        known = document.metadata
        head = {"reason": known["filter_reason"], "shape": self.shape}
        return head | ({"of": known["of"]} if "of" in known else {}) | known.get("raw", known["record"])

    def close(self) -> None:
        """Close the files and save the counts."""
        super().close()
        if self.counted:
            tally.save(self.counted, self.counts, self.rank)


class Drop(BaseFilter):
    """Drops the records for which `check` gives a reason, and keeps them aside."""

    def __init__(self, name: str, check: Callable[[Document], str], aside: Drops) -> None:
        super().__init__(exclusion_writer=aside)
        self.name, self.check = name, check

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Return True, or False with the reason."""
        reason = self.check(doc)
        return (False, reason) if reason else True
