"""What is extracted: a JSON schema of records, and the schema of a reply in which every value
stands beside the span of the document that it comes from.

The schema is of one record (an object: a form has one a passage) or of several (an array of
objects). Beside JSON Schema's words its key `x-lathe` may say `instruction`, `conversations`
(templates of turns) and `own_words` (fields that are worded anew, as questions are).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema

from stages.common.core.params import PARAMS_FILE, suggestion
from stages.common.generation.engines import structured
from stages.common.runtime.errors import ParamsError

Schema = dict[str, Any]
SHIPPED = {file.stem: file for file in sorted(Path(__file__).parent.glob("*.json"))}
OWN = "x-lathe"
INSTRUCTION = "Write down what the document says of this."
SPAN, VALUE = "span", "value"
SPAN_CHARACTERS, STRING_CHARACTERS, ITEMS = 400, 1000, 16
"""Most of a span, of a string and of an array whose schema says nothing: a model that has lost the
thread must end too.
"""
SCALARS = ("string", "number", "integer", "boolean")
REFUSED = ("allOf", "not", "if", "patternProperties", "prefixItems", "dependentSchemas", "dependentRequired")
SAID_ONLY = ("title", "default", "examples", "$schema", "$id", OWN)
"""Words that decide nothing."""
DEFINITIONS = ("$defs", "definitions")
TEMPLATE = re.compile(r"\{([\w/]+)\}")


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a passage: a record's schema, whether there are several, and what becomes
    of them.
    """

    record: Schema
    reply: Schema
    """Of a whole reply: `{"records": [...]}`, every value as `{"span": ..., "value": ...}`."""
    many: bool
    """Whether a passage may have several records."""
    instruction: str
    conversations: tuple[tuple[str, ...], ...] = ()
    """Turns of user and assistant by turns, with `{field}`, `{a/b}` or `{document}`; without any,
    a passage and its records are one.
    """
    own_words: frozenset[str] = frozenset()
    validators: tuple[Any, Any] = field(default=(), compare=False)  # type: ignore[assignment]

    def faults(self, record: Any, with_spans: bool = False) -> str:
        """Return what is wrong with a record by its schema, plain or as a reply gives it, "" when
        nothing is.
        """
        error = next(self.validators[with_spans].iter_errors(record), None)
        return "" if error is None else f"{'/'.join(map(str, error.absolute_path))}: {error.message}"[:300]


def load(asked: str | Schema, instruction: str = "", conversations: Sequence[Sequence[str]] = ()) -> Wanted:
    """Return what a schema asks for: a shipped one's name, a file, or the schema itself. Raises
    ParamsError.
    """
    schema = asked if isinstance(asked, dict) else _read(asked)
    where = "extract.schema"
    own, outer = dict(schema.get(OWN, {})), {key: schema[key] for key in DEFINITIONS if key in schema}
    several = schema.get("type") == "array"
    record = schema.get("items") if several else schema
    if not isinstance(record, dict) or not (record.get("type") == "object" or "$ref" in record):
        raise ParamsError("a record is an object, or the items of an array are", where=where)
    if unknown := set(own) - {"instruction", "conversations", "own_words"}:
        raise ParamsError(f"unknown key '{OWN}.{min(unknown)}'", where=where)
    record = {key: value for key, value in (record | outer).items() if key != OWN}
    try:
        kind = jsonschema.validators.validator_for(record, jsonschema.Draft202012Validator)
        kind.check_schema(record)
    except jsonschema.SchemaError as error:
        raise ParamsError(f"no JSON schema: {error.message}", where=where) from error
    most = int(schema.get("maxItems", ITEMS)) if several else 1
    templates = conversations or own.get("conversations", ())
    _check_templates(templates)
    made = reply(record, most)
    one = made["properties"]["records"]["items"] | _kept(made, *DEFINITIONS)
    structured.check(one)
    return Wanted(
        record,
        made,
        several,
        instruction or own.get("instruction", INSTRUCTION),
        tuple(tuple(turns) for turns in templates),
        frozenset(own.get("own_words", ())),
        (kind(record), kind(one)),
    )


def reply(record: Schema, most: int) -> Schema:
    """Return the schema of a reply with at most so many records. Raises ParamsError for a word of
    JSON Schema under which no value can be told.
    """
    items = spanned({key: value for key, value in record.items() if key not in DEFINITIONS})
    made: Schema = {
        "type": "object",
        "properties": {"records": {"type": "array", "items": items, "maxItems": most}},
        "required": ["records"],
        "additionalProperties": False,
    }
    for key in DEFINITIONS:
        if key in record:
            made[key] = {name: spanned(one) for name, one in record[key].items()}
    return made


def spanned(node: Any) -> Schema:
    """Return a schema with every value as an object of the span that it comes from and itself."""
    if not isinstance(node, dict):
        raise ParamsError(f"a schema that says nothing ({node!r}) keeps no value", where="extract.schema")
    node = {key: value for key, value in node.items() if key not in SAID_ONLY}
    if wrong := next((key for key in REFUSED if key in node), None):
        raise ParamsError(f"'{wrong}' is not understood here", where="extract.schema", remedy="say it without")
    if "$ref" in node or "const" in node:
        return {key: node[key] for key in ("$ref", "const") if key in node}
    branches = node.get("anyOf") or node.get("oneOf")
    if branches:
        return {"anyOf": [spanned(one) for one in branches]}
    kind = node.get("type")
    if isinstance(kind, list):
        return {"anyOf": [spanned(node | {"type": one}) for one in kind]}
    if kind == "object":
        inner = {name: spanned(one) for name, one in node.get("properties", {}).items()}
        if isinstance(node.get("additionalProperties"), dict) or not inner:
            raise ParamsError("an object names its properties", where="extract.schema")
        return {"type": "object", "properties": inner, "additionalProperties": False} | _kept(node, "required")
    if kind == "array":
        most = min(ITEMS, node.get("maxItems", ITEMS))
        return {"type": "array", "items": spanned(node.get("items")), "maxItems": most} | _kept(node, "minItems")
    if kind == "null":
        return {"type": "null"}
    if kind not in SCALARS and "enum" not in node:
        raise ParamsError(f"a value needs a type, not {kind!r}", where="extract.schema")
    if kind == "string" and not {"enum", "maxLength", "pattern", "format"} & set(node):
        node = node | {"maxLength": STRING_CHARACTERS}
    span = {"type": "string", "minLength": 1, "maxLength": SPAN_CHARACTERS}
    return {
        "type": "object",
        "properties": {SPAN: span, VALUE: node},
        "required": [SPAN, VALUE],
        "additionalProperties": False,
    }


def is_strict(node: Any) -> bool:
    """Whether every property of every object is required: what OpenAI calls strict."""
    if isinstance(node, list):
        return all(map(is_strict, node))
    if not isinstance(node, dict):
        return True
    properties = node.get("properties", {}) if node.get("type") == "object" else {}
    return set(properties) <= set(node.get("required", [])) and all(map(is_strict, node.values()))


def _kept(node: Schema, *words: str) -> Schema:
    return {word: node[word] for word in words if word in node}


def _read(name: str) -> Schema:
    file = SHIPPED.get(name, Path(name))
    if not file.is_file():
        known = [*SHIPPED, *map(str, Path("data/extraction").glob("*.json"))]
        what = f"'extract.schema': no schema {name!r}{suggestion(name, known)}"
        raise ParamsError(what, where=PARAMS_FILE, remedy=f"a file, or one of {', '.join(SHIPPED)}")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ParamsError(f"no JSON: {error}", where=file) from error
    if not isinstance(found, dict):
        raise ParamsError("no JSON schema: an object is wanted", where=file)
    return found


def _check_templates(templates: Sequence[Sequence[str]]) -> None:
    for turns in templates:
        if len(turns) < 2 or len(turns) % 2 or not all(isinstance(turn, str) and turn for turn in turns):
            what = "a conversation is turns of user and assistant in turn, an even number of texts"
            raise ParamsError(what, where="extract.conversations")
