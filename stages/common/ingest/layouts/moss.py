"""MOSS: a turn is Human, Inner Thoughts, Commands, Tool Responses and MOSS, each in marks
(`<|Human|>: … <eoh>`).
"""

import json
import re
from typing import Any

from stages.common.core.records import Record, message
from stages.common.ingest.layouts.fields import Malformed, as_json
from stages.common.ingest.layouts.turns import with_system

START, END = re.compile(r"\A\s*<\|[\w ]+\|>\s*:"), re.compile(r"<eo[a-z]>\s*\Z")
TURN_NAME = re.compile(r"turn_(\d{1,6})")
PART = re.compile(r"(?:<\|([\w ]+)\|>|\[(Human|MOSS)\])\s*:(.*?)<eo[a-z]>", re.DOTALL)
PART_NAMES = {"Results": "Tool Responses"}
JSON_STRING = r'"(?:[^"\\]|\\.)*"'
COMMAND = re.compile(
    rf"\s*([A-Za-z_]\w*)\(\s*((?:{JSON_STRING}(?:\s*,\s*{JSON_STRING})*)?)\s*\)\s*(?:[,;]|\Z)", re.DOTALL
)


def moss(row: Record) -> Record:
    """`{"meta_instruction"?, "chat": {"turn_1": {"Human", …, "MOSS"}, …}}` -> conversation."""
    chat = row["chat"]
    if not isinstance(chat, dict) or not chat:
        raise Malformed("bad chat", "not an object of turns, or there are none")
    numbered: dict[int, Any] = {}
    for name in chat:
        found, turn = TURN_NAME.fullmatch(name), chat[name]
        if not found or not isinstance(turn, dict):
            raise Malformed("bad chat", f"{name[:50]!r} is no turn")
        numbered[int(found[1])] = turn
    said = [one for number in sorted(numbered) for one in _turn(number, numbered[number])]
    return {"messages": with_system(row, said), "tools": None}


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


def _turn(number: int, turn: Record) -> list[Record]:
    asked, answer = _part(number, turn, "Human"), _part(number, turn, "MOSS")
    thought, results = _part(number, turn, "Inner Thoughts"), _part(number, turn, "Tool Responses")
    commands = _part(number, turn, "Commands")
    if asked is None:
        raise Malformed("bad turn", f"turn {number}: no Human")
    said = [message("user", asked)]
    if commands:
        if results is None:
            raise Malformed("bad tool call", f"turn {number}: a command without a response")
        said += [message("assistant", "", thought, _calls(number, commands)), message("tool", results)]
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


def _calls(number: int, commands: str) -> list[Record]:
    """Return `Search("a"), Calculate("1+1")` as tool calls; arguments are a JSON list, as MOSS
    gives them no names.
    """
    made, end = [], 0
    while end < len(commands):
        found = COMMAND.match(commands, end)
        if not found:
            raise Malformed("bad tool call", f'turn {number}: not a call of the form Name("…")')
        try:
            arguments = json.loads(f"[{found[2]}]", strict=False)
        except ValueError as error:
            raise Malformed("bad tool call", f"turn {number}: {error}") from error
        made.append({"name": found[1], "arguments": as_json(arguments)})
        end = found.end()
    return made
