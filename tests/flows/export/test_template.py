"""Templates as other programs use them: OpenAI's messages, the first token, no marks."""

from pathlib import Path
from typing import Any

import pytest

from flows.export import conversations, template
from stages import tokenizer as tokenizer_stage
from stages.common.runtime.errors import DataError
from tests.support import bases, exported, tiny


def rows(*more: dict[str, Any]) -> list[dict[str, Any]]:
    return conversations.prompts_and_wholes([*conversations.BUILT, *more])


def adapted(tokenizer: Any, found: list[dict[str, Any]], marks: bool = True) -> template.Adapted:
    return template.adapted(tokenizer, found, template.expected(tokenizer, found), marks)


def test_chatml_is_given_names_and_then_writes_the_tokens_of_training() -> None:
    tokenizer, found = tiny.make_tokenizer(), rows(exported.with_tools(3))
    ours = template.expected(tokenizer, found)
    made = template.adapted(tokenizer, found, ours, True)
    assert made.added == ("names",)
    assert made.forms == ("text",), "an object loses how its JSON was spaced"
    plain = [conversations.plain(row, "text") for row in found]
    own = tokenizer.chat_template
    with pytest.raises(Exception, match="name"):
        tokenizer.apply_chat_template(plain[-1]["messages"], tools=plain[-1]["tools"], chat_template=own)
    whole = [at for at, row in enumerate(found) if not row["prompt"]][-1]
    given = plain[whole]
    text = tokenizer.apply_chat_template(
        given["messages"], tools=given["tools"], chat_template=made.text, tokenize=False
    )
    assert '<think>I look it up.</think>\n<tool_call>capital {"land":3}</tool_call>' in text


def test_a_base_whose_tokenizer_begins_each_text_has_its_template_begin_so() -> None:
    tokenizer = tokenizer_stage.with_template(bases.tokenizer(), "chatml", [bases.EOS])
    made = adapted(tokenizer, rows())
    assert made.added == ("first token", "names")
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a"}], chat_template=made.text, tokenize=True, return_dict=True
    )["input_ids"]
    assert ids[0] == tokenizer.bos_token_id != ids[1]


def test_a_base_s_own_template_stays_as_it_is() -> None:
    own = bases.template("llama3")
    tokenizer = tokenizer_stage.with_template(bases.tokenizer(template=own), "keep", [bases.EOS, bases.END_OF_TURN])
    assert adapted(tokenizer, rows()) == (own, (), ("objects", "text"))


def test_llama_cpp_gets_no_marks() -> None:
    tokenizer = tiny.make_tokenizer()
    assert "generation" in tokenizer.chat_template
    made = adapted(tokenizer, rows(), marks=False)
    assert "endgeneration" not in made.text


def test_a_template_that_others_cannot_feed_is_an_error_with_the_place() -> None:
    tokenizer = tiny.make_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("message.thought %}", "message.thought is defined %}")
    with pytest.raises(
        DataError, match=r"other tokens elsewhere than in training: conversation \d+ \(user, assistant\)"
    ):
        adapted(tokenizer, rows())


def test_kinds_of_validated_conversations_all_come_in(tmp_path: Path) -> None:
    tiny.write_validated(tmp_path)
    found = conversations.chosen(tmp_path / "conversations/validation")
    assert len(found) == len(conversations.BUILT) + 10
    assert [conversations.kind(row) for row in conversations.BUILT] == [
        "plain",
        "system+turns",
        "thoughts",
        "system+tools+thoughts+turns",
    ]
    assert conversations.kind(exported.with_tools(1)) == "system+tools+thoughts"
