"""A model here is asked under structured decoding: its replies are on the schema, are kept, and fit
its context.
"""

import json
from pathlib import Path

import jsonschema
import pytest

from stages import extract
from stages.common.core import models
from stages.common.extraction import schemas, spans
from stages.common.extraction.asking import Local, Said
from stages.common.extraction.spans import Fault, Found
from stages.common.release import promoted, registry
from stages.common.tracking import mlflow_store
from tests.support import smollm2, tiny

WANTED = schemas.load(
    {
        "type": "array",
        "maxItems": 1,
        "items": {
            "type": "object",
            "properties": {"land": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["land"],
            "additionalProperties": False,
        },
    }
)
PASSAGES = [f"The capital of land {number} is town {number * 7}." for number in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import set_seed

    made, tokenizer = tmp_path_factory.mktemp("model"), tiny.make_tokenizer()
    set_seed(4)
    model = models.build(tiny.CONFIG | {"max_position_embeddings": 4_096}, len(tokenizer), "test.model")
    models.save(model, tokenizer, made)
    return made


def replies(
    folder: Path, cache: Path, passages: list[str], tokens: int = 1_800
) -> tuple[list[Said], int, dict[str, float]]:
    with Local(folder, WANTED, tokens, 4, cache) as asked:
        return asked.answers(passages), asked.asked, asked.summary()


def test_a_model_without_any_idea_replies_on_the_schema_and_its_spans_are_put_aside(
    folder: Path, tmp_path: Path
) -> None:
    said, asked, facts = replies(folder, tmp_path / "kept.sqlite", [*PASSAGES, PASSAGES[0]])
    assert asked == len(PASSAGES) and facts["requests"] == len(PASSAGES) + 1
    for one, passage in zip(said, PASSAGES, strict=False):
        assert one.fits and not one.is_cut
        jsonschema.validate(json.loads(one.text), WANTED.reply)
        for found in spans.read(one.text, passage, WANTED):
            assert isinstance(found, Found) or found.reason in ("span_missing", "repeated")
    again = replies(folder, tmp_path / "kept.sqlite", [*PASSAGES, PASSAGES[0]])
    assert again == (said, 0, facts), "what was said is not computed again"


def test_a_reply_that_has_no_room_is_not_asked_for_and_one_that_ends_early_is_cut(folder: Path, tmp_path: Path) -> None:
    (long, short), asked, _ = replies(folder, tmp_path / "kept.sqlite", ["land " * 6_000, PASSAGES[0]], tokens=3)
    assert not long.fits and short.fits and short.is_cut and asked == 1
    (fault,) = spans.read(short.text, PASSAGES[0], WANTED, short.is_cut)
    assert isinstance(fault, Fault) and fault.reason == "cut"


def test_the_champion_is_the_registry_s(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(promoted, "registered_name", lambda: "world")
    monkeypatch.setattr(mlflow_store, "client", lambda: "client")
    monkeypatch.setattr(registry, "champion", lambda client, name: ((client, name), folder))
    asked = extract.asked(extract.Params(by="champion"), WANTED)
    assert isinstance(asked, Local) and asked.folder == folder
    asked.cache.close()


@pytest.mark.slow
def test_a_real_model_replies_on_the_schema_and_finds_what_is_said(tmp_path: Path) -> None:
    folder = smollm2.folder()
    wanted = schemas.load("question_answer")
    passages = [
        "The lighthouse of Corvalle was built in 1871 by Ines Dufour. It stands on a rock two miles off the coast.",
        "Water boils at 100 degrees Celsius at sea level. On Mount Everest it boils at about 71 degrees.",
    ]
    with Local(folder, wanted, 400, 2, tmp_path / "kept.sqlite") as asked:
        said = asked.answers(passages)
    for one, passage in zip(said, passages, strict=True):
        assert one.fits
        outcomes = list(spans.read(one.text, passage, wanted, one.is_cut))
        print(one.text, outcomes)
        if not one.is_cut:
            jsonschema.validate(json.loads(one.text), wanted.reply)
        assert all(
            isinstance(found, Found) or found.reason in ("span_missing", "repeated", "cut") for found in outcomes
        )
