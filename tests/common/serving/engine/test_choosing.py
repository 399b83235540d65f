"""Grammars and scores in the batch: each row's own, and what fails is its own too."""

import json
from typing import TYPE_CHECKING, Any

import pytest

from stages.common.generation.engines import structured
from stages.common.generation.sampling import Sampling
from stages.common.runtime.errors import ParamsError
from stages.common.serving.engine import grammar
from stages.common.serving.engine.engine import Engine
from stages.common.serving.engine.grammar import Form, text_of
from stages.common.serving.engine.requests import Request, UnansweredError, pieces
from stages.common.serving.engine.scores import Score, certain
from tests.support import bases
from tests.support.answering import at_once, prompt, text
from tests.support.tiny import make_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOOLS = json.dumps(
    [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "required": ["a"]}}},
        {"type": "function", "function": {"name": "g"}},
    ]
)
SCHEMA = json.dumps({"enum": ["red", "green"]})


def test_grammars_keep_their_own_rows_and_change_no_other(engine: Engine, tokenizer: "PreTrainedTokenizerBase") -> None:
    free = [Request(prompt(tokenizer, number), 10, Sampling(1.0, seed=number)) for number in range(3)]
    kept = text_of(tokenizer, Form(SCHEMA), None)
    bound = [Request(one.prompt, 20, Sampling(1.0, seed=9), grammar=kept) for one in free]
    expected = [text(engine, request) for request in free]
    found = at_once(engine, [free[0], bound[0], free[1], bound[1], free[2], bound[2]])
    assert found[::2] == expected
    assert all(said in ('"red"', '"green"') and finish == "stop" for said, _, finish in found[1::2])


def test_a_grammar_that_fails_ends_its_own_answer(
    engine: Engine, tokenizer: "PreTrainedTokenizerBase", monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = text_of(tokenizer, Form(SCHEMA), None)
    other = Request(prompt(tokenizer, 1), 12)
    expected = text(engine, other)
    masked, calls = structured.masked, []

    def fail(*given: Any) -> Any:
        calls.append(1)
        if len(calls) > 2:
            raise ParamsError("too complex", where="JSON schema")
        return masked(*given)

    monkeypatch.setattr(structured, "masked", fail)
    _, others = pieces(engine.submit, other)
    with pytest.raises(ParamsError, match="too complex"):
        text(engine, Request(prompt(tokenizer, 2), 12, grammar=kept))
    assert "".join(piece.text for piece in others) == expected[0]


def accepted(tokenizer: "PreTrainedTokenizerBase", form: Form, tools: str | None, texts: list[str]) -> list[str]:
    found = []
    grammars = structured.Grammars(tokenizer, len(tokenizer), [2])
    for one in texts:
        matcher = grammars.follower(text_of(tokenizer, form, tools))
        ids = tokenizer.encode(one, add_special_tokens=False)
        if matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting():
            found.append(one)
    return found


def test_what_a_form_allows() -> None:
    calls = ['<tool_call>f {"a": 1}</tool_call>', '<tool_call>g {"b": [1, 2]}</tool_call>']
    texts = ["", "hello < there", '"red"', "red", *calls, "".join(calls), calls[1] * 4, calls[1] * 5, f"So: {calls[0]}"]
    texts += ["<tool_call>h {}</tool_call>", "<tool_call>f {}</tool_call>", calls[0] + " more", calls[0][:-3]]
    tokenizer = make_tokenizer()

    def allowed(form: Form, tools: str | None = TOOLS) -> list[str]:
        return accepted(tokenizer, form, tools, texts)

    assert allowed(Form(SCHEMA), None) == ['"red"']
    assert allowed(Form(must_call=True)) == [*calls, "".join(calls), calls[1] * 4]
    assert allowed(Form(must_call=True, name="g", calls_at_most=1)) == [calls[1]]
    assert allowed(Form(SCHEMA)) == ['"red"', *calls, "".join(calls), calls[1] * 4]
    assert allowed(Form()) == [
        "",
        "hello < there",
        '"red"',
        "red",
        *calls,
        "".join(calls),
        calls[1] * 4,
        f"So: {calls[0]}",
    ]


def test_a_call_is_written_as_the_model_s_template_writes_it() -> None:
    tokenizer = bases.tokenizer(template=bases.template("qwen2_5"))
    call = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    assert accepted(tokenizer, Form(must_call=True), TOOLS, [call, '<tool_call>f {"a": 1}</tool_call>']) == [call]
    with pytest.raises(UnansweredError) as caught:
        text_of(bases.tokenizer(template=bases.template("llama3")), Form(must_call=True), TOOLS)
    assert caught.value.field == "tools"


def test_a_schema_that_cannot_be_kept_is_tried_or_refused() -> None:
    tokenizer, unkept = make_tokenizer(), {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    tools = json.dumps([{"type": "function", "function": {"name": "f", "parameters": unkept}}])
    assert '%json {"type": "object"' in text_of(tokenizer, Form(must_call=True), tools)
    for form, given, field in (
        (Form(must_call=True, strict=("f",)), tools, "tools"),
        (Form(json.dumps(unkept)), None, "response_format"),
    ):
        with pytest.raises(UnansweredError, match="unique") as caught:
            text_of(tokenizer, form, given)
        assert caught.value.field == field
    assert grammar.written(str(tokenizer.chat_template), tokenizer).before == "<tool_call>"


def test_grammars_that_are_not_asked_for_any_more_are_forgotten(tokenizer: "PreTrainedTokenizerBase") -> None:
    grammars = structured.Grammars(tokenizer, len(tokenizer), [2])
    for number in range(structured.KEPT + 5):
        grammars.matcher({"const": number})
    assert len(grammars._known) == structured.KEPT


def test_scores_of_tokens_behind_the_shown_text_are_left_out() -> None:
    scores = [Score(token, -1.0) for token in (3, 4, 5)]

    def decode(tokens: list[int]) -> str:
        return "".join({3: "ab", 4: "c", 5: "de"}[token] for token in tokens)

    lengths = [len(certain(scores, "abcde"[:end], decode)) for end in range(6)]
    assert lengths == [0, 1, 1, 2, 3, 3]
