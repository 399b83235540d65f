"""How MOSS writes what it may use and what it does: plugins switched on in its meta instruction,
commands such as `Search("…"), Calculate("1+1")`.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

Tool = dict[str, Any]

OWN_NAMES = {"Search": "search", "Calculate": "calculator"}
"""What MOSS calls tools that have another name here; `moss.jinja` has the same."""
SWITCH = re.compile(r"^- ([\w -]{1,64}): enabled\. API: ([A-Za-z_]\w{0,63})\(([\w, ]{0,200})\)", re.MULTILINE)
NAME, COMMA = re.compile(r"\s*([A-Za-z_][\w.-]*)\("), re.compile(r"\s*[,;]?\s*")
NONE = re.compile(r"\s*None[.。]?\s*\Z")
VALUES = json.JSONDecoder(strict=False)


class Command(NamedTuple):
    """A call as it is written: a name, and values without names."""

    name: str
    values: list[Any]


def switched_on(instruction: str) -> list[Tool]:
    """Return the plugins that a meta instruction switches on (`- Web search: enabled. API:
    Search(query)`) as functions.
    """
    return [
        {"name": name, "description": label, "parameters": {"type": "object", "properties": _properties(names)}}
        for label, name, names in SWITCH.findall(instruction)
    ]


def _properties(names: str) -> dict[str, Any]:
    return {name.strip(): {"type": "string"} for name in names.split(",") if name.strip()}


def commands(text: str) -> list[Command]:
    """Return the commands of a turn; `None` is none. Raises ValueError."""
    found, end = [], 0
    if NONE.match(text):
        return []
    while end < len(text):
        called = NAME.match(text, end)
        if not called:
            raise ValueError('not a call of the form Name("…")')
        values, end = _values(text, called.end())
        found.append(Command(called[1], values))
        end = _skipped(text, end)
    return found


def _values(text: str, start: int) -> tuple[list[Any], int]:
    """Return the values up to the closing parenthesis, and where it ends."""
    values: list[Any] = []
    at = _spaces(text, start)
    while not text.startswith(")", at):
        if values:
            if not text.startswith(",", at):
                raise ValueError('not a call of the form Name("…")')
            at = _spaces(text, at + 1)
        value, at = VALUES.raw_decode(text, at)
        values.append(value)
        at = _spaces(text, at)
    return values, at + 1


def _spaces(text: str, at: int) -> int:
    while text[at : at + 1].isspace():
        at += 1
    return at


def _skipped(text: str, at: int) -> int:
    found = COMMA.match(text, at)
    return found.end() if found else at


def arguments(command: Command, tools: Sequence[Tool]) -> str:
    """Return a command's values as JSON, under the names that its tool gives them; a list where no
    tool says so.
    """
    if len(command.values) == 1 and isinstance(command.values[0], dict):
        return json.dumps(command.values[0], ensure_ascii=False)
    names = next((list(_parameters(tool)) for tool in tools if tool.get("name") == command.name), [])
    named = len(command.values) <= len(names)
    given = dict(zip(names, command.values, strict=False)) if named and names else command.values
    return json.dumps(given, ensure_ascii=False)


def _parameters(tool: Tool) -> dict[str, Any]:
    schema = tool.get("parameters")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return properties if isinstance(properties, dict) else {}
