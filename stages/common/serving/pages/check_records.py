"""The tab of /annotate where people accept, edit or reject extracted records: the passage with each
value's span marked, the record to edit, keys.
"""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

from stages.common.annotation import extraction_reviews, feedback, queue
from stages.common.annotation.extraction_reviews import Given, Review
from stages.common.core import params
from stages.common.extraction import extracted, schemas
from stages.common.extraction.extracted import Extracted
from stages.common.extraction.spans import Value
from stages.common.runtime.errors import DataError
from stages.common.serving.pages import AT_ONCE, Room, failures

TAB = "Check records"
NOTHING_LEFT = "Nothing is left for you here. Thank you."
NO_RECORDS = "No extracted records wait for people; extract.review makes them."
HELP = "Keys: a accepts, r rejects, s puts off; e saves the record as it was edited."


@dataclass(frozen=True)
class Seat:
    """Who sits here and which record is before them; kept on the server's side."""

    who: str
    id: str = ""
    last: str = ""
    """What was decided on last, for who wants it back."""
    skipped: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Desk:
    """Where the tab reads and writes."""

    records: Path
    store: Path

    def extracted(self) -> list[Extracted]:
        """Return the records that people are to check. Raises DataError when there are none."""
        parts = sorted(self.records.glob("*.parquet"))
        found = _read(self.records, tuple((part.stat().st_mtime_ns, part.stat().st_size) for part in parts))
        if not found:
            remedy = "set extract.skip: false and extract.review, then `dvc repro extract`"
            raise DataError("no extracted records wait for people", where=self.records, remedy=remedy)
        return found

    def given(self) -> Given:
        """Return all decisions on them so far."""
        return extraction_reviews.given(self.store, self.extracted())

    def sit(self, who: Any) -> Seat:
        """Return the seat of a person who begins. Raises DataError for no name, or no records."""
        return self.next(Seat(queue.person(str(who or ""))))

    def next(self, seat: Seat) -> Seat:
        """Return the seat with the next record on it."""
        id = extraction_reviews.next_to_review(self.extracted(), self.given(), seat.who, seat.skipped)
        return replace(seat, id=id)

    def decide(self, seat: Seat | None, decision: Literal["accept", "edit", "reject"], text: str = "") -> Seat:
        """Keep a decision on the record before a person, and bring the next. Raises DataError for
        an edit that schema or spans refuse.
        """
        seat = _seated(seat)
        one = self.record(seat)
        if one is None:
            raise DataError(NOTHING_LEFT, where=seat.who)
        edited = text if decision == "edit" else None
        if edited is not None and (fault := extraction_reviews.edited(one, edited, wanted()).fault):
            raise DataError(fault.detail, where="the record", remedy="mend it, or reject it")
        line = Review(id=one.id, shown=one.shown, decision=decision, edited=edited, annotator=seat.who)
        feedback.append(self.store, line)
        return self.next(replace(seat, last=one.id))

    def skip(self, seat: Seat | None) -> Seat:
        """Put the record at the end. Raises DataError."""
        seat = _seated(seat)
        return self.next(replace(seat, skipped=seat.skipped | {seat.id}))

    def back(self, seat: Seat | None) -> Seat:
        """Bring back what was decided on last. Raises DataError."""
        seat = _seated(seat)
        if not seat.last:
            raise DataError("nothing was decided before", where=seat.who)
        return replace(seat, id=seat.last)

    def record(self, seat: Seat) -> Extracted | None:
        """Return the record before a person, if one is left."""
        return next((one for one in self.extracted() if one.id == seat.id), None)

    def progress(self, seat: Seat) -> str:
        """Return how far it is, and how this person agrees with each other one."""
        said = self.given()
        due = {one.id for one in self.extracted() if one.to_review}
        done = len(due & {id for some in said.values() for id in some})
        lines = [f"**{done:,} of {len(due):,}** records checked; by you {len(said.get(seat.who, {})):,}."]
        for pair, cell in extraction_reviews.agreement(said).items():
            if seat.who in pair:
                interval = f"[{100 * cell['low']:.0f}, {100 * cell['high']:.0f}]"
                lines.append(
                    f"Agreement {pair}: {100 * cell['value']:.0f} % {interval} on {cell['records']:.0f} records."
                )
        return "\n\n".join(lines)


def wanted() -> schemas.Wanted:
    """Return what params.yaml says is extracted. Raises ParamsError."""
    section = params.plain(params.read_yaml(params.PARAMS_FILE).get("extract")) or {}
    return schemas.load(section.get("schema", "question_answer"))


def marked(passage: str, values: Sequence[Value]) -> str:
    """Return a passage as HTML with every value's span marked, and what each value is."""
    points = sorted({0, len(passage), *(edge for one in values for edge in (one.start, one.end))})
    parts = []
    for start, end in pairwise(points):
        text = html.escape(passage[start:end])
        names = ", ".join(one.path for one in values if one.start <= start and end <= one.end)
        parts.append(f'<mark title="{html.escape(names)}">{text}</mark>' if names else text)
    rows = "".join(
        f"<li><b>{html.escape(one.path)}</b>: {html.escape(str(one.value))}"
        f"{'' if one.is_in_span else ' <i>(its span does not say this)</i>'}</li>"
        for one in values
    )
    return f'<div class="passage" style="white-space: pre-wrap">{"".join(parts)}</div><ul>{rows}</ul>'


class _Parts(NamedTuple):
    """The tab's components."""

    problem: Any
    progress: Any
    seat: Any
    passage: Any
    record: Any
    buttons: dict[str, Any]

    @property
    def outputs(self) -> list[Any]:
        """What an action may change."""
        return [self.seat, self.problem, self.progress, self.passage, self.record]


def _parts() -> _Parts:
    import gradio

    with gradio.Tab(TAB), gradio.Column(elem_classes="reviewing"):
        problem = gradio.Markdown("", elem_id="record-problem")
        progress = gradio.Markdown("", elem_id="record-progress")
        seat = gradio.State(None)
        passage = gradio.HTML("", elem_id="passage")
        record = gradio.Textbox(label="Record with its spans", lines=8, max_lines=30)
        gradio.Markdown(HELP)
        names = {
            "accept": "Accept",
            "edit": "Save the edit",
            "reject": "Reject",
            "later": "Put off",
            "last": "The last one",
        }
        with gradio.Row():
            buttons = {name: gradio.Button(text, elem_classes=name) for name, text in names.items()}
    return _Parts(problem, progress, seat, passage, record, buttons)


def add(desk: Desk) -> Room:
    """Add the tab to the page that is open."""
    parts = _parts()

    def shown(sits: Seat) -> dict[Any, Any]:
        one = desk.record(sits)
        before = {parts.passage: marked(one.passage, one.values), parts.record: one.shown} if one else {}
        nothing = {parts.passage: f"<p>{NOTHING_LEFT}</p>", parts.record: ""}
        return {parts.seat: sits, parts.problem: "", parts.progress: desk.progress(sits)} | (before or nothing)

    def enter(person: str, _: Any) -> dict[Any, Any] | None:
        return shown(desk.sit(person)) if any(desk.records.glob("*.parquet")) else None

    def does(action: Callable[..., Seat]) -> Callable[..., dict[Any, Any]]:
        def handler(*given: Any) -> dict[Any, Any]:
            """Do it, and show what is next."""
            with failures.noted("checking records") as failed:
                return shown(action(*given))
            return {parts.problem: f"**{failed.text}**"}

        return handler

    decide = {
        "accept": lambda sits: desk.decide(sits, "accept"),
        "reject": lambda sits: desk.decide(sits, "reject"),
        "later": desk.skip,
        "last": desk.back,
    }
    for name, action in decide.items():
        parts.buttons[name].click(does(action), parts.seat, parts.outputs, **AT_ONCE)
    edit = does(lambda sits, text: desk.decide(sits, "edit", text))
    parts.buttons["edit"].click(edit, [parts.seat, parts.record], parts.outputs, **AT_ONCE)
    return Room(parts.outputs, enter, {parts.passage: f"<p>{NO_RECORDS}</p>"})


@lru_cache(maxsize=2)
def _read(folder: Path, stamp: tuple[object, ...]) -> list[Extracted]:
    return extracted.read(folder) if stamp else []


def _seated(seat: Seat | None) -> Seat:
    if seat is None:
        raise DataError("type your name first", remedy="load the page again, and begin")
    return seat
