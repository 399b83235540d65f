"""The row formats `ingest` knows: one pure parser each, from a JSON object to a record without id and source.

`recognise` names the format by a row's keys, so a file may mix them. A parser raises `Malformed`: nothing is guessed.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any

from stages.common.records import Record, Shape, message

Parser = Callable[[Record], Record]

SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}
OPENAI_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


class Malformed(Exception):
    """A row that cannot become a record: `reason` is one of a few words to count by, `detail` says where in the row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


def recognise(row: Record) -> str | None:
    """Return the name of the row's format in `FORMATS`, or None."""
    if "conversations" in row:
        return "sharegpt comparison" if "chosen" in row and "rejected" in row else "sharegpt"
    if "messages" in row:
        if "group" in row:
            return "question"
        asked = _last_role(row["messages"]) == "user"
        return "prompt" if asked and ("reference" in row or "category" in row) else "messages"
    if "prompt" in row and "responses" in row:
        return "comparison"
    return "text" if "text" in row else None


def text(row: Record) -> Record:
    """`{"text": …}` -> document."""
    return {"text": _string(row, "text")}


def sharegpt(row: Record) -> Record:
    """`{"conversations": [{"from", "value"}, …], "tools"?, "system"?}` -> conversation."""
    turns = _turns(row["conversations"])
    messages = [_sharegpt_turn(number, turn) for number, turn in enumerate(turns, 1)]
    system = row.get("system")
    if isinstance(system, str) and system:
        messages.insert(0, message("system", system))
    return {"messages": messages, "tools": _tools(row)}


def sharegpt_comparison(row: Record) -> Record:
    """ShareGPT turns with a `chosen` and a `rejected` answer -> comparison with ranks [1, 2]."""
    prompt = sharegpt(row)
    responses = [_answer(row, "chosen"), _answer(row, "rejected")]
    return {"prompt": prompt["messages"], "responses": responses, "ranks": [1, 2], "tools": prompt["tools"]}


def messages(row: Record) -> Record:
    """OpenAI's `{"messages": [{"role", "content", "tool_calls"?}, …], "tools"?}` -> conversation."""
    return {"messages": _openai_turns(row["messages"]), "tools": _tools(row)}


def prompt(row: Record) -> Record:
    """Messages that end with the user, with a reference or a category -> prompt."""
    reference, category = _optional_string(row, "reference"), _optional_string(row, "category")
    return {"messages": _openai_turns(row["messages"]), "reference": reference, "category": category}


def question(row: Record) -> Record:
    """Messages with a reference and a group -> test question."""
    record = {"messages": _openai_turns(row["messages"]), "category": _optional_string(row, "category")}
    return record | {"reference": _string(row, "reference"), "group": _string(row, "group")}


def comparison(row: Record) -> Record:
    """`{"prompt": str or messages, "responses": [str], "ranks": [int]}` -> comparison; rank 1 is the best."""
    given, responses, ranks = row["prompt"], row["responses"], row.get("ranks")
    if not isinstance(responses, list) or not all(isinstance(response, str) for response in responses):
        raise Malformed("bad responses", "not a list of texts")
    if not isinstance(ranks, list) or len(ranks) != len(responses) or len(ranks) < 2:
        raise Malformed("bad ranks", f"{len(responses)} responses need as many ranks, and at least two")
    if not all(type(rank) is int and rank <= len(ranks) for rank in ranks) or min(ranks) != 1:
        raise Malformed("bad ranks", f"ranks are whole numbers from 1 (the best) to {len(ranks)}")
    categories = row.get("categories")
    if categories is not None and not (isinstance(categories, list) and all(isinstance(c, str) for c in categories)):
        raise Malformed("bad categories", "not a list of texts")
    return {
        "prompt": [message("user", given)] if isinstance(given, str) else _openai_turns(given),
        "responses": responses,
        "ranks": ranks,
        "annotator": _optional_string(row, "annotator"),
        "categories": categories,
        "tools": _tools(row),
    }


FORMATS: dict[str, tuple[Shape, Parser]] = {
    "text": ("documents", text),
    "sharegpt": ("conversations", sharegpt),
    "sharegpt comparison": ("comparisons", sharegpt_comparison),
    "messages": ("conversations", messages),
    "comparison": ("comparisons", comparison),
    "prompt": ("prompts", prompt),
    "question": ("questions", question),
}


def _last_role(turns: Any) -> Any:
    return turns[-1].get("role") if isinstance(turns, list) and turns and isinstance(turns[-1], dict) else None


def _turns(value: Any) -> list[Record]:
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        raise Malformed("bad turn", "the turns are not a list of objects, or there are none")
    return value


def _sharegpt_turn(number: int, turn: Record) -> Record:
    speaker, value = turn.get("from"), turn.get("value")
    if not isinstance(speaker, str) or speaker not in SHAREGPT_ROLES:
        raise Malformed("bad role", f"turn {number}: {speaker!r}")
    if not isinstance(value, str):
        raise Malformed("bad turn", f"turn {number}: the value is not text")
    if speaker == "function_call":
        return message("assistant", "", tool_calls=_function_call(number, value))
    return message(SHAREGPT_ROLES[speaker], value)


def _function_call(number: int, value: str) -> list[Record]:
    try:
        calls = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Malformed("bad tool call", f"turn {number}: not JSON") from error
    return [_tool_call(number, call) for call in (calls if isinstance(calls, list) else [calls])]


def _openai_turns(value: Any) -> list[Record]:
    return [_openai_turn(number, turn) for number, turn in enumerate(_turns(value), 1)]


def _openai_turn(number: int, turn: Record) -> Record:
    role, calls = turn.get("role"), turn.get("tool_calls")
    if not isinstance(role, str) or role not in OPENAI_ROLES:
        raise Malformed("bad role", f"turn {number}: {role!r}")
    if calls is not None and not isinstance(calls, list):
        raise Malformed("bad tool call", f"turn {number}: tool_calls is not a list")
    tool_calls = [_tool_call(number, call) for call in calls or []] or None
    thought = turn.get("thought")
    if thought is not None and not isinstance(thought, str):
        raise Malformed("bad turn", f"turn {number}: the thought is not text")
    content = _content(number, turn.get("content"), may_be_null=tool_calls is not None)
    return message(OPENAI_ROLES[role], content, thought, tool_calls)


def _content(number: int, value: Any, *, may_be_null: bool) -> str:
    if value is None and may_be_null:
        return ""
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


def _tool_call(number: int, call: Any) -> Record:
    """Accept OpenAI's `{"function": {"name", "arguments"}}` and the bare `{"name", "arguments"}`."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Malformed("bad tool call", f"turn {number}: no name")
    arguments = function.get("arguments", {})
    return {"name": function["name"], "arguments": arguments if isinstance(arguments, str) else _json(arguments)}


def _tools(row: Record) -> str | None:
    """Return the row's tools as one JSON list, or None when there are none."""
    tools = row.get("tools")
    try:
        listed = json.loads(tools) if isinstance(tools, str) and tools.strip() else tools or []
    except (ValueError, RecursionError) as error:
        raise Malformed("bad tools", "not JSON") from error
    if not isinstance(listed, list):
        raise Malformed("bad tools", "not a list")
    return _json(listed) if listed else None


def _answer(row: Record, key: str) -> str:
    """Return the answer under `key`: text, or a ShareGPT turn that holds it."""
    return _string(row[key], "value") if isinstance(row[key], dict) else _string(row, key)


def _string(row: Record, key: str) -> str:
    if not isinstance(row.get(key), str):
        raise Malformed(f"bad {key}", "not text")
    value: str = row[key]
    return value


def _optional_string(row: Record, key: str) -> str | None:
    return None if row.get(key) is None else _string(row, key)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
