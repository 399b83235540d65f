"""What validation knows of a record: a flat row of small facts, so that a suite is plain data.

Text of the data never gets into a fact: Data Docs are HTML, and Great Expectations writes values into it unescaped.
Ids hold file names, so they are escaped here.
"""

import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from stages.common import content
from stages.common.records import Record, Shape

Fact = str | int | None

COLUMNS = {
    "documents": ("characters",),
    "conversations": ("roles", "empty_turns"),
    "comparisons": (
        "roles",
        "empty_turns",
        "responses",
        "empty_responses",
        "different_responses",
        "ranks",
        "lowest_rank",
        "highest_rank",
    ),
    "prompts": ("roles", "empty_turns"),
    "questions": ("roles", "empty_turns", "reference_characters", "group_characters"),
}
IDENTITY = ("id", "source")
ACROSS = ("same_id", "same_content", "other_split", "test_question")


@dataclass
class Seen:
    """Digests of what a shape has shown so far, two a record, and the ids of the test questions by digest."""

    questions: dict[bytes, str] = field(default_factory=dict)
    ids: set[bytes] = field(default_factory=set)
    contents: dict[str, set[bytes]] = field(default_factory=dict)


def columns(shape: Shape) -> list[str]:
    """Return the names of a shape's facts."""
    return [*IDENTITY, *COLUMNS[shape], *ACROSS]


def rows(shape: Shape, split: str, found: Iterable[Record], seen: Seen) -> Iterator[dict[str, Fact]]:
    """Yield one row of facts a record, remembering it in `seen`."""
    for record in found:
        own = _comparison(record) if shape == "comparisons" else _own(shape, record)
        identity = {name: escaped(record[name]) for name in IDENTITY}
        yield identity | own | _across(shape, split, record, seen)


def _own(shape: Shape, record: Record) -> dict[str, Fact]:
    if shape == "documents":
        return {"characters": len((record["text"] or "").strip())}
    facts = _turns(record["messages"])
    if shape == "questions":
        facts |= {f"{name}_characters": len((record[name] or "").strip()) for name in ("reference", "group")}
    return facts


def _comparison(record: Record) -> dict[str, Fact]:
    responses, ranks = record["responses"] or [], record["ranks"] or []
    return _turns(record["prompt"]) | {
        "responses": len(responses),
        "empty_responses": sum(not (response or "").strip() for response in responses),
        "different_responses": len(set(responses)),
        "ranks": len(ranks),
        "lowest_rank": min(ranks, default=0),
        "highest_rank": max(ranks, default=0),
    }


def _turns(messages: list[Record] | None) -> dict[str, Fact]:
    """Return who speaks, each role followed by a space (`call`: an assistant that calls a tool), and empty turns."""
    roles, empty = "", 0
    for turn in messages or []:
        calls = bool(turn["tool_calls"])
        roles += "call " if calls and turn["role"] == "assistant" else f"{escaped(turn['role'])} "
        empty += not calls and not (turn["content"] or "").strip()
    return {"roles": roles, "empty_turns": empty}


def _across(shape: Shape, split: str, record: Record, seen: Seen) -> dict[str, Fact]:
    """Return what the record shares with records before it: id, content (in its split, in another), a test question."""
    name, same = content.digest(record["id"]), content.identity(shape, record)
    other = next((other for other, contents in seen.contents.items() if other != split and same in contents), None)
    own = seen.contents.setdefault(split, set())
    facts: dict[str, Fact] = {
        "same_id": "seen before" if name in seen.ids else None,
        "same_content": "seen before" if same in own else None,
        "other_split": other,
        "test_question": None,
    }
    if shape != "questions" and seen.questions:
        leaked = (seen.questions[asked] for asked in content.asked(shape, record) if asked in seen.questions)
        facts["test_question"] = escaped(next(leaked, None))
    seen.ids.add(name)
    own.add(same)
    return facts


def escaped(value: str | None) -> str | None:
    """Return `value` as it may stand in HTML."""
    return None if value is None else html.escape(value, quote=False)
