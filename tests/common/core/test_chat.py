"""The template marks what the assistant wrote, and every rendering ends on the end of turn."""

import pytest

from stages.common.core import chat, records
from stages.common.runtime.errors import DataError
from tests.support.tiny import make_tokenizer

TOOLS = '[{"name": "add", "parameters": {"type": "object"}}]'
CALL = [{"name": "add", "arguments": '{"a": 1, "b": 2}'}]


def test_the_mask_covers_the_assistants_words_and_end_of_turn_and_nothing_else() -> None:
    tokenizer = make_tokenizer()
    messages = [
        records.message("system", "Be brief."),
        records.message("user", "1+2?"),
        records.message("assistant", "", tool_calls=CALL),
        records.message("tool", "3"),
        records.message("assistant", "3."),
        records.message("user", "Thanks"),
        records.message("assistant", "Welcome."),
    ]
    encoded = chat.encode(tokenizer, messages, TOOLS)
    learnt = [token for token, mask in zip(encoded.input_ids, encoded.assistant_mask, strict=True) if mask]
    expected = '<tool_call>add {"a": 1, "b": 2}</tool_call><|im_end|>3.<|im_end|>Welcome.<|im_end|>'
    assert tokenizer.decode(learnt) == expected
    assert encoded.input_ids[-1] == chat.end_of_turn(tokenizer)
    text = tokenizer.decode(encoded.input_ids)
    assert text.startswith("<|im_start|>system\nBe brief.\n# Tools\n[")
    assert text.count("<|im_start|>") == len(messages)


def test_a_prompt_is_the_beginning_of_the_whole() -> None:
    tokenizer = make_tokenizer()
    messages = [records.message("user", "首都?"), records.message("assistant", "北京。")]
    prompt = chat.encode_prompt(tokenizer, messages[:1])
    whole = chat.encode(tokenizer, messages)
    assert whole.input_ids[: len(prompt)] == prompt
    assert whole.assistant_mask == [0] * len(prompt) + [1] * (len(whole.input_ids) - len(prompt))


def test_an_unknown_template_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(DataError, match="no chat template 'chatm'; there are: chatml"):
        chat.template("chatm")
