"""Templates that models bring: kept as they are, and what the assistant says in them is known or
they are refused.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from stages import tokenizer as tokenizer_stage
from stages.common.core import chat, records, special_tokens, templates
from stages.common.runtime.errors import DataError, ParamsError
from tests.support import bases

TALK = [
    records.message(role, said)
    for role, said in (("user", "hello"), ("assistant", "Paris"), ("user", "more"), ("assistant", "Rome"))
]
TURNS = ("<|im_start|>", "<|im_end|>")
EMPTY = "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("name", "special", "said"),
    [
        ("llama3", (bases.END_OF_TURN, *bases.HEADERS), "Paris<|eot_id|>Rome<|eot_id|>"),  # TRL marks these
        ("qwen2_5", TURNS, "\nParis<|im_end|>\nRome<|im_end|>"),
        ("qwen3", TURNS, f"{EMPTY}Paris<|im_end|>{EMPTY}Rome<|im_end|>"),
        ("gemma3", ("<start_of_turn>", "<end_of_turn>"), "Paris<end_of_turn>Rome<end_of_turn>"),
        ("phi3", ("<|user|>", "<|assistant|>", "<|end|>"), "Paris<|end|>Rome<|end|>"),
        ("llama3_1", (bases.END_OF_TURN, *bases.HEADERS), "Paris<|eot_id|>Rome<|eot_id|>"),  # turn by turn
        ("gemma4", ("<|turn>", "<turn|>"), "Paris<turn|>Rome<turn|>"),
    ],
)
def test_a_models_own_template_is_kept_and_what_the_assistant_says_is_known(
    name: str, special: tuple[str, ...], said: str
) -> None:
    own = bases.template(name)
    tokenizer = tokenizer_stage.with_template(bases.tokenizer(special, own), tokenizer_stage.KEEP, [])
    assert tokenizer.chat_template == own
    encoded = chat.encode(tokenizer, TALK)
    marked = [token for token, mask in zip(encoded.input_ids, encoded.assistant_mask, strict=True) if mask]
    assert tokenizer.decode(marked) == said
    assert encoded.input_ids[-1] == chat.end_of_turn(tokenizer), "where a reward model reads its score"
    prompt = chat.encode_prompt(tokenizer, TALK[:1])
    assert encoded.input_ids[: len(prompt)] == prompt


def test_a_turn_that_the_next_one_closes_ends_all_the_same() -> None:
    tokenizer = bases.tokenizer(("<|user|>", "<|assistant|>", "<|system|>"), bases.template("glm4moe"))
    tokenizer_stage.with_template(tokenizer, tokenizer_stage.KEEP, ["<|user|>", bases.EOS])
    encoded = chat.encode(tokenizer, TALK)
    assert tokenizer.decode(encoded.input_ids[-1:]) == "<|user|>"
    ends = [
        mask
        for token, mask in zip(encoded.input_ids, encoded.assistant_mask, strict=True)
        if token == encoded.input_ids[-1]
    ]
    assert ends == [0, 1, 1], "the first opens the conversation"


def test_tools_and_thoughts_reach_a_models_template_as_it_reads_them() -> None:
    tokenizer = tokenizer_stage.with_template(bases.tokenizer(TURNS, bases.template("qwen3")), "keep", [])
    call = [{"name": "add", "arguments": '{"a": 1}'}]
    said = [records.message("user", "1?"), records.message("assistant", "", thought="Hm.", tool_calls=call)]
    tools = json.dumps([{"name": "add", "parameters": {"type": "object"}}])
    text = templates.text(tokenizer, said, tools)
    assert '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>' in text
    assert "<think>\nHm.\n</think>" in text
    assert '{"type": "function", "function": {"name": "add"' in text


def test_a_file_is_a_template_and_brings_its_tokens(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text(
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}<|over|>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenizer = tokenizer_stage.with_template(bases.tokenizer(), str(file), [bases.EOS])
    encoded = chat.encode(tokenizer, TALK)
    marked = [token for token, mask in zip(encoded.input_ids, encoded.assistant_mask, strict=True) if mask]
    assert tokenizer.decode(marked) == "Paris<|over|>Rome<|over|>"
    assert tokenizer.convert_tokens_to_ids("<|over|>") in special_tokens.untrained(tokenizer)


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("chatglm", "Be brief.\n\n[Round 1]\n\n问：hello\n\n答：Paris{eos}\n\n[Round 2]\n\n问：more\n\n答：Rome{eos}"),
        (
            "moss",
            "Be brief.\n<|Human|>: hello<eoh>\n<|MOSS|>: Paris<eom>\n<|Human|>: more<eoh>\n<|MOSS|>: Rome<eom>",
        ),
    ],
)
def test_templates_of_our_own_are_written_as_their_models_read_them(name: str, whole: str) -> None:
    for base in (bases.tokenizer(), tokenizer_stage.train(iter([bases.TEXT]), 320)):
        ends = [bases.EOS] if base.bos_token else None
        tokenizer = tokenizer_stage.with_template(base, name, ends)
        said = [records.message("system", "Be brief."), *TALK]
        encoded = chat.encode(tokenizer, said)
        text = (base.bos_token or "") + whole.format(eos=tokenizer.eos_token)
        assert tokenizer.decode(encoded.input_ids) == text
        spoken = [token for token, mask in zip(encoded.input_ids, encoded.assistant_mask, strict=True) if mask]
        end = tokenizer.decode([chat.end_of_turn(tokenizer)])
        assert tokenizer.decode(spoken).replace(" ", "") == f"Paris{end}Rome{end}"
        prompt = chat.encode_prompt(tokenizer, said[:-1])
        assert encoded.input_ids[: len(prompt)] == prompt


SEARCH = {"name": "Search", "parameters": {"properties": {"query": {}}}}
SWITCHES = """- Inner thoughts: enabled.
- Web search: {}
- Calculator: disabled.
- Equation solver: {}
- Text-to-image: disabled.
- Image edition: disabled.
- Text-to-speech: disabled."""
FOUND = 'Search("quays") =>\n<|1|>: "A quay."'
PLUGINS: dict[str, tuple[list[Any], list[Any], str]] = {
    "named, with a thought": (
        [SEARCH],
        [records.message("assistant", "", "Look.", [{"name": "Search", "arguments": '{"query": "quays"}'}]), FOUND],
        f' Look.<eot>\n<|Commands|>: Search("quays")<eoc>|\n<|Results|>:\n{FOUND}\n<eor>\n<|MOSS|>:| Paris<eom>',
    ),
    "under a name of the server, passages bare": (
        [SEARCH | {"name": "search"}],
        [records.message("assistant", "", None, [{"name": "search", "arguments": '{"query": "quays"}'}]), "A quay."],
        f' None<eot>\n<|Commands|>: Search("quays")<eoc>|\n<|Results|>:\n{FOUND}\n<eor>\n<|MOSS|>:| Paris<eom>',
    ),
    "two at once, said aloud": (
        [SEARCH, {"name": "Solve", "parameters": {"properties": {"equation": {}}}}],
        [
            records.message("assistant", "Wait.", None, [{"name": "Solve", "arguments": '["x=1"]'}] * 2),
            *("x = 1", "x = 1"),
        ],
        ' Wait.<eot>\n<|Commands|>: Solve("x=1"), Solve("x=1")<eoc>|\n<|Results|>:\nSolve("x=1") =>\nx = 1\n'
        'Solve("x=1") =>\nx = 1\n<eor>\n<|MOSS|>:| Paris<eom>',
    ),
    "none needed": (
        [SEARCH],
        [],
        " None<eot>\n<|Commands|>: None<eoc>|\n<|Results|>:\nNone\n<eor>\n<|MOSS|>:| Paris<eom>",
    ),
}


@pytest.mark.parametrize("case", PLUGINS)
def test_moss_writes_its_plugins_and_learns_what_it_says_of_them(case: str) -> None:
    tools, between, wanted = PLUGINS[case]
    tokenizer = tokenizer_stage.with_template(bases.tokenizer(), "moss", [bases.EOS])
    turns = [one if isinstance(one, dict) else records.message("tool", one) for one in between]
    start = [records.message("system", f"Be brief.\n{SWITCHES.format('disabled.', 'disabled.')}"), TALK[0]]
    said, offered = [*start, *turns, TALK[1]], json.dumps(tools)
    encoded = chat.encode(tokenizer, said, offered)
    solver = "enabled. API: Solve(equation)" if len(tools) > 1 else "disabled."
    head = SWITCHES.format("enabled. API: Search(query)", solver)
    thought, answer = wanted.split("|\n<|Results")[0], wanted.rpartition("|")[2]
    whole = wanted.replace("<eoc>|", "<eoc>").replace(f"|{answer}", answer)
    text = f"Be brief.\n{head}\n<|Human|>: hello<eoh>\n<|Inner Thoughts|>:{whole}"
    assert tokenizer.decode(encoded.input_ids) == (tokenizer.bos_token or "") + text
    spoken = [token for token, mask in zip(encoded.input_ids, encoded.assistant_mask, strict=True) if mask]
    assert tokenizer.decode(spoken) == thought + answer
    for end in range(len(start), len(said)):
        if said[end]["role"] == "assistant":
            prompt = chat.encode_prompt(tokenizer, said[:end], offered)
            assert encoded.input_ids[: len(prompt)] == prompt, end


def test_a_template_without_a_place_for_tools_says_so() -> None:
    tokenizer = tokenizer_stage.with_template(bases.tokenizer(), "chatglm", [bases.EOS])
    call = [{"name": "add", "arguments": "{}"}]
    with pytest.raises(DataError, match="no place for tools; chatml has one"):
        chat.encode(tokenizer, [records.message("user", "1?"), records.message("assistant", "", tool_calls=call)])
    with pytest.raises(DataError, match="no place for tools; chatml has one"):
        chat.encode(tokenizer, TALK, json.dumps([{"name": "add"}]))


REFUSED = {
    "an answer that nothing ends": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
    "a turn written otherwise once others follow": (
        "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>"
        "{{ m.content if loop.last or m.role == 'user' else 'was: ' + m.content }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}"
    ),
    "no answers at all": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('no answers here') }}{% endif %}"
        "{{ m.content }}<|eot_id|>{% endfor %}"
    ),
}


@pytest.mark.parametrize("template", REFUSED.values(), ids=REFUSED.keys())
def test_a_template_that_tells_no_mask_is_refused_before_any_work(template: str) -> None:
    with pytest.raises(DataError, match=r"chat template .*set tokenizer\.chat_template to chatml"):
        tokenizer_stage.with_template(bases.tokenizer(template=template), tokenizer_stage.KEEP, [])


def test_an_unknown_template_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(DataError, match="no chat template 'chatm'; there are: chatglm, chatml, moss"):
        templates.read("chatm")
    with pytest.raises(DataError, match=r"no chat template 'absent\.jinja'; there are: chatglm, chatml, moss"):
        templates.read("absent.jinja")


def test_there_is_nothing_to_keep_without_a_template() -> None:
    with pytest.raises(ParamsError, match=r"'tokenizer\.chat_template' is keep, and the tokenizer has none"):
        tokenizer_stage.with_template(bases.tokenizer(), tokenizer_stage.KEEP)
