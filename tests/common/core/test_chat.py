"""The template marks what the assistant wrote, and every rendering ends on the end of turn."""

from pathlib import Path
from typing import Any

from stages import tokenizer as tokenizer_stage
from stages.common.core import chat, models, records, special_tokens
from tests.support import bases
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


def exchange(turns: int = 1) -> list[records.Record]:
    return [
        records.message(role, said) for _ in range(turns) for role, said in (("user", "hello"), ("assistant", "Paris"))
    ]


def test_a_base_keeps_its_special_tokens_beside_those_of_the_template(tmp_path: Path) -> None:
    before = bases.tokenizer()
    tokenizer = tokenizer_stage.with_template(bases.tokenizer(), "chatml", [bases.EOS])
    tokenizer.save_pretrained(tmp_path)
    for made in (tokenizer, models.load_tokenizer(tmp_path)):
        assert set(made.all_special_tokens) >= {*before.all_special_tokens, chat.START_OF_TURN, chat.END_OF_TURN}
        ids = made.convert_tokens_to_ids([bases.END_OF_TURN, bases.BOS, chat.END_OF_TURN])
        assert made.decode(ids, skip_special_tokens=True) == ""
        assert made.convert_ids_to_tokens(special_tokens.untrained(made)) == [chat.END_OF_TURN, chat.START_OF_TURN]
        assert chat.END_OF_DOCUMENT not in made.get_vocab(), "the base has an end of its own"
        assert made.get_vocab().items() >= before.get_vocab().items()


def test_bos_stands_once_wherever_the_base_wants_it() -> None:
    tokenizer = tokenizer_stage.with_template(bases.tokenizer(), "chatml", [bases.EOS])
    own = tokenizer_stage.with_template(bases.tokenizer(template=bases.template("llama3")), tokenizer_stage.KEEP, [])
    for made in (tokenizer, own):
        rows = [chat.encode_prompt(made, exchange()[:1]), *chat.encode_texts(made, ["hello", f"{bases.BOS}hello"])]
        encoded = chat.encode(made, exchange(2))
        assert len(encoded.input_ids) == len(encoded.assistant_mask)
        for row in (*rows, encoded.input_ids):
            assert row[0] == made.bos_token_id and row.count(made.bos_token_id) == 1
        assert made.decode(rows[2][1:]) == "hello"
    trained = make_tokenizer()
    assert chat.encode_texts(trained, ["hello"]) == [trained("hello")["input_ids"]], "none where none is wanted"


def test_what_ends_is_read_off_the_template_and_the_generation_config() -> None:
    def ends(tokenizer: Any) -> list[Any]:
        found = [chat.end_of_turn(tokenizer), chat.end_of_document(tokenizer)]
        return [*tokenizer.convert_ids_to_tokens(found), tokenizer.convert_ids_to_tokens(chat.stops(tokenizer))]

    chatml = tokenizer_stage.with_template(bases.tokenizer(), "chatml", [bases.EOS])
    assert ends(chatml) == [chat.END_OF_TURN, bases.EOS, [chat.END_OF_TURN, bases.EOS]]
    spoken = bases.tokenizer(template=bases.template("llama3_1"), eos=bases.END_OF_TURN)
    spoken = tokenizer_stage.with_template(
        spoken, tokenizer_stage.KEEP, [bases.EOS, bases.END_OF_TURN, bases.HEADERS[0]]
    )
    assert ends(spoken) == [bases.END_OF_TURN, bases.EOS, [bases.END_OF_TURN, bases.EOS, bases.HEADERS[0]]]
    assert chat.generation_ends(spoken) == chat.stops(spoken)
    trained = make_tokenizer()
    assert ends(trained) == [chat.END_OF_TURN, chat.END_OF_DOCUMENT, [chat.END_OF_TURN, chat.END_OF_DOCUMENT]]
    assert chat.generation_ends(trained) == chat.end_of_turn(trained)


def test_a_base_that_pads_with_its_end_of_turn_gets_another_token_to_pad_with() -> None:
    tokenizer = bases.tokenizer(template=bases.template("llama3"), eos=bases.END_OF_TURN)
    tokenizer.pad_token = bases.END_OF_TURN
    tokenizer_stage.with_template(tokenizer, tokenizer_stage.KEEP, [bases.EOS])
    assert tokenizer.pad_token == special_tokens.NEW_PADDING
    assert tokenizer.pad_token_id == len(tokenizer) - 1
    assert tokenizer.pad_token_id not in (
        *chat.stops(tokenizer),
        *special_tokens.untrained(tokenizer),
        tokenizer.bos_token_id,
    )
    spare = bases.tokenizer(template=bases.template("llama3"), special=(*bases.HEADERS, bases.END_OF_TURN, "<unk>"))
    spare.unk_token = "<unk>"
    assert tokenizer_stage.with_template(spare, tokenizer_stage.KEEP, []).pad_token == "<unk>"
