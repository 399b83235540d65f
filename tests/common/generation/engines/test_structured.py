"""Structured decoding: whatever the model, an answer that was not cut is valid on its schema."""

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import torch

from stages.common.core import chat, models
from stages.common.core.records import message
from stages.common.generation import generator
from stages.common.generation.engines import structured
from stages.common.generation.engines.structured import Constraint, Grammars
from stages.common.generation.engines.vllm_process import Vllm
from stages.common.generation.sampling import Sampling
from stages.common.runtime.errors import DataError, ParamsError
from tests.support import architectures
from tests.support.tiny import make_model, make_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHORT = {"type": "string", "maxLength": 8}
SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"name": SHORT}, "required": ["name"], "additionalProperties": False},
    {"type": "array", "items": {"enum": ["red", "green", "蓝"]}, "minItems": 1, "maxItems": 3},
    {"anyOf": [{"type": "integer", "minimum": 3, "maximum": 12}, {"type": "null"}]},
    {"$ref": "#/$defs/pair", "$defs": {"pair": {"type": "array", "items": SHORT, "minItems": 2, "maxItems": 2}}},
]


@pytest.fixture(scope="module")
def tokenizer() -> "PreTrainedTokenizerBase":
    return make_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    return make_model(tokenizer, seed=3).eval()


def prompts(tokenizer: "PreTrainedTokenizerBase", count: int) -> list[list[int]]:
    return [chat.encode_prompt(tokenizer, [message("user", f"What is land {number}?")]) for number in range(count)]


def grammars(model: Any, tokenizer: "PreTrainedTokenizerBase") -> Grammars:
    return Grammars(tokenizer, model.get_output_embeddings().weight.shape[0], chat.stops(tokenizer))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_answer_is_valid_on_the_schema_of_its_prompt(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", temperature: float
) -> None:
    asked = prompts(tokenizer, 8)
    schemas = [SCHEMAS[number % len(SCHEMAS)] for number in range(len(asked))]
    answers = generator.decode(
        model,
        asked,
        max_new_tokens=150,
        stop=chat.stops(tokenizer),
        sampling=Sampling(temperature, seed=5),
        samples=3,
        batch_size=7,  # rows leave, others take their places
        constraint=Constraint(grammars(model, tokenizer), schemas, samples=3),
    )
    found = [(schema, one) for schema, some in zip(schemas, answers, strict=True) for one in some]
    for schema, one in found:
        assert one.stop in chat.stops(tokenizer)
        jsonschema.validate(json.loads(tokenizer.decode(one.tokens)), schema)
    texts = {tuple(one.tokens) for _, one in found}
    assert len(texts) > (4 if temperature else 1), "the model has no say"


def test_an_answer_does_not_depend_on_what_shares_its_batch(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> None:
    asked, stop = prompts(tokenizer, 4), chat.stops(tokenizer)

    def answers(chosen: list[int], **named: Any) -> list[list[int]]:
        constraint = Constraint(grammars(model, tokenizer), [SCHEMAS[number] for number in chosen])
        some = [asked[number] for number in chosen]
        found = generator.decode(model, some, max_new_tokens=150, stop=stop, constraint=constraint, **named)
        return [one.tokens for (one,) in found]

    together = answers([0, 1, 2, 3])
    assert together == [answers([number])[0] for number in range(4)]
    assert together == answers([0, 1, 2, 3], batch_size=2, log_probabilities=True)


def test_a_schema_that_allows_one_text_gives_that_text_and_log_probabilities_of_the_free_model(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> None:
    ((answer,),) = generator.decode(
        model,
        prompts(tokenizer, 1),
        max_new_tokens=40,
        stop=chat.stops(tokenizer),
        log_probabilities=True,
        constraint=Constraint(grammars(model, tokenizer), [{"const": "town 7"}]),
    )
    assert tokenizer.decode(answer.tokens) == '"town 7"'
    assert len(answer.log_probabilities) == len(answer.tokens) + 1
    assert sum(answer.log_probabilities) < -10, "the model would not have said it: its own probabilities are kept"


def test_models_that_answer_by_transformers_loop_keep_the_schema_too(tokenizer: "PreTrainedTokenizerBase") -> None:
    hybrid = architectures.build("qwen3_next")
    asked = [[5, 6, 7], [8, 9, 10], [11, 12]]
    answers = generator.decode(
        hybrid,
        asked,
        max_new_tokens=100,
        stop=chat.stops(tokenizer),
        constraint=Constraint(grammars(hybrid, tokenizer), SCHEMAS[:3]),
    )
    for (one,), schema in zip(answers, SCHEMAS, strict=False):
        assert one.stop is not None
        jsonschema.validate(json.loads(tokenizer.decode(one.tokens)), schema)


def test_more_logits_than_tokens_are_none_that_may_come(tokenizer: "PreTrainedTokenizerBase") -> None:
    padded = make_model(tokenizer, seed=1).eval()
    padded.resize_token_embeddings(len(tokenizer) + 45)
    with torch.no_grad():
        padded.get_output_embeddings().weight[len(tokenizer) :] = 10.0
    constraint = Constraint(grammars(padded, tokenizer), [SCHEMAS[0]])
    ((one,),) = generator.decode(
        padded, prompts(tokenizer, 1), max_new_tokens=80, stop=chat.stops(tokenizer), constraint=constraint
    )
    jsonschema.validate(json.loads(tokenizer.decode(one.tokens)), SCHEMAS[0])


def test_rows_without_a_schema_are_as_they_were(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    logits = torch.randn(2, model.get_output_embeddings().weight.shape[0])
    matcher = grammars(model, tokenizer).matcher({"const": 1})
    found = structured.masked([None, matcher], logits)
    assert torch.equal(found[0], logits[0])
    (allowed,) = found[1].isfinite().nonzero().T
    assert [tokenizer.decode([token]) for token in allowed.tolist()] == ["1"]
    structured.advance([None, matcher], [3, int(allowed[0])])
    stops = structured.masked([matcher], logits[:1])[0].isfinite().nonzero()[:, 0].tolist()
    assert sorted(stops) == sorted(chat.stops(tokenizer)), "where the JSON is whole nothing but an end may come"


def test_what_cannot_be_kept_is_refused_by_name(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    structured.check(SCHEMAS[3])
    with pytest.raises(ParamsError, match="uniqueItems"):
        structured.check({"type": "array", "items": SHORT, "uniqueItems": True})
    with pytest.raises(ParamsError, match=r"(?i)unsatisfiable"):
        grammars(model, tokenizer).matcher({"type": "integer", "minimum": 4, "maximum": 3})
    with pytest.raises(DataError, match="no token ends"):
        Grammars(tokenizer, len(tokenizer), [])
    with pytest.raises(DataError, match="3 logits"):
        Grammars(tokenizer, 3, chat.stops(tokenizer))


def test_vllm_in_a_stage_says_that_it_keeps_none(tmp_path: Any, tokenizer: "PreTrainedTokenizerBase") -> None:
    models.save(make_model(tokenizer), tokenizer, tmp_path)
    engine = object.__new__(Vllm)
    engine.context = 256
    constraint = Constraint(grammars(make_model(tokenizer), tokenizer), [SCHEMAS[0]])
    with pytest.raises(ParamsError, match="vLLM in a stage keeps no schema"):
        generator.decode(engine, [[5]], max_new_tokens=3, stop=[1], constraint=constraint)
