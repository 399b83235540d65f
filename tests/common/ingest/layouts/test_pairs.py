"""Question and answer in fields of their own, with what was said before them."""

import pytest

from stages.common.core.records import Record, message
from stages.common.ingest.layouts.fields import Malformed
from tests.support.parse import parse

ASKED, ANSWERED = message("user", "Why is the sky blue?"), message("assistant", "It scatters blue light.")
BEFORE = [message("user", "Hi"), message("assistant", "Hello.")]


def conversation(*messages: Record) -> Record:
    return {"messages": list(messages), "tools": None}


def test_alpaca_puts_the_input_under_the_instruction() -> None:
    row = {"instruction": "Translate.", "input": "Guten Tag", "output": "Good day", "text": "### Instruction: …"}
    expected = conversation(message("user", "Translate.\nGuten Tag"), message("assistant", "Good day"))
    assert parse(row) == ("alpaca", "conversations", expected)
    assert parse(row | {"input": ""})[2]["messages"][0] == message("user", "Translate.")
    assert parse(row | {"input": None})[2]["messages"][0] == message("user", "Translate.")


def test_alpaca_with_history_and_system() -> None:
    row = {"instruction": "Why is the sky blue?", "output": "It scatters blue light.", "system": "Be brief."}
    expected = conversation(message("system", "Be brief."), *BEFORE, ASKED, ANSWERED)
    assert parse(row | {"history": [["Hi", "Hello."]]})[2] == expected
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    assert parse(row | {"history": turns})[2] == expected
    assert parse(row | {"history": []})[2] == conversation(message("system", "Be brief."), ASKED, ANSWERED)


def test_belle_writes_the_talk_into_the_instruction() -> None:
    row = {
        "instruction": "Human:你好\nAssistant:你好！\n有什么事？\nHuman:推荐一本书\nAssistant:\n",
        "input": "",
        "output": "《红楼梦》。",
    }
    expected = conversation(
        message("user", "你好"),
        message("assistant", "你好！\n有什么事？"),
        message("user", "推荐一本书"),
        message("assistant", "《红楼梦》。"),
    )
    assert parse(row) == ("alpaca", "conversations", expected)


def test_dolly_has_context_and_response() -> None:
    row = {"instruction": "When?", "context": "It fell in 476.", "response": "In 476.", "category": "closed_qa"}
    expected = conversation(message("user", "When?\nIt fell in 476."), message("assistant", "In 476."))
    assert parse(row) == ("alpaca", "conversations", expected)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("question", "answer"),
        ("query", "response"),
        ("prompt", "response"),
        ("prompt", "completion"),
        ("input", "target"),
        ("text", "response"),
        ("context", "response"),
    ],
)
def test_a_question_and_its_answer(question: str, answer: str) -> None:
    row = {question: ASKED["content"], answer: ANSWERED["content"]}
    assert parse(row) == ("question and answer", "conversations", conversation(ASKED, ANSWERED))


def test_chatglm_has_pairs_of_history() -> None:
    row = {"prompt": ASKED["content"], "response": ANSWERED["content"], "history": [["Hi", "Hello."]]}
    assert parse(row) == ("chatglm", "conversations", conversation(*BEFORE, ASKED, ANSWERED))
    assert parse(row | {"history": []}) == ("chatglm", "conversations", conversation(ASKED, ANSWERED))


def test_chatglm_writes_rounds_into_the_prompt() -> None:
    prompt = "[Round 1]\n\n问：Hi\n\n答：Hello.\n\n[Round 2]\n\n问：Why is the sky blue?\n\n答："
    row = {"prompt": prompt, "response": ANSWERED["content"]}
    assert parse(row) == ("chatglm", "conversations", conversation(*BEFORE, ASKED, ANSWERED))
    expected = {"messages": [*BEFORE, ASKED], "reference": None, "category": None}
    assert parse({"prompt": prompt}) == ("prompt text", "prompts", expected)


def test_a_prompt_of_messages_with_a_completion() -> None:
    row = {"prompt": [{"role": "user", "content": ASKED["content"]}], "completion": ANSWERED["content"]}
    assert parse(row)[2] == conversation(ASKED, ANSWERED)


def test_a_prompt_alone_is_for_training_by_reward() -> None:
    expected = {"messages": [ASKED], "reference": "light", "category": "physics"}
    row = {"prompt": ASKED["content"], "reference": "light", "category": "physics"}
    assert parse(row) == ("prompt text", "prompts", expected)
    row = {"question": ASKED["content"], "reference": "light", "category": "physics"}
    assert parse(row) == ("prompt text", "prompts", expected)


def test_a_question_with_a_group_is_a_test_question() -> None:
    expected = {"messages": [ASKED], "reference": "light", "group": "iid", "category": None}
    for key in ("answer", "reference"):
        row = {"question": ASKED["content"], key: "light", "group": "iid"}
        assert parse(row) == ("question text", "questions", expected)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "a", "output": None}, "bad output"),
        ({"instruction": "a", "output": 3}, "bad output"),
        ({"instruction": 3, "output": "b"}, "bad instruction"),
        ({"instruction": "a", "input": ["b"], "output": "c"}, "bad input"),
        ({"question": "a", "answer": {"text": ["b"]}}, "bad answer"),
        ({"prompt": "a", "response": "b", "history": "c"}, "bad history"),
        ({"prompt": "a", "response": "b", "history": [["c"]]}, "bad history"),
        ({"prompt": "a", "response": "b", "history": [["c", None]]}, "bad history"),
        ({"prompt": "a", "response": "b", "history": [{"role": "poet", "content": "c"}]}, "bad role"),
        ({"prompt": "a", "response": "b", "system": ["c"]}, "bad system"),
        ({"prompt": []}, "bad turn"),
        ({"question": "a", "group": "iid", "answer": None}, "bad answer"),
        ({"question": "a", "group": "iid", "reference": 2}, "bad reference"),
    ],
)
def test_a_malformed_row_is_refused_with_a_reason(row: Record, reason: str) -> None:
    with pytest.raises(Malformed) as refusal:
        parse(row)
    assert refusal.value.reason == reason
