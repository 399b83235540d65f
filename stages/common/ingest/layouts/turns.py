"""Turns of talk as objects: ShareGPT's `from` and `value`, OpenAI's `role` and `content`, tool
calls and tools.
"""

import json
from collections.abc import Iterable
from typing import Any

from stages.common.core.records import Record, message
from stages.common.ingest.layouts.fields import Malformed, as_json, first, optional_string, string

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bot"), "assistant"),
    **dict.fromkeys(("observation", "tool", "function", "tool_response", "function_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
}
SHAREGPT_KEYS = ("conversations", "conversation")
SYSTEM_KEYS = ("system", "system_prompt", "meta_instruction")
THOUGHT_KEYS = ("thought", "reasoning_content")


def sharegpt(row: Record) -> Record:
    """`{"conversations": [{"from", "value"}, …], "tools"?, "system"?}` -> conversation."""
    return {
        "messages": with_system(row, turns(row[first(row, SHAREGPT_KEYS) or SHAREGPT_KEYS[0]])),
        "tools": tools(row),
    }


def messages(row: Record) -> Record:
    """OpenAI's `{"messages": [{"role", "content", "tool_calls"?}, …], "tools"?}` ->
    conversation.
    """
    return {"messages": with_system(row, turns(row["messages"])), "tools": tools(row)}


def prompt(row: Record) -> Record:
    """Messages that end with the user, with a reference or a category -> prompt."""
    reference, category = optional_string(row, "reference"), optional_string(row, "category")
    return {"messages": turns(row["messages"]), "reference": reference, "category": category}


def question(row: Record) -> Record:
    """Messages with a reference and a group -> test question."""
    record = {"messages": turns(row["messages"]), "category": optional_string(row, "category")}
    return record | {"reference": string(row, "reference"), "group": string(row, "group")}


def turns(value: Any) -> list[Record]:
    """Return a list of turn objects, either kind, as messages. Raises Malformed."""
    if isinstance(value, dict):
        value = _from_columns(value)
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        raise Malformed("bad turn", "the turns are not a list of objects, or there are none")
    return [_sharegpt_turn(number, one) if "from" in one else _turn(number, one) for number, one in enumerate(value, 1)]


def with_system(row: Record, said: list[Record], keys: tuple[str, ...] = SYSTEM_KEYS) -> list[Record]:
    """Return messages with the row's system prompt, if it has one, before them."""
    key = first(row, keys)
    if key is None or not string(row, key).strip():
        return said
    start = [message("system", string(row, key))]
    return said if said[:1] == start else start + said


def tools(row: Record) -> str | None:
    """Return the row's tools as one JSON list, or None when there are none. Raises Malformed."""
    given = row.get("tools")
    if given is None:
        return None
    try:
        listed = json.loads(given) if isinstance(given, str) and given.strip() else given or []
    except (ValueError, RecursionError) as error:
        raise Malformed("bad tools", "not JSON") from error
    if not isinstance(listed, list):
        raise Malformed("bad tools", "not a list")
    return as_json(listed) if listed else None


def last_role(value: Any) -> Any:
    """Return the role of the last of OpenAI's turns, or None where there is none."""
    return value[-1].get("role") if isinstance(value, list) and value and isinstance(value[-1], dict) else None


def _from_columns(value: Record) -> list[Record]:
    """Return a mapping of lists (how old Hugging Face data sets store a list of turns) as a list of
    mappings.
    """
    lists = list(value.values())
    if not lists or not all(isinstance(column, list) and len(column) == len(lists[0]) for column in lists):
        raise Malformed("bad turn", "the turns are an object, and not of lists of one length")
    return [dict(zip(value, parts, strict=True)) for parts in zip(*lists, strict=True)]


def _sharegpt_turn(number: int, turn: Record) -> Record:
    role, value = _role(number, turn["from"]), turn.get("value")
    if not isinstance(value, str):
        raise Malformed("bad turn", f"turn {number}: the value is not text")
    return message("assistant", "", None, _function_call(number, value)) if role == "call" else message(role, value)


def _function_call(number: int, value: str) -> list[Record]:
    try:
        calls = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Malformed("bad tool call", f"turn {number}: not JSON") from error
    return _tool_calls(number, calls if isinstance(calls, list) else [calls])


def _turn(number: int, turn: Record) -> Record:
    role = _role(number, turn.get("role"))
    if role == "call":
        return message("assistant", "", None, _function_call(number, _content(number, turn.get("content"))))
    calls = turn.get("tool_calls")
    if calls is None and isinstance(turn.get("function_call"), dict):
        calls = [turn["function_call"]]
    if calls is not None and not isinstance(calls, list):
        raise Malformed("bad tool call", f"turn {number}: tool_calls is not a list")
    made = _tool_calls(number, calls) if calls else None
    thought = turn.get(first(turn, THOUGHT_KEYS) or "thought")
    if thought is not None and not isinstance(thought, str):
        raise Malformed("bad turn", f"turn {number}: the thought is not text")
    return message(
        role, "" if made and turn.get("content") is None else _content(number, turn.get("content")), thought, made
    )


def _role(number: int, name: Any) -> str:
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise Malformed("bad role", f"turn {number}: {name!r}"[:200])
    return role


def _content(number: int, value: Any) -> str:
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        value = "".join(_part_texts(number, value))
    if not isinstance(value, str):
        raise Malformed("bad turn", f"turn {number}: the content is not text")
    return value


def _part_texts(number: int, parts: list[Record]) -> Iterable[str]:
    for part in parts:
        if not isinstance(part.get("text"), str):
            raise Malformed("bad turn", f"turn {number}: a part without text")
        yield part["text"]


def _tool_calls(number: int, calls: list[Any]) -> list[Record]:
    """Accept OpenAI's `{"function": {"name", "arguments"}}` and the bare `{"name",
    "arguments"}`.
    """
    made = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Malformed("bad tool call", f"turn {number}: no name")
        arguments = function.get("arguments")
        arguments = {} if arguments is None else arguments
        made.append(
            {"name": function["name"], "arguments": arguments if isinstance(arguments, str) else as_json(arguments)}
        )
    return made
