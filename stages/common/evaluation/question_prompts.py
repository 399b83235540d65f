"""Questions as prompts: bare, marked as a base model has read them, or as turns; with or without
worked examples.
"""

import hashlib
import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.common.core import chat, records
from stages.common.evaluation.behaviour import script
from stages.common.runtime.errors import DataError
from stages.common.text.thoughts import without_thoughts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKS = {"en": ("Q: ", "A: "), "zh": ("问：", "答：")}
POOL = 1_000
LONGEST_SHOT = 300


@dataclass(frozen=True)
class Shot:
    """A worked example: a question of the training conversations with its answer."""

    question: str
    answer: str


def pool(conversations: Iterable[records.Record]) -> dict[str, list[Shot]]:
    """Return by script the first exchange of up to POOL conversations, those whose content has the
    smallest hash.

    Conversations with a system prompt or tools are left out: the example would not stand alone. So
    are exchanges of more than LONGEST_SHOT characters: a few of them would fill the context.
    """
    found: dict[str, dict[Shot, None]] = {mark: {} for mark in MARKS}
    for row in conversations:
        turns = row["messages"]
        plain = len(turns) > 1 and [turn["role"] for turn in turns[:2]] == ["user", "assistant"]
        if plain and not row["tools"] and not turns[1]["tool_calls"] and not turns[1]["thought"]:
            shot = Shot(turns[0]["content"], turns[1]["content"])
            if len(shot.question) + len(shot.answer) > LONGEST_SHOT:
                continue
            found[script(shot.question)][shot] = None
    return {
        mark: heapq.nsmallest(POOL, shots, key=lambda shot: _hash(shot.question, shot.answer))
        for mark, shots in found.items()
    }


def draw(shots: Mapping[str, Sequence[Shot]], question: str, count: int) -> list[Shot]:
    """Return `count` worked examples in the question's script, none of them the question itself.

    The question's own hash decides, so neither order nor number of questions does. Raises DataError
    when there are too few.
    """
    others = [shot for shot in shots[script(question)] if shot.question != question] if count else []
    if len(others) < count:
        what = f"{len(others)} training conversations can be worked examples, {count} are asked for"
        raise DataError(what, remedy="lower evaluate.shots")
    start = int(_hash(question), 16) % max(1, len(others))
    return [others[(start + step) % len(others)] for step in range(count)]


def bare(tokenizer: "PreTrainedTokenizerBase", question: records.Record) -> list[int]:
    """Return the question alone, as the first line of a text."""
    return chat.encode_texts(tokenizer, [question["messages"][-1]["content"] + "\n"])[0]


def marked(tokenizer: "PreTrainedTokenizerBase", question: records.Record, shots: Sequence[Shot]) -> list[int]:
    """Return worked examples and the question as `Q: ... A: ...` text that ends where the answer
    starts.
    """
    text = question["messages"][-1]["content"]
    ask, reply = MARKS[script(text)]
    lines = [f"{ask}{shot.question}\n{reply}{shot.answer}\n" for shot in shots]
    return chat.encode_texts(tokenizer, ["".join([*lines, f"{ask}{text}\n{reply.rstrip()}"])])[0]


def turns(tokenizer: "PreTrainedTokenizerBase", question: records.Record, shots: Sequence[Shot]) -> list[int]:
    """Return the question as a chat, worked examples as turns before it and after its system
    prompt.
    """
    asked = list(question["messages"])
    examples = [
        message
        for shot in shots
        for message in (records.message("user", shot.question), records.message("assistant", shot.answer))
    ]
    system = 1 if asked[0]["role"] == "system" else 0
    return chat.encode_prompt(tokenizer, [*asked[:system], *examples, *asked[system:]])


def said(text: str, prompt: str) -> str:
    """Return the part of a continuation that is judged, without thoughts: of plain text, the first
    line.
    """
    text = without_thoughts(text)
    return text if prompt == "chat" else text.split("\n")[0].strip()


def stops(tokenizer: "PreTrainedTokenizerBase", prompt: str, *, line: bool) -> list[int]:
    """Return the ids at which an answer ends, those of a document last; with `line` also those that
    start a line.
    """
    if prompt == "chat":
        return chat.stops(tokenizer)
    breaks = [token for token in range(len(tokenizer)) if str(tokenizer.decode([token])).startswith("\n")]
    return [*(breaks if line else []), *chat.document_ends(tokenizer)]


def _hash(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
