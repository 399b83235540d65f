"""A model that writes MOSS's commands, over real HTTP: its thought and commands are not shown, the
tools that its meta instruction switches on are run, and it reads their results in its own form.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from stages import tokenizer as tokenizer_stage
from stages.common.core import chat
from stages.common.serving.api import moss_commands
from stages.common.serving.api.tools import Tools
from stages.common.serving.engine.champions import Champions
from stages.common.serving.engine.engine import Engine
from tests.common.serving.conftest import served
from tests.support.tiny import TEXTS, make_model

if TYPE_CHECKING:
    import torch

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "87 + 55?"}], "max_tokens": 64}
THINKS = " Add.<eot>\n<|Commands|>: {}<eoc>"
SWITCHES = "- Inner thoughts: enabled.\n- Web search: disabled.\n- Calculator: {}.\n- Equation solver: disabled."
ON = "enabled. API: Calculate(expression)"
WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}}


@pytest.fixture(scope="module")
def moss(lasting: Champions) -> Iterator[Engine]:
    """An engine whose model speaks as MOSS does."""
    tokenizer = tokenizer_stage.with_template(tokenizer_stage.train(iter(TEXTS), 320), "moss")
    engine = Engine(make_model(tokenizer), tokenizer, rows=4)
    engine.model.config.max_position_embeddings = 2048
    before, lasting.current = lasting.current, replace(lasting.current, engine=engine)
    yield engine
    lasting.current = before
    engine.close()


@pytest.fixture(scope="module")
def url(lasting: Champions, moss: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("moss")
    tools = Tools(["calculator"], folder / "documents")
    with served(lasting, folder / "page.jsonl", tools=tools, tool_rounds=2) as address:
        yield address


@pytest.fixture
def says(moss: Engine, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Have the model write `commands`, then `It is <last result>`; return the prompts it reads."""

    def begin(commands: str) -> list[str]:
        read: list[str] = []

        def choose(logits: "torch.Tensor") -> "torch.Tensor":
            import torch

            chosen = []
            for row in moss._rows:
                prompt = moss.tokenizer.decode(row.request.prompt)
                if row.count == 0:
                    read.append(prompt)
                results = prompt.rpartition("<|Results|>:\n")[2].split("\n<eor>")[0]
                speak = THINKS.format(commands) if prompt.endswith("Thoughts|>:") else f" It is {results}"
                script = moss.tokenizer.encode(speak, add_special_tokens=False)
                chosen.append([*script, chat.stops(moss.tokenizer)[0]][row.count])
            return torch.tensor(chosen)

        monkeypatch.setattr(moss, "_choose", choose)
        return read

    return begin


def test_a_switch_of_the_meta_instruction_is_honoured(url: str, says: Any) -> None:
    read = says('Calculate("87 + 55")')
    system = {"role": "system", "content": SWITCHES.format(ON)}
    reply = httpx.post(url + CHAT, json=ASK | {"messages": [system, *ASK["messages"]]}).json()
    (choice,) = reply["choices"]
    said = "It is Calculate(\"87 + 55\") => '142'"
    assert (choice["message"]["content"].strip(), choice["finish_reason"]) == (said, "stop")
    ran = {"name": "calculator", "arguments": '{"expression": "87 + 55"}', "result": "142"}
    assert reply["server_tool_results"] == [ran]
    assert len(read) == 2 and f"- Calculator: {ON}\n- Equation solver: disabled." in read[0]
    assert read[1] == read[0] + THINKS.format('Calculate("87 + 55")') + (
        "\n<|Results|>:\nCalculate(\"87 + 55\") => '142'\n<eor>\n<|MOSS|>:"
    )
    read = says('Calculate("87 + 55")')
    off = {"role": "system", "content": SWITCHES.format("disabled")}
    reply = httpx.post(url + CHAT, json=ASK | {"messages": [off, *ASK["messages"]]}).json()
    assert "server_tool_results" not in reply and read[0].endswith("87 + 55?<eoh>\n<|MOSS|>:")


def test_tools_asked_for_by_name_are_switched_on(url: str, says: Any) -> None:
    read = says('Calculate("1 / 0"), Text2Image("fox")')
    reply = httpx.post(url + CHAT, json=ASK | {"server_tools": ["calculator"]}).json()
    assert f"- Web search: disabled.\n- Calculator: {ON}\n" in read[0] and "Text2Image" not in read[0]
    results = [one["result"] for one in reply["server_tool_results"]]
    assert results[0] == "error: a division by zero" and results[1].startswith("error: there is no tool 'Text2Image'")


def test_without_a_command_it_answers(url: str, says: Any) -> None:
    read = says("None")
    reply = httpx.post(url + CHAT, json=ASK | {"server_tools": ["calculator"]}).json()
    assert reply["choices"][0]["message"]["content"].strip() == "It is None"
    assert "server_tool_results" not in reply and read[1].endswith("None<eoc>\n<|Results|>:\nNone\n<eor>\n<|MOSS|>:")


def test_the_client_s_tools_are_handed_back(url: str, says: Any) -> None:
    read = says('weather("Lima")')
    body = ASK | {"tools": [{"type": "function", "function": WEATHER}]}
    (choice,) = httpx.post(url + CHAT, json=body).json()["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert call["function"] == {"name": "weather", "arguments": '{"place": "Lima"}'}
    assert "- weather: enabled. API: weather(place)" in read[0]
    more = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "dry", "tool_call_id": call["id"]}]
    (choice,) = httpx.post(url + CHAT, json=body | {"messages": [*ASK["messages"], *more]}).json()["choices"]
    assert choice["message"]["content"].strip() == 'It is weather("Lima") => dry'


def test_what_is_no_command_is_no_call() -> None:
    assert moss_commands.written(" Hm.<eot>\n<|Commands|>: look it up", "[]") == ("Hm.", [])
    assert moss_commands.written(" None<eot>\n<|Commands|>: None", "[]") == (None, [])
    assert moss_commands.written("Hello.", "[]") is None
    assert moss_commands.without_marks(" Hm.<eot>\n<|MOSS|>: Hello.<eom>") == "Hm.\n Hello."
