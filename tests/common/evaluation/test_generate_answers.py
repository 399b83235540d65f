"""A candidate asked: every question answered, examples given, right answers recognised."""

from typing import Any

import pytest

from stages.common.core import chat, records
from stages.common.evaluation import generate_answers, question_prompts
from stages.common.generation import generator
from tests.support.tiny import conversation, make_model, make_tokenizer

TOKENIZER = make_tokenizer()


def candidate(prompt: str) -> generate_answers.Candidate:
    return generate_answers.Candidate(make_model(TOKENIZER).eval(), TOKENIZER, prompt, max_new_tokens=6, batch_size=4)


def question(number: int) -> records.Record:
    return {
        "id": f"q:{number}",
        "messages": [records.message("user", f"What is the capital of land {number}?")],
        "reference": f"town {number}",
        "group": "iid",
        "category": "capital/en",
    }


@pytest.mark.parametrize("prompt", ["plain", "chat"])
def test_every_question_gets_an_answer_and_none_is_no_error(prompt: str) -> None:
    asked = [question(number) for number in range(5)]
    answers = generate_answers.ask(candidate(prompt), asked)
    assert [row["id"] for row in answers] == [row["id"] for row in asked]
    assert answers == generate_answers.ask(candidate(prompt), asked)
    assert generate_answers.ask(candidate(prompt), []) == []


def test_a_plain_answer_is_judged_by_the_line_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    said = TOKENIZER("town 1.\nWhat is the capital of land 2?")["input_ids"]
    monkeypatch.setattr(generator, "generate", lambda *_, **__: [said])
    assert generate_answers.ask(candidate("plain"), [question(1)])[0]["correct"]
    assert not generate_answers.ask(candidate("chat"), [question(1)])[0]["correct"]


def test_a_base_model_is_asked_in_one_form_whatever_the_examples_a_chat_keeps_its_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []

    def generate(_: Any, prompts: list[list[int]], **__: Any) -> list[list[int]]:
        seen.extend(TOKENIZER.decode(prompt) for prompt in prompts)
        return [TOKENIZER(" town 1.")["input_ids"] for _ in prompts]

    monkeypatch.setattr(generator, "generate", generate)
    examples = question_prompts.pool(conversation(number) for number in range(10, 30))
    rows = generate_answers.ask_with_shots(candidate("plain"), [question(1)], [0, 2], examples, [])
    assert [(row["shots"], row["correct"]) for row in rows] == [(0, True), (2, True)]
    assert [text.count("A:") for text in seen] == [1, 3]
    seen.clear()
    given = generate_answers.ask(candidate("chat"), [question(1)])
    rows = generate_answers.ask_with_shots(candidate("chat"), [question(1)], [0, 2], examples, given)
    assert [text.count("assistant") for text in seen] == [1, 3]
    assert rows[0] == {"shots": 0} | given[0]


TOOLS = '[{"type": "function", "function": {"name": "calculator"}}]'
CALL = {"name": "calculator", "arguments": '{"expression": "47 + 8"}'}


def with_tool(result: str) -> records.Record:
    """Return a conversation that calls the calculator and says what it gave."""
    turns = [
        records.message("user", "What is 47 + 8?"),
        records.message("assistant", "", tool_calls=[CALL]),
        records.message("tool", result),
        records.message("assistant", f"{result}."),
    ]
    return {"id": "t:1", "source": "t", "messages": turns, "tools": TOOLS}


def test_a_call_and_what_is_said_of_its_result_are_right_to_the_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model says what the first conversation says: of the second, whose result is another, the
    call alone is right.
    """
    first, second = with_tool("55"), with_tool("54")
    said = [chat.encode(TOKENIZER, first["messages"][: at + 1], TOOLS).input_ids for at in (1, 3)]
    seen: list[list[int]] = []

    def generate(_: Any, prompts: list[list[int]], **__: Any) -> list[list[int]]:
        seen.extend(prompts)
        return [
            said[at % 2][len(chat.encode_prompt(TOKENIZER, first["messages"][: 1 + 2 * (at % 2)], TOOLS)) : -1]
            for at in range(len(prompts))
        ]

    monkeypatch.setattr(generator, "generate", generate)
    plain = conversation(1)
    assert generate_answers.use_tools(candidate("chat"), [first, plain, second]) == {
        "call": [True, True],
        "answer": [True, False],
    }
    assert len(seen) == 4 and all("calculator" in TOKENIZER.decode(prompt) for prompt in seen)
    assert generate_answers.use_tools(candidate("chat"), [plain]) == {}
    assert generate_answers.use_tools(candidate("plain"), [first]) == {}


def test_turns_longer_than_the_context_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    one = candidate("chat")
    long = with_tool("55")
    room = generator.context(one.policy)
    assert room
    long["messages"][0]["content"] = "What is 47 + 8? " * room
    assert generate_answers.use_tools(one, [long]) == {}
    found = generate_answers.use_tools(one, [long, with_tool("55")])
    assert {kind: len(right) for kind, right in found.items()} == {"call": 1, "answer": 1}
    assert f"2 of 4 held-out turns with tools are left out: they are longer than the model's context of {room}" in (
        caplog.text
    )
