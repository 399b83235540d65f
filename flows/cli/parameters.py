"""Every key of params.yaml with its kind, default and meaning, as its stage declares it: a table, a
JSON schema for editors, and docs/params.md.

Command: lathe params [SECTION] [--schema] [--set sft.training.num_train_epochs=3]
`lathe params --write` makes infra/params.schema.json and docs/params.md anew.
"""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat

from flows import pipeline
from stages.common.core import params
from stages.common.core.params import StageParams
from stages.common.runtime import whole_files
from stages.common.runtime.errors import ParamsError

SCHEMA, PAGE = Path("infra/params.schema.json"), Path("docs/params.md")
STAGES = [
    "demo",
    "ingest",
    "extract",
    "curate",
    "validate",
    "tokenizer",
    "pretrain",
    "sft",
    "sample",
    "rank",
    "reward",
    "select_sft",
    "ppo",
    "grpo",
    "dpo",
    "orpo",
    "kto",
    "evaluate",
    "report",
    "promote",
    "deploy",
]
HEAD = """# Parameters

Every key of params.yaml, by section; a section belongs to the stage of its name. Made by
`lathe params --write` from the classes that read them. `training` goes to the training library
under its own names: TrainingArguments of transformers, or TRL's config of that trainer. An editor
with a YAML language server completes and checks the file by infra/params.schema.json.
"""
REQUIRED = "required"


class TokensPerSecond(StageParams):
    """Speed of one GPU; null: no hours are told (`make gpu-check` measures it)."""

    train: NonNegativeFloat | None = None
    """In training."""
    decode: NonNegativeFloat | None = None
    """In answering."""


class Run(StageParams):
    """What holds for every stage."""

    name: str
    """The MLflow experiment."""
    engine: Literal["local", "vllm"] = "local"
    """What decodes answers (docs/vllm.md)."""
    launcher: str = "python"
    """What starts a training stage: python, or accelerate launch with a file of
    infra/accelerate.
    """
    gpus: NonNegativeInt = 0
    """GPU slots that a training stage holds."""
    grace_seconds: PositiveFloat = 25
    """Seconds from SIGTERM to a hard kill; a save starts them anew."""
    checkpoints: Literal["local", "remote"] = "local"
    """Where checkpoints of trainings are; remote: also in DVC's default remote, so that another
    machine goes on.
    """
    gpu_gibibytes: PositiveFloat | None = None
    """GiB of one GPU, for `lathe doctor --profile`."""
    tokens_per_second: TokensPerSecond = TokensPerSecond()
    """For `lathe doctor --profile`, like the price."""
    price_per_gpu_hour: NonNegativeFloat | None = None
    """In any currency."""


class Row(NamedTuple):
    """One key: its kind and default as text, and what it means."""

    key: str
    kind: str
    default: str
    meaning: str


def sections() -> dict[str, type[StageParams]]:
    """Return the class of each section, in the order of params.yaml."""
    return {"run": Run} | {name: importlib.import_module(f"stages.{name}").Params for name in STAGES}


def schema() -> dict[str, Any]:
    """Return the JSON schema of params.yaml."""
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for name, cls in sections().items():
        found = cls.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
        definitions |= {f"{name}.{inner}": value for inner, value in found.pop("$defs", {}).items()}
        properties[name] = found | {"title": name}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "params.yaml of Lathe",
        "type": "object",
        "properties": properties,
        "$defs": definitions,
    }


def rows(whole: dict[str, Any], section: str) -> Iterator[Row]:
    """Yield the keys of a section of a schema, a nested one after its parent."""
    yield from _rows(whole, section, whole["properties"][section])


def _rows(whole: dict[str, Any], prefix: str, node: dict[str, Any]) -> Iterator[Row]:
    for name, field in node.get("properties", {}).items():
        inner = _resolved(whole, field)
        meaning = " ".join(field.get("description", inner.get("description", "")).split())
        if "properties" in inner:
            yield from _rows(whole, f"{prefix}.{name}", inner)
            continue
        required = name in node.get("required", [])
        yield Row(
            f"{prefix}.{name}", kind(whole, field), REQUIRED if required else _text(field.get("default")), meaning
        )


def _resolved(whole: dict[str, Any], field: dict[str, Any]) -> dict[str, Any]:
    """Return a field, or what it refers to."""
    reference = field.get("$ref", "").removeprefix("#/$defs/")
    found: dict[str, Any] = whole["$defs"][reference] if reference else field
    return found


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def kind(whole: dict[str, Any], field: dict[str, Any]) -> str:
    """Return what a value may be, in words: `integer > 0`, `one of local, vllm`."""
    node = _resolved(whole, field)
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(kind(whole, one) for one in node["anyOf"]))
    if "enum" in node:
        return f"one of {', '.join(map(str, node['enum']))}"
    if "const" in node:
        return str(node["const"])
    name = str(node.get("type", "any"))
    if name == "array":
        return f"list of {kind(whole, node.get('items', {}))}"
    if name == "object":
        values = node.get("additionalProperties")
        return f"map to {kind(whole, values)}" if isinstance(values, dict) else "map"
    bounds = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    limits = [f"{sign} {node[word]:g}" for word, sign in bounds.items() if word in node]
    return " ".join([name, *limits])


def page(whole: dict[str, Any]) -> str:
    """Return docs/params.md."""
    parts = [HEAD]
    for name, node in whole["properties"].items():
        about = node.get("description", "").split("\n\n")[0]
        lines = [f"| `{row.key}` | {row.kind} | `{row.default}` | {row.meaning} |" for row in rows(whole, name)]
        table = ["| key | kind | default | meaning |", "|---|---|---|---|", *(line.replace("||", "") for line in lines)]
        parts.append("\n".join([f"## {name}", "", about, "", *table, ""]))
    return "\n".join(parts)


def write() -> None:
    """Make the schema and the page anew."""
    whole = schema()
    SCHEMA.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(whole), encoding="utf-8")


def change(settings: list[str]) -> None:
    """Set keys of params.yaml, as `pipeline.override`. Raises ParamsError where a stage would not
    take what came of it, and leaves the file as it was.
    """
    if not settings:
        return
    before = params.PARAMS_FILE.read_bytes()
    pipeline.override(settings)
    classes = sections()
    try:
        for name in {setting.lstrip("+~").split(".")[0].split("=")[0] for setting in settings} & set(classes):
            params.load(classes[name], name)
    except ParamsError:
        with whole_files.written_whole(params.PARAMS_FILE) as own:
            own.write_bytes(before)
        raise


def main(
    section: Annotated[str | None, typer.Argument(help="a section of params.yaml; none: all")] = None,
    as_schema: Annotated[bool, typer.Option("--schema", help="print the JSON schema")] = False,
    anew: Annotated[bool, typer.Option("--write", help=f"write {SCHEMA} and {PAGE}")] = False,
    to: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE to change in the file; repeatable")] = None,
) -> None:
    """Print every key of params.yaml with its kind, default and meaning, or change some."""
    if to:
        change(to)
        return
    if anew:
        write()
        return
    whole = schema()
    if section is not None and section not in whole["properties"]:
        what = f"no section '{section}'{params.suggestion(section, list(whole['properties']))}"
        raise ParamsError(what, where=params.PARAMS_FILE, remedy="lathe params")
    if as_schema:
        print(json.dumps(whole, indent=1, ensure_ascii=False))
        return
    for name in [section] if section else whole["properties"]:
        for row in rows(whole, name):
            print(f"{row.key}\n    {row.kind}; default {row.default}\n    {row.meaning}")


if __name__ == "__main__":
    from stages.common.runtime import process

    process.run("params", main, again="lathe params")
