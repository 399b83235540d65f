"""Questions as prompts, with and without worked examples."""

import pytest

from stages import tokenizer as tokenizer_stage
from stages.common.core import chat, records
from stages.common.evaluation import question_prompts
from stages.common.evaluation.question_prompts import Shot
from stages.common.runtime.errors import DataError
from tests.support import bases
from tests.support.tiny import conversation, make_tokenizer

QUESTION = {"messages": [records.message("user", "What is the capital of land 1?")]}
CHINESE = {"messages": [records.message("user", "第1国的首都是什么？")]}
SHOTS = [Shot("What is the capital of land 2?", "town 14."), Shot("And of land 3?", "town 21.")]


def test_examples_are_first_exchanges_by_script_without_tools_or_system_prompts() -> None:
    plain = conversation(1)
    with_tools = conversation(2) | {"tools": "[]"}
    instructed = conversation(3) | {"messages": [records.message("system", "Be brief."), *conversation(3)["messages"]]}
    chinese = conversation(4) | {
        "messages": [records.message("user", "首都是？"), records.message("assistant", "北京。")]
    }
    found = question_prompts.pool([plain, with_tools, instructed, chinese, plain])
    assert found == {"en": [Shot("What is the capital of land 1?", "town 7.")], "zh": [Shot("首都是？", "北京。")]}


def test_a_long_exchange_is_no_example() -> None:
    long = conversation(5, "town " * 60)
    assert question_prompts.pool([conversation(1), long]) == question_prompts.pool([conversation(1)])


def test_the_pool_does_not_depend_on_the_order_of_conversations() -> None:
    rows = [conversation(number) for number in range(50)]
    assert question_prompts.pool(rows) == question_prompts.pool(reversed(rows))


def test_examples_are_drawn_by_the_question_alone_and_never_are_the_question() -> None:
    shots = question_prompts.pool(conversation(number) for number in range(30))
    question = conversation(7)["messages"][0]["content"]
    drawn = question_prompts.draw(shots, question, 5)
    assert drawn == question_prompts.draw(shots, question, 5)
    assert len(set(drawn)) == 5
    assert question not in [shot.question for shot in question_prompts.draw(shots, question, 29)]
    assert drawn != question_prompts.draw(shots, conversation(8)["messages"][0]["content"], 5)
    assert question_prompts.draw({"en": [], "zh": []}, question, 0) == []


def test_too_few_examples_is_an_error_with_a_remedy() -> None:
    with pytest.raises(DataError, match=r"1 training conversations .* 2 are asked for; lower evaluate\.shots"):
        question_prompts.draw(question_prompts.pool([conversation(1)]), "What?", 2)


def test_a_marked_question_reads_as_the_base_model_has_seen_it() -> None:
    tokenizer = make_tokenizer()
    text = tokenizer.decode(question_prompts.marked(tokenizer, QUESTION, SHOTS[:1]))
    assert text == "Q: What is the capital of land 2?\nA: town 14.\nQ: What is the capital of land 1?\nA:"
    assert tokenizer.decode(question_prompts.marked(tokenizer, CHINESE, [])) == "问：第1国的首都是什么？\n答："
    assert tokenizer.decode(question_prompts.bare(tokenizer, QUESTION)) == "What is the capital of land 1?\n"


def test_a_chats_examples_are_turns_after_the_system_prompt() -> None:
    tokenizer = make_tokenizer()
    asked = {"messages": [records.message("system", "Be brief."), *QUESTION["messages"]]}
    expected = [
        records.message("system", "Be brief."),
        records.message("user", SHOTS[0].question),
        records.message("assistant", SHOTS[0].answer),
        *QUESTION["messages"],
    ]
    assert question_prompts.turns(tokenizer, asked, SHOTS[:1]) == chat.encode_prompt(tokenizer, expected)
    assert question_prompts.turns(tokenizer, QUESTION, []) == chat.encode_prompt(tokenizer, QUESTION["messages"])


@pytest.mark.parametrize(
    ("text", "prompt", "judged"),
    [(" town 1.\nQ: next", "plain", "town 1."), ("town 1.\nmore", "chat", "town 1.\nmore"), ("\nlate", "plain", "")],
)
def test_plain_text_is_judged_by_its_first_line(text: str, prompt: str, judged: str) -> None:
    assert question_prompts.said(text, prompt) == judged


def test_a_marked_answer_stops_at_any_token_that_starts_a_line() -> None:
    tokenizer = make_tokenizer()
    end = tokenizer.convert_tokens_to_ids(chat.END_OF_DOCUMENT)
    stop = question_prompts.stops(tokenizer, "plain", line=True)
    assert tokenizer("\n")["input_ids"][0] in stop
    assert stop[-1] == end
    assert all(tokenizer.decode([token]).startswith("\n") for token in stop[:-1])
    assert question_prompts.stops(tokenizer, "plain", line=False) == [end]
    assert question_prompts.stops(tokenizer, "chat", line=True) == [chat.end_of_turn(tokenizer), end]


def test_the_end_of_its_own_texts_stops_a_base() -> None:
    base = tokenizer_stage.with_template(bases.tokenizer(), "chatml", [bases.EOS])
    assert question_prompts.stops(base, "plain", line=False) == [base.convert_tokens_to_ids(bases.EOS)]
    assert base.decode(question_prompts.stops(base, "plain", line=True)[-1:]) == bases.EOS


def test_a_plain_question_begins_as_the_base_begins_a_text() -> None:
    base = tokenizer_stage.with_template(bases.tokenizer(), "chatml", [bases.EOS])
    for asked in (question_prompts.bare(base, QUESTION), question_prompts.marked(base, QUESTION, SHOTS)):
        assert asked[0] == base.bos_token_id and asked.count(base.bos_token_id) == 1
