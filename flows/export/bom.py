"""The bill of materials of an export: CycloneDX 1.6, as JSON, with the model as the component.

It says what the folder holds (each file by its hash), what the model was made from (data by the
hashes of dvc.lock, a base model), how it was measured, and which licences are known.
"""

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from flows.export.source import Source
from stages.common.core import models

FILE = "bom.cdx.json"
SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
MD5 = re.compile(r"[0-9a-f]{32}")
LICENCE = re.compile(r"^license:\s*['\"]?([A-Za-z0-9][A-Za-z0-9.+-]*)['\"]?\s*$", re.MULTILINE)
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
TESTED_WITH = ("torch", "transformers", "tokenizers", "safetensors")
Part = dict[str, Any]


def document(source: Source, folder: Path, facts: dict[str, Any]) -> Part:
    """Return the bill of what lies in `folder`; `facts` are the export's own record."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    weights = source.version.tags["weights_sha256"]
    return {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, f"{weights} {facts['format']} {now}").urn,
        "version": 1,
        "metadata": {
            "timestamp": now,
            "tools": {"components": [{"type": "application", "name": "lathe", "version": metadata.version("lathe")}]},
            "component": model(source, facts),
        },
        "components": [*files(folder), *data(source), *base(source), *libraries()],
        "dependencies": [{"ref": "model", "dependsOn": [*(one["bom-ref"] for one in (*data(source), *base(source)))]}],
    }


def model(source: Source, facts: dict[str, Any]) -> Part:
    """Return the model itself with its card."""
    found: Part = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": source.version.name,
        "version": source.version.number,
        "description": f"Version {source.version.number} of {source.version.name}, exported as {facts['format']}",
        "modelCard": {
            "modelParameters": {
                "task": "text-generation",
                "architectureFamily": facts["model_type"],
                "modelArchitecture": facts["architecture"],
                "datasets": [{"ref": one["bom-ref"]} for one in data(source)],
            },
            "quantitativeAnalysis": {"performanceMetrics": list(metrics(source))},
        },
        "properties": [_property(name, value) for name, value in properties(source, facts)],
    }
    if parents := base(source):
        found["pedigree"] = {
            "ancestors": [{key: value for key, value in one.items() if key != "bom-ref"} for one in parents]
        }
        if licences := parents[0].get("licenses"):
            found["pedigree"]["notes"] = (
                f"The base model's licence: {licences[0]['license'].get('id') or licences[0]['license']['name']}"
            )
    return found


def properties(source: Source, facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what has no place of its own in the format."""
    tags = source.version.tags
    for name in ("weights_sha256", "questions_sha256", "test_sha256", "git_commit", "git_dirty", "stage", "candidate"):
        if tags.get(name):
            yield name, tags[name]
    yield "format", facts["format"]
    for name, value in facts["questions"].items():
        yield f"export/questions/{name}", value
    for shape, counts in (source.record.get("counts") or {}).items():
        yield f"records/{shape}", counts


def metrics(source: Source) -> Iterator[Part]:
    """Yield what was measured of the version, with its 95 % interval where it has one."""
    if source.evaluation is None:
        return
    for name, value in source.evaluation.metrics.items():
        kind, _, part = name.partition("/")
        found: Part = {"type": kind, "value": f"{value:.6g}"} | ({"slice": part} if part else {})
        if name in source.evaluation.intervals:
            low, high = source.evaluation.intervals[name]
            found["confidenceInterval"] = {"lowerBound": f"{low:.6g}", "upperBound": f"{high:.6g}"}
        yield found


def files(folder: Path) -> list[Part]:
    """Return every file of the export with its hash."""
    return [
        {
            "type": "file",
            "bom-ref": f"file:{file.relative_to(folder).as_posix()}",
            "name": file.relative_to(folder).as_posix(),
            "hashes": [{"alg": "SHA-256", "content": models.file_sha256(file)}],
        }
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != FILE
    ]


def data(source: Source) -> list[Part]:
    """Return the data that the version's stages read, by the hashes of dvc.lock."""
    found = []
    for place, value in source.record.get("data", {}).items():
        one: Part = {
            "type": "data",
            "bom-ref": f"data:{place}",
            "name": place,
            "data": [{"type": "dataset", "name": place}],
            "properties": [_property("dvc", value)],
        }
        if MD5.fullmatch(value):  # that of a folder is over DVC's listing of it, no file's
            one["hashes"] = [{"alg": "MD5", "content": value}]
        found.append(one)
    return found


def base(source: Source) -> list[Part]:
    """Return the base model, if the version began from one that is not made here."""
    name = (source.record.get("params", {}).get("pretrain") or {}).get("base")
    if not name:
        return []
    found: Part = {"type": "machine-learning-model", "bom-ref": f"base:{name}", "name": str(name)}
    if known := licence(str(name)):
        found["licenses"] = [{"license": known}]
    return [found]


def licence(base_model: str) -> Part | None:
    """Return the licence that a base model's card names (README.md of its folder, or in the hub's
    cache); None where nothing says.
    """
    card = Path(base_model) / "README.md"
    if not Path(base_model).exists():
        from transformers.utils import cached_file

        try:
            card = Path(str(cached_file(base_model, "README.md", local_files_only=True)))
        except OSError:  # it is not in the cache, or no name of the hub's
            return None
    front = FRONT_MATTER.match(card.read_text(encoding="utf-8")) if card.is_file() else None
    named = LICENCE.search(front[1]) if front else None
    return {"name": named[1]} if named else None  # the hub's names are not SPDX's


def libraries() -> list[Part]:
    """Return the libraries with which the export was loaded and asked."""
    return [
        {"type": "library", "bom-ref": f"pypi:{name}", "name": name, "version": metadata.version(name)}
        for name in TESTED_WITH
    ]


def _property(name: str, value: object) -> Part:
    return {"name": f"lathe:{name}", "value": str(value)}
