"""Turns of talk as objects: ShareGPT's `from` and `value`, OpenAI's `role` and `content`, pairs of
question and answer; tool calls, tools and thoughts.
"""

import json
import re
from typing import Any, NamedTuple

from stages.common.core.records import Record, message
from stages.common.ingest.layouts import meaning
from stages.common.ingest.layouts.fields import Fields, Malformed, as_json, first, peek, string, whole
from stages.common.ingest.layouts.meaning import answer, thought

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bot", "bing", "bard", "model"), "assistant"),
    **dict.fromkeys(("observation", "tool", "function", "tool_response", "function_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
}
SHAREGPT_KEYS = ("conversations", "conversation", "items")
SYSTEM_KEYS = ("system", "system_prompt", "meta_instruction")
PAIRS = (
    *(("human", "assistant"), ("user", "assistant"), ("input", "output"), ("instruction", "output")),
    *(("question", "answer"), ("query", "response"), ("prompt", "response"), ("问", "答")),
)
"""Keys of a turn that holds a question and its answer (Firefly, Capybara, ms-swift)."""
TEXT_PARTS, THOUGHT_PARTS = ("text", "input_text", "output_text"), ("reasoning", "thinking")
CALL_PART = "tool_call"


class Turn(NamedTuple):
    """A message, whether it is a turn of tool calls alone, and the ids that tie results to
    calls.
    """

    message: Record
    calls: bool = False
    ids: tuple[str | None, ...] = ()


def sharegpt(row: Record) -> Record:
    """`{"conversations": [{"from", "value"}, …], "tools"?, "system"?}` -> conversation."""
    said = turns(row[first(row, SHAREGPT_KEYS) or SHAREGPT_KEYS[0]])
    return {"messages": with_system(row, said), "tools": tools(row)}


def messages(row: Record) -> Record:
    """OpenAI's `{"messages": [{"role", "content", "tool_calls"?}, …], "tools"?}` ->
    conversation.
    """
    return {"messages": with_system(row, turns(row["messages"])), "tools": tools(row)}


def turns(value: Any) -> list[Record]:
    """Return a list of turn objects, of any kind, as messages. Raises Malformed."""
    if isinstance(value, dict):
        value = (value if isinstance(value, Fields) else Fields(value)).rows()
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        raise Malformed("bad turn", "the turns are not a list of objects, or there are none")
    found: list[Turn] = []
    for number, one in enumerate(value, 1):
        for turn in _turns(number, one):
            before = found[-1].message if found else None
            if turn.calls and before and before["role"] == "assistant":  # what is said, and the calls it leads to
                calls = [*(before["tool_calls"] or []), *turn.message["tool_calls"]]
                found[-1] = Turn(before | {"tool_calls": calls}, ids=(*found[-1].ids, *turn.ids))
            else:
                found.append(turn)
    said = [turn.message for turn in _in_order(found)]
    return [one for one in said if one["role"] != "system" or one["content"].strip()] or said


def with_system(row: Record, said: list[Record], keys: tuple[str, ...] = SYSTEM_KEYS) -> list[Record]:
    """Return messages with the row's system prompt, if it has one, before them."""
    key = first(row, keys)
    if key is None or not string(row, key).strip():
        return said
    start = [message("system", string(row, key))]
    return said if said[:1] == start else start + said


def tools(row: Record) -> str | None:
    """Return the row's tools as one JSON list, or None when there are none. Raises Malformed."""
    given = whole(row, "tools")
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
    role = value[-1].get("role") if isinstance(value, list) and value and isinstance(value[-1], dict) else None
    return role.lower() if isinstance(role, str) else role


def _in_order(found: list[Turn]) -> list[Turn]:
    """Return turns with the results of several calls in the order of the calls, where ids say
    it.
    """
    ordered: list[Turn] = []
    while len(ordered) < len(found):
        at = len(ordered)
        end = at
        while end < len(found) and found[end].message["role"] == "tool":
            end += 1
        calls = found[at - 1].ids if at else ()
        results = found[at:end]
        names = [turn.ids[0] for turn in results]
        if len(names) > 1 and len({*names}) == len(names) and {*names} <= {*calls} - {None}:
            results = sorted(results, key=lambda turn: calls.index(turn.ids[0]))
        ordered += results or [found[at]]
    return ordered


def _turns(number: int, turn: Record) -> list[Turn]:
    """Return what a turn object holds: one message, or a question and its answer."""
    if "from" in turn:
        return [_sharegpt_turn(number, turn)]
    if "role" not in turn:
        for asked, answered in PAIRS:
            if asked in turn and answered in turn:
                return [*_pair(number, turn, asked, answered)]
        raise Malformed("bad role", f"turn {number}: no role or from; keys: {', '.join(map(str, turn))}"[:200])
    return [_turn(number, turn)]


def _pair(number: int, turn: Record, asked: str, answered: str) -> list[Turn]:
    question, reply = turn.get(asked), turn.get(answered)
    if not isinstance(question, str) or not isinstance(reply, str):
        raise Malformed("bad turn", f"turn {number}: {asked} or {answered} is not text")
    meaning.learned(turn, f"turn {number}: ")
    said = with_system(turn, [message("user", question)])
    return [*(Turn(one) for one in said), Turn(answer(reply, thought(turn, number)))]


def _sharegpt_turn(number: int, turn: Record) -> Turn:
    role, value = _role(number, turn["from"]), turn.get("value")
    if not isinstance(value, str):
        raise Malformed("bad turn", f"turn {number}: the value is {'null' if value is None else 'not text'}")
    if role == "call":
        return Turn(message("assistant", "", None, _function_call(number, value)), calls=True)
    if role != "assistant":
        meaning.ignore_weight(turn)
        return Turn(message(role, value), ids=(None,))
    meaning.learned(turn, f"turn {number}: ")
    return Turn(answer(value, thought(turn, number)))


def _function_call(number: int, value: str) -> list[Record]:
    try:
        calls = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Malformed("bad tool call", f"turn {number}: not JSON") from error
    return _tool_calls(number, calls if isinstance(calls, list) else [calls])


def _turn(number: int, turn: Record) -> Turn:
    role = _role(number, turn.get("role"))
    if role == "call":
        bare = peek(turn, "content") is None and peek(turn, "name") is not None
        made = _tool_calls(number, [turn]) if bare else _function_call(number, _content(number, turn)[0])
        return Turn(message("assistant", "", None, made), calls=True)
    calls: Any = turn.get("tool_calls")
    if calls is None and isinstance(peek(turn, "function_call"), dict):
        calls = [turn["function_call"]]
    if calls is not None and not isinstance(calls, list):
        raise Malformed("bad tool call", f"turn {number}: tool_calls is not a list")
    called = _tool_calls(number, calls) if calls else None
    content, inner = ("", None) if called and peek(turn, "content") is None else _content(number, turn)
    inside = turn["content"] if isinstance(peek(turn, "content"), list) else []
    for part in (part for part in inside if peek(part, "type") == CALL_PART):
        part.get("type")
        called = [*(called or []), *_function_call(number, string(part, "value"))]
    if role != "assistant":
        meaning.ignore_weight(turn)
        said = message(role, content, thought(turn, number), called)
        return Turn(said, ids=(turn.get("tool_call_id"),) if role == "tool" else ())
    meaning.learned(turn, f"turn {number}: ")
    said = answer(content, "\n".join(part for part in (thought(turn, number), inner) if part) or None)
    ids = tuple(call.get("id") if isinstance(call, dict) else None for call in calls or [])
    return Turn(said | {"tool_calls": called}, ids=ids)


def _role(number: int, name: Any) -> str:
    role = (ROLES.get(name) or ROLES.get(name.strip().lower())) if isinstance(name, str) else None
    if role is None:
        raise Malformed("bad role", f"turn {number}: {name!r}"[:200])
    return role


def _content(number: int, turn: Record) -> tuple[str, str | None]:
    """Return what a turn says, and the thought among its parts, if there is one."""
    value = turn.get("content")
    if value is None:
        raise Malformed("bad turn", f"turn {number}: the content is null, and it has no tool calls")
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        thoughts = [_part(number, part) for part in value if peek(part, "type") in THOUGHT_PARTS]
        texts = [_part(number, part) for part in value if peek(part, "type") not in (*THOUGHT_PARTS, CALL_PART)]
        return "".join(texts), "\n".join(thoughts) or None
    if not isinstance(value, str):
        raise Malformed("bad turn", f"turn {number}: the content is not text")
    return value, None


def _part(number: int, part: Record) -> str:
    """Return the text of a part of OpenAI's content. Raises Malformed for one that is no text."""
    kind = part.get("type")
    if kind in TEXT_PARTS or kind in THOUGHT_PARTS:
        text = part.get(first(part, ("text", "value", kind)) or "text")
        if isinstance(text, str):
            return text
        raise Malformed("bad turn", f"turn {number}: a part without text")
    medium = re.search("image|audio|video", kind) if isinstance(kind, str) else None
    if medium:
        raise Malformed(f"refers to {meaning.MEDIA_NAMES[medium[0]]}", f"turn {number}: a part of type {kind}")
    raise Malformed("bad turn", f"turn {number}: a part of type {kind!r}"[:200])


def _tool_calls(number: int, calls: list[Any]) -> list[Record]:
    """Accept OpenAI's `{"function": {"name", "arguments"}}` and the bare `{"name",
    "arguments"}`.
    """
    made = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Malformed("bad tool call", f"turn {number}: no name")
        call.get("type")
        arguments = whole(function, "arguments")
        arguments = {} if arguments is None else arguments
        made.append(
            {"name": function["name"], "arguments": arguments if isinstance(arguments, str) else as_json(arguments)}
        )
    return made
