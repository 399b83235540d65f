"""The conversations that an export must write as Lathe does, and the shapes in which others give
them.

Lathe's templates are given names of its own (`thought`, a call's `name`); other programs give
OpenAI's messages alone. That is where a template that was right in training goes wrong elsewhere.
"""

import hashlib
import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import chat, records, templates
from stages.common.core.records import Record, message
from stages.common.runtime.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST, READ = 64, 20_000
"""Conversations that are compared, and those among which they are looked for."""
FORMS = ("objects", "text")
"""How a call's arguments can be given: as an object (transformers' documentation) or as the JSON
text of OpenAI's API.
"""
SUMMED = [{"name": "add", "arguments": '{"left": 2, "right": 40}'}]
ADD = {
    "name": "add",
    "description": "Adds two numbers.",
    "parameters": {"type": "object", "properties": {"left": {"type": "integer"}, "right": {"type": "integer"}}},
}
BUILT: list[Record] = [
    {"messages": [message("user", "What is the capital of France?"), message("assistant", "Paris.")], "tools": None},
    {
        "messages": [
            message("system", "You answer in one word."),
            message("user", "Is 7 prime?"),
            message("assistant", "Yes."),
            message("user", "And  8?\n\n\tSay  so."),
            message("assistant", "No — it isn't; 2×4."),
        ],
        "tools": None,
    },
    {
        "messages": [message("user", "第3国的首都是哪里？\n\n请回答。"), message("assistant", "12城。", "想一想。")],
        "tools": None,
    },
    {
        "messages": [
            message("system", "You may use tools."),
            message("user", "What is 2 + 40?"),
            message("assistant", "", "A sum.", SUMMED),
            message("tool", "42"),
            message("assistant", "It is 42."),
            message("user", "Thank you. <|im_end|> ¡Ádiós! 🙂"),
        ],
        "tools": json.dumps([ADD]),
    },
]
"""One for each kind, as validated data have them: a system prompt, several turns, thoughts,
tools.
"""


def chosen(folder: Path) -> list[Record]:
    """Return the built conversations and up to MOST validated ones: of each kind (system prompt,
    tools, thoughts, several turns, plain) those with the smallest hash.
    """
    kinds: dict[str, list[tuple[str, Record]]] = {}
    if folder.is_dir():
        for row in islice(records.read(folder), READ):
            key = hashlib.sha256(str(row["id"]).encode()).hexdigest()
            kinds.setdefault(kind(row), []).append((key, row))
    share = MOST // max(1, len(kinds))
    validated = [row for found in kinds.values() for _, row in sorted(found, key=lambda pair: pair[0])[:share]]
    return [*BUILT, *validated]


def kind(row: Record) -> str:
    """Return what a conversation has beside a question and an answer."""
    turns = row["messages"]
    has = {
        "system": turns[0]["role"] == "system",
        "tools": bool(row["tools"]) or any(turn["tool_calls"] or turn["role"] == "tool" for turn in turns),
        "thoughts": any(turn["thought"] for turn in turns),
        "turns": sum(turn["role"] == "user" for turn in turns) > 1,
    }
    return "+".join(name for name, there in has.items() if there) or "plain"


def prompts_and_wholes(rows: Iterable[Record]) -> list[Record]:
    """Return each conversation whole, and up to each answer as the prompt that asks for it."""
    found = []
    for row in rows:
        found.append({"messages": row["messages"], "tools": row["tools"], "prompt": False})
        for at, turn in enumerate(row["messages"]):
            if turn["role"] == "assistant" and at:
                found.append({"messages": row["messages"][:at], "tools": row["tools"], "prompt": True})
    return found


def ours(tokenizer: "PreTrainedTokenizerBase", one: Record) -> list[int] | None:
    """Return the tokens by Lathe's own encoding, or None where the template refuses."""
    try:
        if one["prompt"]:
            return chat.encode_prompt(tokenizer, one["messages"], one["tools"])
        return chat.encode(tokenizer, one["messages"], one["tools"]).input_ids
    except DataError:
        return None


def plain(one: Record, form: str) -> dict[str, Any]:
    """Return a conversation as other programs give it to `apply_chat_template`."""
    return {
        "messages": [openai(turn, form) for turn in one["messages"]],
        "tools": templates.schemas(one["tools"]),
        "prompt": one["prompt"],
    }


def openai(turn: Record, form: str) -> dict[str, Any]:
    """Return a message by OpenAI's names alone; a thought as `reasoning_content`, as servers give
    it.
    """
    said: dict[str, Any] = {"role": turn["role"], "content": turn["content"] or ""}
    if turn.get("thought"):
        said["reasoning_content"] = turn["thought"]
    if calls := turn.get("tool_calls"):
        said["tool_calls"] = [{"type": "function", "function": _call(call, form)} for call in calls]
    return said


def _call(call: Record, form: str) -> Record:
    arguments: Any = call["arguments"]
    if form == "objects":
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = call["arguments"]
    return {"name": call["name"], "arguments": arguments}
