"""MOSS: a turn is Human, Inner Thoughts, Commands, Tool Responses and MOSS, each in marks
(`<|Human|>: … <eoh>`).
"""

import re
from collections.abc import Sequence
from typing import Any

from stages.common.core.records import Record, message
from stages.common.ingest.layouts.fields import Malformed, as_json
from stages.common.ingest.layouts.turns import with_system
from stages.common.text import moss as notation

START, END = re.compile(r"\A\s*<\|[\w ]+\|>\s*:"), re.compile(r"<eo[a-z]>\s*\Z")
TURN_NAME = re.compile(r"turn_(\d{1,6})")
PART = re.compile(r"(?:<\|([\w ]+)\|>|\[(Human|MOSS)\])\s*:(.*?)<eo[a-z]>", re.DOTALL)
PART_NAMES = {"Results": "Tool Responses"}


def moss(row: Record) -> Record:
    """`{"meta_instruction"?, "chat": {"turn_1": {"Human", …, "MOSS"}, …}}` -> conversation; the
    plugins that its meta instruction switches on are its tools.
    """
    chat = row["chat"]
    if not isinstance(chat, dict) or not chat:
        raise Malformed("bad chat", "not an object of turns, or there are none")
    numbered: dict[int, Any] = {}
    for name in chat:
        found, turn = TURN_NAME.fullmatch(name), chat[name]
        if not found or not isinstance(turn, dict):
            raise Malformed("bad chat", f"{name[:50]!r} is no turn")
        numbered[int(found[1])] = turn
    messages = with_system(row, [])
    tools = notation.switched_on(messages[0]["content"]) if messages else []
    said = [one for number in sorted(numbered) for one in _turn(number, numbered[number], tools)]
    return {"messages": messages + said, "tools": as_json(tools) if tools else None}


def parts(text: str) -> list[Record]:
    """Return a conversation written as one text with MOSS's marks as messages. Raises Malformed."""
    turns: list[Record] = []
    end = 0
    for found in PART.finditer(text):
        if text[end : found.start()].strip():
            raise Malformed("bad transcript", "text outside of the marks")
        end = found.end()
        name = found[1] or found[2]
        if name == "Human":
            turns.append({})
        if not turns:
            raise Malformed("bad transcript", "it does not start with Human")
        turns[-1][PART_NAMES.get(name, name)] = found[3]
    if text[end:].strip() or not turns:
        raise Malformed("bad transcript", "text outside of the marks")
    return [one for number, turn in enumerate(turns, 1) for one in _turn(number, turn)]


def _turn(number: int, turn: Record, tools: Sequence[Record] = ()) -> list[Record]:
    asked, answer = _part(number, turn, "Human"), _part(number, turn, "MOSS")
    thought, results = _part(number, turn, "Inner Thoughts"), _part(number, turn, "Tool Responses")
    calls = _calls(number, _part(number, turn, "Commands") or "", tools)
    if asked is None:
        raise Malformed("bad turn", f"turn {number}: no Human")
    said = [message("user", asked)]
    if calls:
        if results is None:
            raise Malformed("bad tool call", f"turn {number}: a command without a response")
        said += [message("assistant", "", thought, calls), message("tool", results)]
        thought = None
    elif results:
        raise Malformed("bad tool call", f"turn {number}: a response without a command")
    return said if answer is None else [*said, message("assistant", answer, thought)]


def _part(number: int, turn: Record, name: str) -> str | None:
    """Return a part without its marks; None where it is absent or says None."""
    value = turn.get(name)
    if value is not None and not isinstance(value, str):
        raise Malformed("bad turn", f"turn {number}: {name} is not text")
    text = END.sub("", START.sub("", value or "")).strip()
    return text if text and (text != "None" or name in ("Human", "MOSS")) else None


def _calls(number: int, commands: str, tools: Sequence[Record]) -> list[Record]:
    """Return `Search("a"), Calculate("1+1")` as tool calls; arguments are a JSON list where no tool
    gives them names.
    """
    try:
        found = notation.commands(commands)
    except ValueError as error:
        raise Malformed("bad tool call", f"turn {number}: {error}") from error
    return [{"name": one.name, "arguments": notation.arguments(one, tools)} for one in found]
