"""Question and answer in fields of their own, and the talk before them in a third: Alpaca, BELLE,
ChatGLM and more.
"""

from typing import Any

from stages.common.core.records import Record, message
from stages.common.ingest.layouts import transcripts
from stages.common.ingest.layouts.fields import Malformed, first, optional_string, string
from stages.common.ingest.layouts.turns import tools, turns, with_system

ANSWERS = {
    "instruction": ("output", "response", "answer"),
    "question": ("answer", "response", "output"),
    "query": ("response", "answer", "output"),
    "prompt": ("response", "completion", "output", "answer"),
    "input": ("output", "target", "response"),
    "context": ("response",),
    "text": ("response", "reply"),
}
"""Where the question may stand, and where the answer to it; the first that a row has counts."""

ASKED = ("instruction", "question", "query", "prompt")
MATERIAL = ("input", "context")
ROLES_IN_TURN = ("user", "assistant")


def keys(row: Record) -> tuple[str, str] | None:
    """Return the keys of a row's question and answer, or None.

    An answer that is null is still one by its key, but not where it may belong to another column of
    questions.
    """
    for asked, answers in ANSWERS.items():
        if row.get(asked) is not None:
            found = first(row, answers)
            if not found and (asked in ASKED or not any(key in row for key in ASKED)):
                found = next((key for key in answers if key in row), None)
            if found:
                return asked, found
    return None


def pair(row: Record) -> Record:
    """`{"instruction" | "question" | …, "output" | "answer" | …, "input"?, "history"?, "system"?}`
    -> conversation.
    """
    asked, answer = keys(row) or ("question", "answer")
    return {
        "messages": [*conversation_before(row, asked), message("assistant", string(row, answer))],
        "tools": tools(row),
    }


def prompt(row: Record) -> Record:
    """A question without an answer, with `reference` and `category` if it has them -> prompt."""
    reference, category = optional_string(row, "reference"), optional_string(row, "category")
    return {
        "messages": conversation_before(row, first(row, ASKED) or "prompt"),
        "reference": reference,
        "category": category,
    }


def question(row: Record) -> Record:
    """A question with a group and its reference under `reference` or `answer` -> test question."""
    reference = string(row, "answer" if row.get("reference") is None and "answer" in row else "reference")
    record = {"messages": conversation_before(row, first(row, ASKED) or "question"), "reference": reference}
    return record | {"group": string(row, "group"), "category": optional_string(row, "category")}


def conversation_before(row: Record, asked: str) -> list[Record]:
    """Return what was said until an answer is due: system, history and the question. Raises
    Malformed.
    """
    value = row.get(asked)
    if isinstance(value, list | dict):
        said = turns(value)
    else:
        text = _with_material(row, asked)
        said = transcripts.messages(text) if transcripts.is_transcript(text) else [message("user", text)]
    return with_system(row, history(row.get("history")) + said)


def history(value: Any) -> list[Record]:
    """Return earlier talk as messages: pairs of question and answer, or turn objects. Raises
    Malformed.
    """
    if value is None or value == "" or value == []:
        return []
    if not isinstance(value, list):
        raise Malformed("bad history", "not a list")
    if all(isinstance(turn, dict) for turn in value):
        return turns(value)
    said = []
    for number, spoken in enumerate(value, 1):
        if not isinstance(spoken, list) or len(spoken) != 2 or not all(isinstance(text, str) for text in spoken):
            raise Malformed("bad history", f"entry {number} is not a question and an answer")
        said += [message(role, text) for role, text in zip(ROLES_IN_TURN, spoken, strict=True)]
    return said


def _with_material(row: Record, asked: str) -> str:
    """Return the question; under an instruction or a question stands the text it is about, if there
    is one.
    """
    parts = [string(row, asked)]
    if asked in ("instruction", "question"):
        parts += [string(row, key) for key in MATERIAL if row.get(key) is not None]
    return "\n".join(part for part in parts if part)
