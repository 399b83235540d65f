"""Turns as objects, ShareGPT's and OpenAI's, parsed to the messages they mean; and rows that mean
none.
"""

import json
from typing import Any

import pytest

from stages.common.core.records import Record, message
from stages.common.ingest.layouts.fields import Malformed
from tests.support.parse import parse

CALL = {"name": "weather", "arguments": '{"city": "北京"}'}
TOOLS = [{"name": "weather", "parameters": {}}]


def test_text() -> None:
    assert parse({"text": "One.", "url": "x"}) == ("text", "documents", {"text": "One."})


def test_sharegpt_with_system_and_tools() -> None:
    row = {
        "system": "Be brief.",
        "conversations": [
            {"from": "human", "value": "北京天气？"},
            {"from": "function_call", "value": json.dumps({"name": "weather", "arguments": {"city": "北京"}})},
            {"from": "observation", "value": "晴"},
            {"from": "gpt", "value": "晴天。"},
        ],
        "tools": json.dumps(TOOLS),
    }
    turns = [
        message("system", "Be brief."),
        message("user", "北京天气？"),
        message("assistant", "", tool_calls=[CALL]),
        message("tool", "晴"),
        message("assistant", "晴天。"),
    ]
    expected = {"messages": turns, "tools": json.dumps(TOOLS)}
    assert parse(row) == ("sharegpt", "conversations", expected)


def test_sharegpt_with_chosen_and_rejected_is_a_comparison() -> None:
    row = {"conversations": [{"from": "human", "value": "Hi"}], "chosen": "Hello.", "rejected": {"value": "Go."}}
    expected = {"prompt": [message("user", "Hi")], "responses": ["Hello.", "Go."], "ranks": [1, 2], "tools": None}
    assert parse(row) == ("sharegpt comparison", "comparisons", expected)


def test_openai_messages_with_parts_and_tool_calls() -> None:
    row = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Wea"}, {"type": "text", "text": "ther?"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": CALL}]},
            {"role": "tool", "tool_call_id": "1", "content": "sunny"},
            {"role": "assistant", "content": "Sunny.", "thought": "Easy."},
        ],
        "tools": [],
    }
    turns = [
        message("system", "Be brief."),
        message("user", "Weather?"),
        message("assistant", "", tool_calls=[CALL]),
        message("tool", "sunny"),
        message("assistant", "Sunny.", "Easy."),
    ]
    assert parse(row) == ("messages", "conversations", {"messages": turns, "tools": None})


def test_messages_that_end_with_the_user_are_a_prompt_only_with_a_reference_or_a_category() -> None:
    asked = [{"role": "user", "content": "1+1?"}]
    expected = {"messages": [message("user", "1+1?")], "reference": "2", "category": None}
    assert parse({"messages": asked, "reference": "2"}) == ("prompt", "prompts", expected)
    assert parse({"messages": asked, "category": "sums"})[1] == "prompts"
    assert parse({"messages": asked})[1] == "conversations"


def test_messages_with_a_group_are_a_question() -> None:
    row = {"messages": [{"role": "user", "content": "1+1?"}], "reference": "2", "group": "iid", "category": "sums"}
    expected = {"messages": [message("user", "1+1?")], "reference": "2", "group": "iid", "category": "sums"}
    assert parse(row) == ("question", "questions", expected)


def test_roles_of_either_kind_thoughts_and_old_function_calls() -> None:
    turns = [
        {"role": "human", "content": "Hi"},
        {"role": "assistant", "reasoning_content": "Look.", "content": None, "function_call": CALL},
        {"role": "function", "content": "sunny"},
        {"from": "tool_call", "value": json.dumps([{"name": "stop"}, {"name": "go", "arguments": None}])},
        {"from": "tool_response", "value": "done"},
        {"from": "chatgpt", "value": "Sunny."},
    ]
    expected = [
        message("user", "Hi"),
        message("assistant", "", "Look.", [CALL]),
        message("tool", "sunny"),
        message("assistant", "", None, [{"name": "stop", "arguments": "{}"}, {"name": "go", "arguments": "{}"}]),
        message("tool", "done"),
        message("assistant", "Sunny."),
    ]
    assert parse({"conversation": turns})[2]["messages"] == expected
    assert parse({"messages": turns})[2]["messages"] == expected


def test_turns_stored_as_columns_are_rows_again() -> None:
    row = {"conversations": {"from": ["human", "gpt"], "value": ["Hi", "Hello."]}}
    assert parse(row)[2]["messages"] == [message("user", "Hi"), message("assistant", "Hello.")]


def test_a_system_prompt_beside_the_turns_stands_first_and_once() -> None:
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    expected = [message("system", "Be brief."), message("user", "Hi")]
    assert parse({"system_prompt": "Be brief.", "messages": said})[2]["messages"] == expected
    assert parse({"system_prompt": "Be brief.", "messages": said[1:]})[2]["messages"] == expected
    assert parse({"system": " ", "messages": said[1:]})[2]["messages"] == expected[1:]


def user(content: Any = "Hi", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content} | more


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": 1}, "bad text"),
        ({"conversations": "Hi"}, "bad turn"),
        ({"conversations": []}, "bad turn"),
        ({"conversations": [{"from": "human", "value": None}]}, "bad turn"),
        ({"conversations": [{"from": "nobody", "value": "Hi"}]}, "bad role"),
        ({"conversations": [{"from": ["human"], "value": "Hi"}]}, "bad role"),
        ({"conversations": [{"from": "function_call", "value": "call me"}]}, "bad tool call"),
        ({"conversations": [{"from": "function_call", "value": '{"arguments": {}}'}]}, "bad tool call"),
        ({"conversations": [{"from": "human", "value": "Hi"}], "tools": "no JSON"}, "bad tools"),
        ({"conversations": [{"from": "human", "value": "Hi"}], "tools": {"a": 1}}, "bad tools"),
        ({"conversations": [{"from": "human", "value": "Hi"}], "chosen": 1, "rejected": "b"}, "bad chosen"),
        ({"messages": [user(None)]}, "bad turn"),
        ({"messages": [user([{"type": "image_url"}])]}, "refers to images"),
        ({"messages": [user([{"type": "text", "text": 1}])]}, "bad turn"),
        ({"messages": [user(thought=1)]}, "bad turn"),
        ({"messages": [user(tool_calls="x")]}, "bad tool call"),
        ({"messages": [user(tool_calls=[{"function": "x"}])]}, "bad tool call"),
        ({"messages": [{"role": "poet", "content": "Hi"}]}, "bad role"),
        ({"messages": [user()], "group": "iid"}, "bad reference"),
        ({"messages": [user()], "group": 3, "reference": "2"}, "bad group"),
        ({"messages": [user()], "reference": 2}, "bad reference"),
        ({"conversations": {"from": ["human"], "value": []}}, "bad turn"),
        ({"conversations": [{"from": "human", "value": "Hi"}], "system": 1}, "bad system"),
        ({"messages": [{"role": "function_call", "content": "call me"}]}, "bad tool call"),
    ],
)
def test_a_malformed_row_is_refused_with_a_reason(row: Record, reason: str) -> None:
    with pytest.raises(Malformed) as refusal:
        parse(row)
    assert refusal.value.reason == reason
