"""Question and answer in fields of their own, and the talk before them in a third: Alpaca, BELLE,
ChatGLM and more.
"""

import re
from typing import Any

from stages.common.core.records import Record, Shape, message
from stages.common.ingest.layouts import meaning, transcripts
from stages.common.ingest.layouts.fields import Malformed, first, peek, string
from stages.common.ingest.layouts.turns import tools, turns, with_system

ANSWERS = {
    "instruction": ("output", "response", "answer"),
    "question": ("answer", "response", "output"),
    "query": ("response", "answer", "output"),
    "prompt": ("response", "completion", "output", "answer"),
    "input": ("output", "target", "response"),
    "context": ("response", "target"),
    "text": ("response", "reply"),
    "problem": ("solution", "answer"),
    "ask": ("answer", "response"),
    "q": ("a", "A"),
    "inputs": ("targets",),
    "message_1": ("message_2",),
    "问": ("答",),
    "问题": ("答案", "回答"),
}
"""Where the question may stand, and where the answer to it; the first that a row has counts."""

ASKED = ("instruction", "question", "query", "prompt")
MATERIAL = ("input", "context")
NO_INPUT = ("<noinput>", "<no input>", "noinput")
FRAMES = (
    re.compile(
        r"\A(?:问题|问|Question|Q) ?[:：]\s*(?P<asked>.+?)\s*\n(?:回答|答案|答|Answer|A) ?[:：]\s*\Z", re.DOTALL
    ),
    re.compile(
        r"\AInstruction:\s*(?P<asked>.+?)\s*(?:\nInput:\s*(?P<about>.*?)\s*)?\nAnswer:\s*\Z", re.DOTALL | re.IGNORECASE
    ),
)
"""What ChatGLM-Tuning and Med-ChatGLM write around a question under `context`."""
LONGEST_FRAMED = 5_000
ROLES_IN_TURN = ("user", "assistant")


def keys(row: Record) -> tuple[str, str] | None:
    """Return the keys of a row's question and answer, or None.

    An answer that is null is still one by its key, but not where it may belong to another column of
    questions.
    """
    for asked, answers in ANSWERS.items():
        if peek(row, asked) is not None:
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
    asked, answered = keys_of(row)
    return {"messages": [*conversation_before(row, asked), *_answer(row, answered)], "tools": tools(row)}


def instances(row: Record) -> list[tuple[Shape, Record]]:
    """Self-Instruct's `{"instruction", "instances": [{"input", "output"}, …]}` -> a conversation
    each.
    """
    listed = row["instances"]
    if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
        raise Malformed("bad instances", "not a list of objects, or there are none")
    asked = string(row, "instruction")
    found: list[tuple[Shape, Record]] = []
    for one in listed:
        parts = [asked, string(one, "input") if peek(one, "input") is not None else ""]
        said = message("user", "\n".join(part for part in parts if _says_something(part)))
        found.append(("conversations", {"messages": [said, *_answer(one, "output")], "tools": None}))
    return found


def keys_of(row: Record) -> tuple[str, str]:
    """Return the keys of a row that is known to hold question and answer."""
    return keys(row) or ("question", "answer")


def _answer(row: Record, key: str) -> list[Record]:
    """Return an answer as messages: a text with its thought, a turn, or a list of turns. Raises
    Malformed.
    """
    value = row.get(key)
    if isinstance(value, dict) and ("role" in value or "from" in value):
        return turns([value])
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        return turns(value)
    if isinstance(value, list):
        raise Malformed(f"bad {key}", f"a list of {len(value)}: which of them is the answer is not said")
    return [meaning.answer(string(row, key), meaning.thought(row))]


def conversation_before(row: Record, asked: str) -> list[Record]:
    """Return what was said until an answer is due: system, history and the question. Raises
    Malformed.
    """
    value = row.get(asked)
    if isinstance(value, list | dict):
        said = turns(value)
    else:
        text = _with_material(row, asked)
        text = _unframed(text) if asked == "context" else text
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
        parts += [string(row, key) for key in MATERIAL if peek(row, key) is not None]
    return "\n".join(part for part in parts if _says_something(part))


def _says_something(part: str) -> bool:
    return bool(part) and part.strip().lower() not in NO_INPUT


def _unframed(text: str) -> str:
    """Return a question without the words that a template wrote around it."""
    if len(text) > LONGEST_FRAMED:
        return text
    found = next((frame for pattern in FRAMES if (frame := pattern.match(text))), None)
    return "\n".join(part for part in found.groupdict().values() if part) if found else text
