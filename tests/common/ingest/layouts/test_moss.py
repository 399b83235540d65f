"""MOSS: turns in marks, thoughts, commands as tool calls."""

import json
from typing import Any

import pytest

from stages.common.core.records import Record, message
from stages.common.ingest.layouts.fields import Malformed
from tests.support.parse import parse


def turn(**more: str) -> dict[str, Any]:
    return {
        "Human": "<|Human|>: What is new in optics?<eoh>\n",
        "Inner Thoughts": "<|Inner Thoughts|>: None<eot>\n",
        "Commands": "<|Commands|>: None<eoc>\n",
        "Tool Responses": "<|Results|>: None<eor>\n",
        "MOSS": "<|MOSS|>: Metalenses <sup><|1|></sup>.<eom>\n",
    } | {name.replace("_", " "): value for name, value in more.items()}


def test_a_turn_without_tools_is_question_and_answer() -> None:
    row = {"conversation_id": "1", "meta_instruction": "You are MOSS.\n", "num_turns": 1, "chat": {"turn_1": turn()}}
    expected = [
        message("system", "You are MOSS.\n"),
        message("user", "What is new in optics?"),
        message("assistant", "Metalenses <sup><|1|></sup>."),
    ]
    assert parse(row) == ("moss", "conversations", {"messages": expected, "tools": None})


def test_thought_command_and_result_become_a_tool_turn() -> None:
    with_tool = turn(
        Inner_Thoughts="<|Inner Thoughts|>: I should look it up.<eot>\n",
        Commands='<|Commands|>: Search("new \\"optics\\""), Calculate("1+1", "2")<eoc>\n',
        Tool_Responses='<|Results|>:\nSearch("new optics") =>\n<|1|>: "Metalenses"\n<eor>\n',
    )
    said = parse({"chat": {"turn_2": turn(Human="And?"), "turn_1": with_tool, "turn_10": turn(MOSS="Bye.")}})[2][
        "messages"
    ]
    calls = [
        {"name": "Search", "arguments": '["new \\"optics\\""]'},
        {"name": "Calculate", "arguments": '["1+1", "2"]'},
    ]
    assert said[:4] == [
        message("user", "What is new in optics?"),
        message("assistant", "", "I should look it up.", calls),
        message("tool", 'Search("new optics") =>\n<|1|>: "Metalenses"'),
        message("assistant", "Metalenses <sup><|1|></sup>."),
    ]
    assert said[4] == message("user", "And?")
    assert said[-1] == message("assistant", "Bye.")


def test_switches_of_the_meta_instruction_are_tools_which_name_the_arguments() -> None:
    meta = "MOSS.\n- Inner thoughts: enabled.\n- Web search: enabled. API: Search(query)\n- Calculator: disabled.\n"
    commands = '<|Commands|>: Search("quays"), Other("a")<eoc>\n'
    with_tool = turn(Commands=commands, Tool_Responses="<|Results|>:\nFound.\n<eor>\n")
    nothing = turn(Commands="<|Commands|>: None.<eoc>", Tool_Responses="<|Results|>:\nNone\n<eor>\n")
    found = parse({"meta_instruction": meta, "chat": {"turn_1": with_tool, "turn_2": nothing}})[2]
    parameters = {"type": "object", "properties": {"query": {"type": "string"}}}
    assert json.loads(found["tools"]) == [{"name": "Search", "description": "Web search", "parameters": parameters}]
    calls = [{"name": "Search", "arguments": '{"query": "quays"}'}, {"name": "Other", "arguments": '["a"]'}]
    assert found["messages"][2] == message("assistant", "", None, calls)
    assert [one["role"] for one in found["messages"][-2:]] == ["user", "assistant"]


def test_a_thought_without_a_command_belongs_to_the_answer() -> None:
    said = parse({"chat": {"turn_1": turn(Inner_Thoughts="Easy.")}})[2]["messages"]
    assert said[1] == message("assistant", "Metalenses <sup><|1|></sup>.", "Easy.")


@pytest.mark.parametrize(
    "text",
    [
        "[Human]: Hi<eoh> [MOSS]: Hello.<eoa> [Human]: Bye<eoh> [MOSS]: See you.<eoa>",
        "<|Human|>: Hi<eoh>\n<|Inner Thoughts|>: None<eot>\n<|MOSS|>: Hello.<eom>\n"
        "<|Human|>: Bye<eoh>\n<|MOSS|>: See you.<eom>\n",
    ],
)
def test_older_moss_is_one_text(text: str) -> None:
    expected = [
        message("system", "MOSS is an assistant."),
        message("user", "Hi"),
        message("assistant", "Hello."),
        message("user", "Bye"),
        message("assistant", "See you."),
    ]
    row = {"id": 0, "prefix": "MOSS is an assistant.", "num_turns": 2, "plain_text": text}
    assert parse(row) == ("transcript", "conversations", {"messages": expected, "tools": None})
    assert parse({"text": text})[2]["messages"] == expected[1:]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chat": "USER: Hi"}, "bad chat"),
        ({"chat": {}}, "bad chat"),
        ({"chat": {"turn_1": "Hi"}}, "bad chat"),
        ({"chat": {"first": turn()}}, "bad chat"),
        ({"chat": {"turn_1": {"MOSS": "Hello."}}}, "bad turn"),
        ({"chat": {"turn_1": turn() | {"MOSS": 3}}}, "bad turn"),
        ({"chat": {"turn_1": turn(Commands='Search("a")')}}, "bad tool call"),
        ({"chat": {"turn_1": turn(Tool_Responses="Found.")}}, "bad tool call"),
        ({"chat": {"turn_1": turn(Commands="search it", Tool_Responses="Found.")}}, "bad tool call"),
        ({"chat": {"turn_1": turn(Commands='Search("a" "b")', Tool_Responses="Found.")}}, "bad tool call"),
        ({"chat": {"turn_1": turn(Commands="None, I know.")}}, "bad tool call"),
        ({"chat": {"turn_1": turn(Commands='Search("\\x")', Tool_Responses="Found.")}}, "bad tool call"),
        ({"plain_text": "[Human]: Hi<eoh> so he said [MOSS]: Hello.<eoa>"}, "bad transcript"),
        ({"plain_text": "[Human]: Hi<eoh> [MOSS]: Hello."}, "bad transcript"),
        ({"plain_text": "[Human]: Hi"}, "bad transcript"),
        ({"plain_text": "[MOSS]: Hello.<eoa>"}, "bad transcript"),
        ({"plain_text": ["Hi"]}, "bad plain_text"),
    ],
)
def test_a_malformed_row_is_refused_with_a_reason(row: Record, reason: str) -> None:
    with pytest.raises(Malformed) as refusal:
        parse(row)
    assert refusal.value.reason == reason
