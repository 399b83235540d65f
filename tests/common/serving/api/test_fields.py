"""What a request may hold: what asks for nothing is taken, the rest is heeded or refused by its
name, and docs/serve.md says which is which.
"""

import json
import re
import typing
from pathlib import Path
from typing import Any

import pytest
from openai.types import completion_create_params
from openai.types.chat import ChatCompletion
from openai.types.chat import completion_create_params as chat_create_params
from pydantic import ValidationError

from stages.common.serving.api.bounds import Bounds
from stages.common.serving.api.completions import CompletionRequest
from stages.common.serving.api.errors import Refusal, invalid
from stages.common.serving.api.fields import Decoding
from stages.common.serving.api.schema import ChatMessage, ChatRequest
from stages.common.serving.api.tools import Tools

DOCS = Path(__file__).parents[4] / "docs" / "serve.md"
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}]}
BOUNDS = Bounds(64, 0.7, Tools((), Path()), 1)
SPOKEN = {"role": "assistant", "content": "Hello"}


def read(body: dict[str, Any], schema: type[Decoding] = ChatRequest) -> Any:
    try:
        return schema.model_validate_json(json.dumps(body))
    except ValidationError as error:
        raise invalid(error, schema) from error


@pytest.mark.parametrize("schema", [ChatRequest, CompletionRequest])
def test_null_is_the_default_of_every_field(schema: type[Decoding]) -> None:
    bare = ASK if schema is ChatRequest else {"prompt": "a"}
    nulls = {name: None for name in [*schema.model_fields, *schema.NEUTRAL, *schema.WITHOUT_EFFECT]}
    assert read(nulls | bare, schema) == read(bare, schema)


@pytest.mark.parametrize("schema", [ChatRequest, CompletionRequest])
def test_a_neutral_value_is_taken_and_another_refused_by_name(schema: type[Decoding]) -> None:
    bare = ASK if schema is ChatRequest else {"prompt": "a"}
    for name, neutral in schema.NEUTRAL.items():
        assert all(read(bare | {name: value}, schema) == read(bare, schema) for value in neutral), name
        with pytest.raises(Refusal, match=name) as caught:
            read(bare | {name: "other"}, schema)
        assert (caught.value.status, caught.value.param) == (400, name)
        assert name in schema.model_fields or caught.value.code == "unsupported_value"
    taken = {name: {"a": [1]} for name in schema.WITHOUT_EFFECT}
    assert read(bare | taken, schema) == read(bare, schema)


@pytest.mark.parametrize(
    ("schema", "params"),
    [
        (ChatRequest, chat_create_params.CompletionCreateParamsStreaming),
        (CompletionRequest, completion_create_params.CompletionCreateParamsStreaming),
    ],
)
def test_every_field_that_openai_s_client_can_send_is_known(schema: type[Decoding], params: Any) -> None:
    assert len(sent := set(typing.get_type_hints(params))) > 15
    assert sent - {*schema.model_fields, *schema.NEUTRAL, *schema.WITHOUT_EFFECT} == set()


def test_the_documentation_names_every_field() -> None:
    tables = re.findall(r"^\| field \|.*\n\|[-| ]+\n((?:\|.*\n)+)", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for table in tables for line in table.splitlines()]
    said = {(name.strip("` "), kind) for names, kind, *_ in rows for name in names.split(",")}
    expected = set()
    for schema in (ChatRequest, CompletionRequest):
        expected |= {(name, "heeded") for name in schema.model_fields}
        expected |= {(name, "neutral only") for name in schema.NEUTRAL.keys() - schema.model_fields.keys()}
        expected |= {(name, "no effect") for name in schema.WITHOUT_EFFECT}
    assert said - {("beams", "neutral only")} == expected - {("beams", "neutral only")}


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": "Hello", "refusal": None, "audio": None, "function_call": None},
        SPOKEN | {"annotations": None, "tool_calls": None},
        SPOKEN | {"annotations": [], "tool_calls": [], "reasoning_content": "hm", "provider_specific_fields": {}},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "Hello"}]},
        {"role": "assistant", "content": None, "refusal": "Hello"},
    ],
)
def test_an_assistant_s_turn_comes_back_as_clients_keep_it(turn: dict[str, Any]) -> None:
    (message,) = read({"messages": [turn]}).messages
    assert (message.role, message.text, message.calls) == ("assistant", "Hello", None)


def test_what_openai_s_client_makes_of_an_answer_is_history() -> None:
    function = {"name": "f", "arguments": "{}"}
    call = {"id": "call_1", "type": "function", "function": function}
    for message, calls in (({"content": "Hi"}, None), ({"content": None, "tool_calls": [call]}, [function])):
        choice = {"index": 0, "message": message | {"role": "assistant"}, "finish_reason": "stop", "logprobs": None}
        whole = {"id": "1", "created": 1, "model": "m", "object": "chat.completion", "choices": [choice]}
        said = ChatCompletion.model_validate(whole).choices[0].message.model_dump()
        parsed = said | {"parsed": {"a": 1}}
        if calls:
            parsed |= {"tool_calls": [call | {"function": function | {"parsed_arguments": {"a": 1}}}]}
        for kept in (said, parsed):
            (turn,) = read({"messages": [kept]}).messages
            assert (turn.text, turn.calls) == (message["content"] or "", calls)


@pytest.mark.parametrize(
    ("body", "param", "code", "what"),
    [
        ({"messages": []}, "messages", "invalid_value", ""),
        ({}, "messages", "missing_required_parameter", "Field required"),
        ({"messages": [SPOKEN, {"role": "user"}]}, "messages[1].content", "missing_required_parameter", ""),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "missing_required_parameter", ""),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content", "invalid_type", ""),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content",
            "invalid_value",
            "only text parts are read here, and one is of type 'image_url'",
        ),
        (ASK | {"frobnicate": 1}, "frobnicate", "unknown_parameter", "there is no such field"),
        (ASK | {"n": 2}, "n", "unsupported_value", "it is not supported; taken are null, 1"),
        (ASK | {"n": True}, "n", "unsupported_value", ""),
        (ASK | {"stream": "perhaps"}, "stream", "invalid_type", ""),
        (ASK | {"stop": ["a"] * 65}, "stop", "invalid_value", ""),
        (ASK | {"tool_choice": "any"}, "tool_choice", "invalid_value", "it is auto, none, required, or a function"),
        (ASK | {"response_format": {"type": "xml"}}, "response_format.type", "invalid_value", ""),
        (
            ASK | {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "missing_required_parameter",
            "",
        ),
        (ASK | {"top_logprobs": 3}, "top_logprobs", "invalid_value", "beside logprobs"),
    ],
)
def test_what_is_wrong_is_said_as_openai_says_it(body: dict[str, Any], param: str, code: str, what: str) -> None:
    with pytest.raises(Refusal) as caught:
        read(body)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
    assert str(caught.value).startswith(param) and what in str(caught.value) and "Value error" not in str(caught.value)


def test_values_at_the_edge_are_those_next_to_them() -> None:
    wanted = read(ASK | {"temperature": 0.001, "top_p": 0, "top_k": -1, "max_tokens": 10**30, "stop": "a"})
    question = BOUNDS.question(wanted, 7)
    assert (question.sampling.temperature, question.sampling.top_k, question.max_new_tokens) == (0, 0, 64)
    assert 0 < question.sampling.top_p < 1e-5 and question.stop == ("a",)
    many = read(ASK | {"stop": [*"qwezr", "ar", ""]})
    assert BOUNDS.question(many, 7).stop == ("q", "w", "e", "z", "r", "ar")


def test_roles_of_older_clients_are_read() -> None:
    for role, spoken in (("developer", "system"), ("function", "tool"), ("tool", "tool")):
        assert ChatMessage(role=role, content="a").spoken_by == spoken  # type: ignore[arg-type]  # one of those known
