"""What validation knows of a record, or a column of a file: flat rows of small facts; so a suite is
plain data.

Text of the data never gets into a fact: Data Docs are HTML, and Great Expectations writes values
into it unescaped. Ids hold file names, so they are escaped here.
"""

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.common.core import records
from stages.common.core.records import SHAPES, TURNS, Record, Shape, message
from stages.common.curate.filters import contamination, conversation_checks, language, pii
from stages.common.curate.filters.contamination import Index
from stages.common.curate.filters.conversation_checks import TalkRules
from stages.common.text import content_hash, parquet_writer, record_checks

Facts = dict[str, Any]

LETTERS = TalkRules().language_letters
ROLES = ("system", "user", "assistant", "tool")
KNOWN = [("id", pa.string()), ("source", pa.string())]
SAID = [("empty", pa.int64()), ("characters", pa.int64())]
TALK = [("roles", pa.string()), *SAID]
TRAINED_ON = [("test_question", pa.string()), ("personal_data", pa.string())]
ANSWERED = [("languages", pa.string())]
RANKED = [
    ("responses", pa.int64()),
    ("empty_responses", pa.int64()),
    ("different_responses", pa.int64()),
    ("ranks", pa.string()),
    ("different_ranks", pa.int64()),
]
LABELLED = [("response_characters", pa.int64()), ("desirable", pa.bool_())]
TESTED = [("reference_characters", pa.int64()), ("group_characters", pa.int64())]
FACTS_OF_COLUMNS = ("id", "difference")
SCHEMAS: dict[str, pa.Schema] = {
    "documents": pa.schema([*KNOWN, *SAID, *TRAINED_ON]),
    "conversations": pa.schema([*KNOWN, *TALK, *ANSWERED, *TRAINED_ON]),
    "comparisons": pa.schema([*KNOWN, *TALK, *RANKED, *ANSWERED, *TRAINED_ON]),
    "prompts": pa.schema([*KNOWN, *TALK, *TRAINED_ON]),
    "questions": pa.schema([*KNOWN, *TALK, *TESTED]),
    "labelled": pa.schema([*KNOWN, *TALK, *LABELLED, *ANSWERED, *TRAINED_ON]),
}


def whole(shape: Shape, record: Record) -> Record:
    """Return the record with every null that a text should be replaced by an empty one: both say
    nothing.
    """
    if shape == "documents":
        return record | {"text": record["text"] or ""}
    key = TURNS[shape]
    changed = record | {key: [_whole_turn(turn or {}) for turn in record[key] or []]}
    if shape == "comparisons":
        changed["responses"] = [response or "" for response in record["responses"] or []]
        changed["ranks"] = record["ranks"] or []
    if shape == "labelled":
        changed["response"] = record["response"] or ""
    return changed


def facts(shape: Shape, record: Record, index: Index) -> Facts:
    """Return the facts of a record without nulls."""
    said = list(contamination.texts(shape, record))
    found: Facts = {"id": escaped(record["id"]), "source": escaped(record["source"])}
    found["characters"] = sum(len(text) for _, text in said)
    if shape == "documents":
        found["empty"] = int(not record["text"].strip())
    else:
        turns = record[TURNS[shape]]
        found["roles"] = " ".join(_role(turn) for turn in turns)
        found["empty"] = sum(not (turn["content"].strip() or turn["tool_calls"]) for turn in turns)
    if shape in ("conversations", "comparisons", "labelled"):
        found["languages"] = languages(shape, record)
    if shape == "comparisons":
        found |= _ranked(record["responses"], record["ranks"])
    if shape == "labelled":
        found |= {"response_characters": len(record["response"].strip()), "desirable": record["desirable"]}
    if shape == "questions":
        return found | {f"{name}_characters": len((record[name] or "").strip()) for name in ("reference", "group")}
    found["test_question"] = escaped(contamination.find(index, shape, record) or None)
    kinds = pii.scrub_record(shape, record)[1]
    found["personal_data"] = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items())) or None
    return found


def facts_of_columns(curated: Path) -> Iterator[Facts]:
    """Yield for every column of every file how its type differs from the one it should have; None
    where it does not.
    """
    for shape in SHAPES:
        wanted = {field.name: field.type for field in records.SCHEMAS[shape]}
        for file in records.files(curated / shape):
            found = {field.name: field.type for field in parquet_writer.schema(file)}
            for name in sorted(wanted | found):
                right = found.get(name) == wanted.get(name)  # equal types may be spelt differently
                told = f"{found.get(name, 'nothing')} instead of {wanted.get(name, 'nothing')}"
                place = f"{file.relative_to(curated).as_posix()}:{name}"
                yield {"id": escaped(place), "difference": None if right else escaped(told)}


def languages(shape: Shape, record: Record) -> str | None:
    """Return `en, answered in zh` where an answer is in another language, unasked; None where the
    record is faulty.
    """
    ranks = record.get("ranks") or []
    broken = shape == "comparisons" and (len(ranks) != len(record["responses"]) or None in ranks)
    if broken or record_checks.fault(shape, record) or not conversation_checks.languages_differ(shape, record, LETTERS):
        return None
    pair = (content_hash.user_turns(shape, record)[-1], conversation_checks.last_answers(shape, record)[0])
    return ", answered in ".join(map(language.detect, pair))


def escaped(value: str | None) -> str | None:
    """Return `value` as it may stand in HTML."""
    return None if value is None else html.escape(value, quote=False)


def _whole_turn(turn: Record) -> Record:
    calls = [call | {"arguments": call["arguments"] or ""} for call in turn.get("tool_calls") or [] if call]
    return message(turn.get("role") or "", turn.get("content") or "", turn.get("thought"), calls or None)


def _role(turn: Record) -> str:
    """Return who speaks: `call` for an assistant that calls a tool, `other` for nobody we know."""
    role = turn["role"] if turn["role"] in ROLES else "other"
    return "call" if role == "assistant" and turn["tool_calls"] else str(role)


def _ranked(responses: list[str], ranks: list[int | None]) -> Facts:
    return {
        "responses": len(responses),
        "empty_responses": sum(not response.strip() for response in responses),
        "different_responses": len(set(responses)),
        "ranks": f"{' '.join(map(str, ranks))} of {len(responses)}",
        "different_ranks": len(set(ranks)),
    }
