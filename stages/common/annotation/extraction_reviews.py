"""People's word on extracted records: an append-only file of JSON lines, one decision a line.

A line is {"id": the record's id, "shown": the record with its spans as JSON text, "decision":
"accept" | "edit" | "reject", "edited": the record with its spans as JSON text (of an edit),
"annotator": name, "time": when, in UTC}. A decision is about what was shown: where another run
extracted something else under the same id, it does not count. A person's later line on a record
replaces the earlier one.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from stages.common.annotation import lines
from stages.common.annotation.queue import FOR_EVERYBODY
from stages.common.core.statistics import wilson
from stages.common.extraction import spans
from stages.common.extraction.extracted import Extracted
from stages.common.extraction.schemas import Wanted
from stages.common.extraction.spans import Fault
from stages.common.text import content_hash

FILE = "reviews.jsonl"


class Review(BaseModel):
    """One line of the store."""

    model_config = ConfigDict(strict=True, extra="ignore")

    id: str
    shown: str
    decision: Literal["accept", "edit", "reject"]
    edited: str | None = None
    annotator: str
    time: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @model_validator(mode="after")
    def _edit_has_text(self) -> "Review":
        if (self.decision == "edit") != (self.edited is not None):
            raise ValueError("an edit, and only an edit, says how the record should be")
        return self

    @property
    def outcome(self) -> str:
        """What becomes of the record: its text, or "" when it is rejected."""
        return {"accept": self.shown, "edit": self.edited or "", "reject": ""}[self.decision]


Given = Mapping[str, Mapping[str, Review]]
"""Annotator -> record id -> the last decision on what is shown now."""


class Agreed(NamedTuple):
    """What people's decisions make of a record: it as accepted, or why it is put aside."""

    record: Extracted | None
    fault: Fault | None


def read(file: Path) -> Iterator[Review]:
    """Yield the decisions of a store; one that does not exist yet has none. Raises DataError with
    file and line.
    """
    return lines.read(file, TypeAdapter(Review), "a decision")


def given(file: Path, extracted: Sequence[Extracted]) -> dict[str, dict[str, Review]]:
    """Return annotator -> record id -> the last decision about the record as it is now."""
    shown = {one.id: one.shown for one in extracted}
    found: dict[str, dict[str, Review]] = {}
    for review in read(file):
        if shown.get(review.id) == review.shown:
            found.setdefault(review.annotator, {})[review.id] = review
    return dict(sorted(found.items()))


def by_record(said: Given) -> dict[str, list[Review]]:
    """Return record id -> the decisions on it."""
    found: dict[str, list[Review]] = {}
    for some in said.values():
        for review in some.values():
            found.setdefault(review.id, []).append(review)
    return found


def agreed(one: Extracted, said: Sequence[Review], wanted: Wanted) -> Agreed:
    """Return what most people want of a record; where as many want something else, it is put
    aside.
    """
    counts = Counter(review.outcome for review in said).most_common()
    if len(counts) > 1 and counts[0][1] == counts[1][1]:
        return Agreed(None, Fault("people_disagree", f"{len(said)} decisions, none has most", one.shown))
    outcome = counts[0][0]
    if not outcome:
        return Agreed(None, Fault("rejected", "by " + ", ".join(review.annotator for review in said), one.shown))
    if outcome == one.shown:
        return Agreed(one, None)
    return edited(one, outcome, wanted)


def edited(one: Extracted, text: str, wanted: Wanted) -> Agreed:
    """Return a record as somebody edited it, or what is wrong with it: it keeps schema and spans as
    an extracted one does.
    """
    try:
        reply = json.dumps({"records": [json.loads(text)]}, ensure_ascii=False)
    except (ValueError, RecursionError) as error:
        return Agreed(None, Fault("edit_not_valid", f"no JSON: {error}", text))
    for found in spans.read(reply, one.passage, wanted):
        if isinstance(found, Fault):
            return Agreed(None, Fault("edit_not_valid", found.detail, text))
        return Agreed(replace(one, record=found.record, values=found.values), None)
    raise AssertionError("a reply of one record has one outcome")


def next_to_review(extracted: Sequence[Extracted], said: Given, who: str, skipped: Collection[str]) -> str:
    """Return the id of the record that `who` is to decide on, "" when nothing is left.

    First some that everybody sees, then values that their span does not say, then what nobody has
    seen, each in an order of the person's own. What was skipped comes last.
    """
    seen = {id for one in said.values() for id in one}

    def place(one: Extracted) -> tuple[bool, bool, bool, bool, bytes]:
        shared = content_hash.digest(one.id)[0] % FOR_EVERYBODY == 0
        sure = all(value.is_in_span for value in one.values)
        mine = content_hash.digest(one.id if shared else [who, one.id])
        return one.id in skipped, not shared, one.id in seen, sure, mine

    mine = said.get(who, {})
    left = [one for one in extracted if one.to_review and one.id not in mine]
    return min(left, key=place).id if left else ""


def agreement(said: Given) -> dict[str, dict[str, float]]:
    """Return pair of people -> share of the records both decided on that both want the same of,
    with its 95 % interval.
    """
    cells = {}
    for one, other in combinations(said, 2):
        both = sorted(set(said[one]) & set(said[other]))
        if both:
            same = sum(said[one][id].outcome == said[other][id].outcome for id in both)
            low, high = wilson(same, len(both))
            cells[f"{one}-{other}"] = {"value": same / len(both), "low": low, "high": high, "records": len(both)}
    return cells


def counts(said: Given) -> dict[str, Any]:
    """Return how many records each person decided on and how, and how far people agree."""
    decided = {who: dict(Counter(one.decision for one in some.values())) for who, some in said.items()}
    return {"decided": decided, "agreement": agreement(said)}
