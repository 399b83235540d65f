"""Answers that have to be JSON, or calls: random weights write what was asked for, through OpenAI's
client.
"""

import json
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import openai
import pytest
from openai import pydantic_function_tool
from pydantic import BaseModel

from stages.common.serving.api.tool_calls import Said
from stages.common.serving.api.tools import Tools
from stages.common.serving.engine.champions import Champions
from tests.common.serving.conftest import served

CHAT = "/v1/chat/completions"
ASK: Any = [{"role": "user", "content": "Weather in Lima?"}]
GIVEN: dict[str, Any] = {"model": "lathe", "messages": ASK, "temperature": 1, "seed": 3}


class Place(BaseModel):
    """Where."""

    place: Literal["Lima", "Oslo"]


def tool(name: str, **more: Any) -> Any:
    schema = Place.model_json_schema() | {"additionalProperties": False}
    return {"type": "function", "function": {"name": name, "parameters": schema} | more}


@pytest.fixture(scope="module")
def url(lasting: Champions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server whose model reads enough for tools; its tokens are single letters."""
    lasting.current.engine.model.config.max_position_embeddings = 2048
    folder = tmp_path_factory.mktemp("forms")
    with served(lasting, folder / "page.jsonl", tools=Tools(["calculator"], folder), tool_rounds=1) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_an_answer_is_parsed_into_the_class_that_was_asked_for(client: openai.OpenAI) -> None:
    for seed in range(3):
        found = client.chat.completions.parse(**GIVEN | {"seed": seed}, response_format=Place).choices[0]
        assert found.message.parsed and found.message.parsed.place in ("Lima", "Oslo")
        assert found.finish_reason == "stop"


def test_an_answer_is_a_json_object_and_a_schema_holds_in_a_stream_too(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_object"}
    for seed in range(4):
        found = client.chat.completions.create(**GIVEN | {"seed": seed}, response_format=form).choices[0]
        assert found.message.content and found.message.content.startswith("{")
        assert found.finish_reason == "length" or isinstance(json.loads(found.message.content), dict)
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": ["a", "b"]}}}
    chunks = client.chat.completions.create(**GIVEN, response_format=form, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) in ('"a"', '"b"')


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", "second"])
def test_a_tool_that_has_to_be_called_is(client: openai.OpenAI, choice: str, stream: bool) -> None:
    named: Any = choice if choice == "required" else {"type": "function", "function": {"name": choice}}
    asked = GIVEN | {"tools": [tool("first"), tool("second")], "tool_choice": named, "parallel_tool_calls": False}
    if stream:
        chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True)]
        finish, said = chunks[-1].finish_reason, "".join(chunk.delta.content or "" for chunk in chunks)
        calls = [call for chunk in chunks for call in chunk.delta.tool_calls or []]
    else:
        (found,) = client.chat.completions.create(**asked).choices
        finish, said, calls = found.finish_reason, found.message.content or "", found.message.tool_calls
    (call,) = calls
    assert (finish, said) == ("tool_calls", "")
    assert call.function.name in ((choice,) if choice == "second" else ("first", "second"))
    assert json.loads(call.function.arguments)["place"] in ("Lima", "Oslo")


def test_a_strict_tool_gets_arguments_that_its_class_reads(client: openai.OpenAI) -> None:
    asked = GIVEN | {"tools": [pydantic_function_tool(Place)], "tool_choice": "required", "parallel_tool_calls": False}
    (call,) = client.chat.completions.parse(**asked).choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Place)
    free = client.chat.completions.create(**GIVEN, tools=[tool("first", strict=True)]).choices[0]
    assert free.finish_reason in ("stop", "length", "tool_calls")


def test_tools_or_json_and_nothing_else(url: str) -> None:
    """Random weights choose either."""
    form = {"type": "json_schema", "json_schema": {"schema": tool("f")["function"]["parameters"]}}
    for seed in range(4):
        body = GIVEN | {"seed": seed, "tools": [tool("first")], "response_format": form, "parallel_tool_calls": False}
        choice = httpx.post(url + CHAT, json=body).json()["choices"][0]
        calls = choice["message"].get("tool_calls")
        said = calls[0]["function"]["arguments"] if calls else choice["message"]["content"]
        assert json.loads(said)["place"] in ("Lima", "Oslo")


def test_the_server_s_tool_has_to_be_called_once(url: str) -> None:
    body = GIVEN | {"server_tools": ["calculator"], "tool_choice": "required", "max_tokens": 64}
    found = [httpx.post(url + CHAT, json=body | {"seed": seed}, timeout=60).json() for seed in range(4)]
    ran = [one["server_tool_results"] for one in found if "server_tool_results" in one]
    assert all(one["choices"][0]["message"]["content"] == "" for one in found if "server_tool_results" not in one)
    assert all(one[0]["name"] == "calculator" for one in ran)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "no"}}}}, "response_format"),
        ({"tools": [tool("f") | {"type": "function"}], "tool_choice": "none", "beams": 2, "logprobs": True}, "beams"),
        ({"response_format": {"type": "json_object"}, "beams": 2}, "beams"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [tool("f")], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "no"}}}]},
            "tools",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(url: str, more: dict[str, Any], param: str) -> None:
    reply = httpx.post(url + CHAT, json=GIVEN | more)
    assert reply.status_code == 400 and reply.json()["error"]["param"] == param, reply.text


@pytest.mark.parametrize(
    ("said", "finish", "shown"),
    [
        ("a <tool_call>f {", "length", "a "),
        ("a <tool_call>f {", "stop", "a "),
        ("a <tool_ca", "length", "a "),
        ("a <", "stop", "a <"),
        ("a <tool_call>f {}</tool_call> <tool_call>g {", "length", "a "),
        ("a <tool_call>no call</tool_call> b <tool_call>g {", "stop", "a <tool_call>no call</tool_call> b "),
        ("a <tool_call>no call</tool_call>", "stop", "a <tool_call>no call</tool_call>"),
    ],
)
def test_an_unfinished_call_is_never_text(said: str, finish: Any, shown: str) -> None:
    heard = Said()
    assert heard.push(said) + heard.rest(finish) == shown
