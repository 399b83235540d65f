"""Which models read this record? Every version of the registry, and every model of this checkout,
with a stage among its ancestors that was given a file in which the record stands.

Command: lathe versions demo/conversations_openai.jsonl:12
What a stage was given is known by the hashes of its record, and looked up in DVC's cache: data that
are no longer in data/ count as well.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from flows import pipeline
from stages.common.core import params
from stages.common.release import provenance, registry
from stages.common.runtime import logs, process
from stages.common.tracking import lineage, mlflow_store

UNKNOWN = "unknown"
Stages = Mapping[str, Mapping[str, Any]]


class Read(NamedTuple):
    """A stage that was given a file with the record; `file` is UNKNOWN where the cache lacks it."""

    stage: str
    file: str


class Cache:
    """DVC's cache, asked which files of a folder hold a record."""

    def __init__(self, folder: Path, identifier: str) -> None:
        self.folder, self.identifier = folder, identifier
        self.known: dict[str, list[str]] = {}

    def files(self, found: str) -> list[str]:
        """Return the files of a folder of this hash that hold the record, or UNKNOWN."""
        if found not in self.known:
            self.known[found] = self._files(found)
        return self.known[found]

    def _files(self, found: str) -> list[str]:
        listing = self._object(found)
        if not found.endswith(".dir"):
            return []
        if not listing.is_file():
            return [UNKNOWN]
        entries = json.loads(listing.read_text(encoding="utf-8"))
        parquet = {one["relpath"]: self._object(one["md5"]) for one in entries if one["relpath"].endswith(".parquet")}
        if any(not file.is_file() for file in parquet.values()):
            return [UNKNOWN]
        return sorted(name for name, file in parquet.items() if self._holds(file))

    def _object(self, found: str) -> Path:
        return self.folder / "files/md5" / found[:2] / found[2:]

    def _holds(self, file: Path) -> bool:
        import pyarrow.parquet as pq

        if "id" not in pq.read_schema(file).names:
            return False
        return bool(pq.read_table(file, columns=["id"], filters=[("id", "=", self.identifier)]).num_rows)


class Checkout:
    """This checkout's own models and evaluations, as dvc.lock has them."""

    @cached_property
    def stages(self) -> dict[str, Any]:
        """What dvc.lock says of each stage."""
        return lineage.section(provenance.LOCK, "stages")

    def models(self) -> Iterator[tuple[str, Stages]]:
        """Yield each model with its ancestors."""
        for stage in self.stages.values():
            for out in stage.get("outs", []):
                if out["path"].startswith("models/") and not out["path"].startswith("models/tokenizer"):
                    yield out["path"], provenance.ancestors(out["path"])

    def evaluations(self) -> Iterator[tuple[str, Stages]]:
        """Yield each evaluation with what it was given."""
        for name, stage in self.stages.items():
            if name.startswith("evaluate@"):
                yield name, {name: {"deps": provenance.hashes(stage.get("deps", []))}}


def reads(stages: Stages, cache: Cache) -> list[Read]:
    """Return which of the stages were given the record, and in which file of which folder.

    The stages that make the data are left out: all models have them in common.
    """
    found = []
    for name, stage in stages.items():
        trains = any(place.startswith("models/") for place in stage.get("outs", {})) or name.startswith("evaluate@")
        for place, value in stage["deps"].items() if trains else ():
            if place.startswith("data/"):
                found += [Read(name, f"{place}/{file}" if file != UNKNOWN else UNKNOWN) for file in cache.files(value)]
    return found


def told(who: str, found: list[Read]) -> list[str]:
    """Return the lines about one model; none where it read nothing."""
    lacks = f"{UNKNOWN}: DVC's cache has it no longer; dvc fetch"
    lines = [f"    {read.stage:<14} {lacks if read.file == UNKNOWN else read.file}" for read in found]
    return [who, *lines] if found else []


def registered() -> Iterator[tuple[str, Stages]]:
    """Yield each version of the registry with the stages of its record."""
    name = params.plain(params.read_yaml(params.PARAMS_FILE))["promote"]["name"]
    client = mlflow_store.client()
    for version in registry.versions(client, name):
        about = f"version {version.number} ({version.tags.get('candidate', 'no candidate')})"
        yield about, provenance.of(client, version).get("stages", {})


def main(record: Annotated[str, typer.Argument(help="id of a record: file and line")]) -> None:
    """Print which versions, models and evaluations read a record."""
    cache, checkout = Cache(pipeline.cache(), record), Checkout()
    asked = [*registered(), *checkout.models(), *checkout.evaluations()]
    lines = [line for who, stages in asked for line in told(who, reads(stages, cache))]
    print("\n".join(lines) or f"nothing that is known here read {record}")
    logs.report(f"{sum(not line.startswith(' ') for line in lines)} of {len(asked)} read {record}")


if __name__ == "__main__":
    process.run("versions", main, again="lathe versions …")
