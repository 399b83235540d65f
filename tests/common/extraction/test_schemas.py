"""What may be extracted: shipped schemas, files, schemas in params; every value gets a place for
its span.
"""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from stages.common.extraction import schemas
from stages.common.runtime.errors import ParamsError

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"const": "person"},
        "name": {"type": "string"},
        "born": {"type": ["integer", "null"]},
        "places": {"type": "array", "items": {"$ref": "#/$defs/place"}, "minItems": 1},
    },
    "required": ["kind", "name", "places"],
    "$defs": {
        "place": {"anyOf": [{"enum": ["Paris", "Rome"]}, {"type": "object", "properties": {"x": {"type": "number"}}}]}
    },
}


def test_every_value_of_a_reply_stands_beside_its_span() -> None:
    wanted = schemas.load(PERSON)
    assert not wanted.many and wanted.reply["properties"]["records"]["maxItems"] == 1

    def beside(value: Any, span: str = "so it says") -> dict[str, Any]:
        return {"span": span, "value": value}

    record = {
        "kind": "person",
        "name": beside("Ada"),
        "born": None,
        "places": [beside("Rome"), {"x": beside(1.5)}],
    }
    jsonschema.validate({"records": [record]}, wanted.reply)
    jsonschema.validate({"records": []}, wanted.reply)
    for wrong in (
        record | {"name": "Ada"},  # without a span
        record | {"name": beside("Ada", "")},
        record | {"places": [beside("Berlin")]},
        record | {"more": beside("x")},
        {key: value for key, value in record.items() if key != "name"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"records": [wrong]}, wanted.reply)


@pytest.mark.parametrize("name", list(schemas.SHIPPED))
def test_shipped_schemas_can_be_kept_and_their_templates_name_their_fields(name: str) -> None:
    wanted = schemas.load(name)
    assert wanted.many == (name != "form")
    named = {field for turns in wanted.conversations for turn in turns for field in schemas.TEMPLATE.findall(turn)}
    assert named <= set(wanted.record["properties"]) and wanted.own_words <= set(wanted.record["properties"])
    assert schemas.is_strict(wanted.reply) == (name != "form"), "a form's fields may be left out"


def test_a_file_is_read_and_params_go_before_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text(
        json.dumps({"type": "array", "maxItems": 3, "items": PERSON | {"$defs": {}}} | {"$defs": PERSON["$defs"]})
    )
    wanted = schemas.load(str(file), "People, please.", [["Who is {name}?", "{kind}"]])
    assert (wanted.instruction, wanted.conversations) == ("People, please.", (("Who is {name}?", "{kind}"),))
    assert wanted.reply["properties"]["records"]["maxItems"] == 3
    assert wanted.faults({"kind": "person", "name": "Ada", "places": ["Rome"]}) == ""
    assert "Berlin" in wanted.faults({"kind": "person", "name": "Ada", "places": ["Berlin"]})


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("qestion_answer", "did you mean 'question_answer'"),
        ({"type": "string"}, "a record is an object"),
        ({"type": "object", "properties": {"a": {}}}, "needs a type"),
        ({"type": "object", "properties": {"a": {"allOf": [{"type": "string"}]}}}, "'allOf' is not understood"),
        ({"type": "object", "properties": {}}, "names its properties"),
        ({"type": "object", "properties": {"a": {"type": "strin"}}}, "no JSON schema"),
        (
            {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3, "maximum": 1}}, "required": ["a"]},
            "no such schema",
        ),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "x-lathe": {"instuction": ""}}, "unknown key"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused_with_the_reason(schema: Any, said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        schemas.load(schema)


def test_templates_are_turns_in_turn() -> None:
    for turns in ([["only one"]], [["a", "b", "c"]], [["", "b"]]):
        with pytest.raises(ParamsError, match="turns of user and assistant"):
            schemas.load("facts", conversations=turns)
