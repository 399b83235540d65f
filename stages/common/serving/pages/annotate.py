"""The tabs of /annotate where people rank the answers of a round, as `rank` with annotator `human`
waits for, and write answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from stages.common.annotation import feedback, queue
from stages.common.annotation.feedback import CHARACTERS_AT_MOST
from stages.common.annotation.queue import ANSWERS_AT_MOST, Round
from stages.common.core.records import Record
from stages.common.ranking.eligibility import Wanted
from stages.common.runtime.errors import DataError
from stages.common.serving.pages import AT_ONCE, Room, failures, form

DEMONSTRATIONS = "demonstrations.jsonl"
NO_ROUND = "No answers of a round wait for people; `dvc repro sample` makes some."
NOTHING_LEFT = "Nothing is left for you here. Thank you."


@dataclass(frozen=True)
class Seat:
    """Who sits here, at which round, and what is before them; kept on the server's side."""

    round: str
    who: str
    to_rank: str = ""
    to_write: str = ""
    ranked: str = ""
    """The prompt ranked last, for who wants it back."""
    skipped: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Desk:
    """Where the page reads and writes."""

    samples: Path
    annotations: Path
    store: Path
    wanted: Wanted

    @property
    def demonstrations(self) -> Path:
        """The store of what people write here: apart, so that it stays quick to read."""
        return self.store.with_name(DEMONSTRATIONS)

    def round(self, name: str) -> Round:
        """Return a round. Raises DataError."""
        return queue.load(self.samples, self.annotations, name, self.wanted)

    def sit(self, name: Any, who: Any) -> Seat:
        """Return the seat of a person who begins, at the newest round if none is said.

        Raises DataError for no such round, or no name.
        """
        newest = queue.rounds(self.samples)[-1:]
        seat = Seat(self.round(str(name or "".join(newest))).name, queue.person(str(who or "")))
        return self.next_to_write(self.next_to_rank(seat))

    def next_to_rank(self, seat: Seat) -> Seat:
        """Return the seat with the next answers to rank on it."""
        of = self.round(seat.round)
        return replace(seat, to_rank=queue.to_rank(of, queue.given(of), seat.who, seat.skipped))

    def next_to_write(self, seat: Seat) -> Seat:
        """Return the seat with the next prompt to answer on it."""
        of = self.round(seat.round)
        written = queue.written(self.demonstrations, of)
        return replace(seat, to_write=queue.to_write(of, written, seat.who, seat.skipped))

    def rank(self, seat: Seat | None, given: Sequence[Any]) -> Seat:
        """Keep the ranks, then the marks, of the answers before a person, and bring the next.
        Raises DataError.
        """
        seat = _seated(seat)
        of = self.round(seat.round)
        ranks, marks = given[:ANSWERS_AT_MOST], [one or [] for one in given[ANSWERS_AT_MOST:]]
        feedback.append(of.file, queue.save(of, seat.who, seat.to_rank, ranks, marks))
        return self.next_to_rank(replace(seat, ranked=seat.to_rank))

    def write(self, seat: Seat | None, answer: str) -> Seat:
        """Keep an answer that a person wrote, and bring the next prompt. Raises DataError."""
        seat = _seated(seat)
        line = queue.demonstration(self.round(seat.round), seat.who, seat.to_write, answer)
        feedback.append(self.demonstrations, line)
        return self.next_to_write(seat)

    def skip_to_rank(self, seat: Seat | None) -> Seat:
        """Put the prompt whose answers are to be ranked at the end. Raises DataError."""
        seat = _seated(seat)
        return self.next_to_rank(replace(seat, skipped=seat.skipped | {seat.to_rank}))

    def skip_to_write(self, seat: Seat | None) -> Seat:
        """Put the prompt that is to be answered at the end. Raises DataError."""
        seat = _seated(seat)
        return self.next_to_write(replace(seat, skipped=seat.skipped | {seat.to_write}))

    def back(self, seat: Seat | None) -> Seat:
        """Bring back what was ranked last. Raises DataError."""
        seat = _seated(seat)
        if not seat.ranked:
            raise DataError("nothing was ranked before", where=seat.who)
        return replace(seat, to_rank=seat.ranked)

    def progress(self, seat: Seat) -> str:
        """Return how far the round is, and how this person agrees with each other one."""
        of = self.round(seat.round)
        given, written = queue.given(of), queue.written(self.demonstrations, of)
        done = len({id for one in given.values() for id in one})
        lines = [
            f"{seat.who} at {of.name}: **{done:,} of {len(of.samples):,}** prompts ranked, the round waits for "
            f"{of.needed:,}; by you {len(given.get(seat.who, {})):,}. Answers written: "
            f"{sum(map(len, written.values())):,}, by you {len(written.get(seat.who, {})):,}."
        ]
        for other, cell in queue.agreement(given, of, seat.who).items():
            interval = f"[{cell['low']:.2f}, {cell['high']:.2f}]"
            lines.append(
                f"Agreement with {other}: Kendall's τ {cell['value']:.2f} {interval} on {cell['prompts']:.0f} prompts."
            )
        return "\n\n".join(lines)

    def ranking(self, seat: Seat) -> tuple[str, list[str]]:
        """Return the prompt to rank answers to as text, and the answers in their order for this
        person.
        """
        if not seat.to_rank:
            return NOTHING_LEFT, []
        sample = self.round(seat.round).samples[seat.to_rank]
        return _text(sample.record["messages"]), queue.blind(seat.who, sample)

    def question(self, seat: Seat) -> str:
        """Return the prompt to answer as text."""
        return _text(self.round(seat.round).prompts[seat.to_write]) if seat.to_write else NOTHING_LEFT


class _Parts(NamedTuple):
    """The tabs' components; what went wrong and how far it is stand above them."""

    problem: Any
    progress: Any
    seat: Any
    asked: Any
    ranking: form.Form
    back: Any
    later: Any
    question: Any
    answer: Any
    keep: Any
    leave: Any

    @property
    def outputs(self) -> list[Any]:
        """What an action may change."""
        head = [self.seat, self.problem, self.progress, self.asked]
        return [*head, *self.ranking.outputs, self.question, self.answer]


def _parts(problem: Any, progress: Any) -> _Parts:
    import gradio

    seat = gradio.State(None)
    with gradio.Tab("Rank answers"):
        asked = gradio.Textbox(label="Prompt", interactive=False, lines=2, max_lines=20)
        ranking = form.build(ANSWERS_AT_MOST, True, "Save and next")
        with gradio.Row():
            back, later = gradio.Button("Back to the last one", size="md"), gradio.Button("Skip", size="md")
    with gradio.Tab("Write answers"):
        question = gradio.Textbox(label="Prompt to answer", interactive=False, lines=2, max_lines=20)
        answer = gradio.Textbox(label="Your answer", lines=4, max_length=CHARACTERS_AT_MOST)
        keep = gradio.Button("Save answer and next", variant="primary")
        leave = gradio.Button("Skip prompt", size="md")
    return _Parts(problem, progress, seat, asked, ranking, back, later, question, answer, keep, leave)


def _shown(parts: _Parts, desk: Desk, before: Seat | None, sits: Seat) -> dict[Any, Any]:
    """Return what the page shows at a seat; what the person was about to say elsewhere stays."""
    shown: dict[Any, Any] = {parts.seat: sits, parts.problem: "", parts.progress: desk.progress(sits)}
    if before is None or before.to_rank != sits.to_rank:
        text, responses = desk.ranking(sits)
        updates = form.showing(responses, ANSWERS_AT_MOST, True)
        shown |= {parts.asked: text} | dict(zip(parts.ranking.outputs, updates, strict=True))
    if before is None or before.to_write != sits.to_write:
        shown |= {parts.question: desk.question(sits), parts.answer: ""}
    return shown


def _doing(parts: _Parts, desk: Desk, action: Callable[..., Seat]) -> Callable[..., dict[Any, Any]]:
    def handler(*given: Any) -> dict[Any, Any]:
        """Do it, and show what is next."""
        with failures.noted("annotating") as failed:
            before = given[0] if isinstance(given[0], Seat) else None
            return _shown(parts, desk, before, action(*given))
        return {parts.problem: f"**{failed.text}**"}

    return handler


def add(desk: Desk, problem: Any, progress: Any) -> Room:
    """Add the tabs to the page that is open."""
    parts = _parts(problem, progress)
    outputs, ranking, seat = parts.outputs, parts.ranking, parts.seat

    def does(action: Callable[..., Seat]) -> Callable[..., dict[Any, Any]]:
        return _doing(parts, desk, action)

    def enter(person: str, name: Any) -> dict[Any, Any] | None:
        return _shown(parts, desk, None, desk.sit(name, person)) if queue.rounds(desk.samples) else None

    ranks = [seat, *ranking.ranks, *ranking.marks]
    ranking.save.click(does(lambda sits, *given: desk.rank(sits, given)), ranks, outputs, **AT_ONCE)
    parts.back.click(does(desk.back), seat, outputs, **AT_ONCE)
    parts.later.click(does(desk.skip_to_rank), seat, outputs, **AT_ONCE)
    parts.keep.click(does(desk.write), [seat, parts.answer], outputs, **AT_ONCE)
    parts.leave.click(does(desk.skip_to_write), seat, outputs, **AT_ONCE)
    return Room(outputs, enter, {parts.asked: NO_ROUND, parts.question: NO_ROUND})


def _seated(seat: Seat | None) -> Seat:
    if seat is None:
        raise DataError("type your name first", remedy="load the page again, and begin")
    return seat


def _text(messages: Sequence[Record]) -> str:
    """Return a conversation as plain text; of a single question only that."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{one['role'].capitalize()}: {one['content']}" for one in messages)
