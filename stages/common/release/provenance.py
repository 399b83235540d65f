"""Where a version comes from, in full: code, params, data, validation and the runs of all its
ancestors.

The record is made when the version is, goes into the registry among its files, and is what
`reproduce` starts from.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import params
from stages.common.evaluation.results import Evaluated
from stages.common.release import registry
from stages.common.tracking import lineage, mlflow_store
from stages.common.tracking.run import flatten

if TYPE_CHECKING:
    from stages.common.release.registry import Version
    from stages.common.tracking.mlflow_store import MlflowClient

LOCK = Path("dvc.lock")
PATCH_BYTES = 1_000_000
Record = dict[str, Any]


def record(client: "MlflowClient", model: Path, curation: Path | None, validation: Path | None) -> Record:
    """Return the record of the model at path `model` in this working tree.

    Keys: git_commit, patch (what the tree changes of it), dag, model, stage, params, params_text,
    stages (of each ancestor the hashes of deps and outs), data (hash of each folder of data read),
    counts, validation, runs.
    """
    stages = ancestors(model.as_posix())
    order = list(stages)
    return {
        "git_commit": lineage.commit(),
        "patch": patch(),
        "dag": lineage.dag(),
        "model": model.as_posix(),
        "stage": order[0] if order else "",
        "params": params.plain(params.read_yaml(params.PARAMS_FILE)),
        "params_text": params.PARAMS_FILE.read_text(encoding="utf-8"),
        "stages": stages,
        "data": data(stages),
        "counts": counts(curation) if curation else {},
        "validation": validated(validation) if validation else {},
        "runs": runs(client, order),
    }


def of(client: "MlflowClient", version: "Version | None") -> Record:
    """Return the record of a version, empty where there is none."""
    text = registry.record(client, version) if version else ""
    return dict(json.loads(text)) if text else {}


def ancestors(path: str) -> dict[str, Record]:
    """Return the stage of dvc.lock that wrote `path` and all before it, nearest first, with the
    hashes of each.
    """
    locked = lineage.section(LOCK, "stages")
    makers = {out["path"]: name for name, stage in locked.items() for out in stage.get("outs", [])}
    found: dict[str, Record] = {}
    front = [path]
    while front:
        name = next((makers[place] for place in _and_above(front.pop(0)) if place in makers), None)
        if name is None or name in found:
            continue
        stage = locked[name]
        deps, outs = hashes(stage.get("deps", [])), hashes(stage.get("outs", []))
        found[name] = {"cmd": stage["cmd"], "deps": deps, "outs": outs}
        front += [place for place in deps if not place.endswith(".py")]
        front += [out for place in deps for out in makers if out.startswith(f"{place}/")]  # data/raw: what lies below
    return found


def data(stages: Mapping[str, Record]) -> dict[str, str]:
    """Return the hash of each path under data/ that the ancestors read."""
    read = {place: value for stage in stages.values() for place, value in stage["deps"].items()}
    return {place: value for place, value in sorted(read.items()) if place.startswith("data/")}


def counts(report: Path) -> Record:
    """Return from curate's report how many records of each shape went in, stayed, and went into
    which split.
    """
    found = json.loads(report.read_text(encoding="utf-8"))
    names = ("rows", "kept", "splits")
    return {shape: {name: facts[name] for name in names if name in facts} for shape, facts in found.items()}


def validated(report: Path) -> Record:
    """Return from validate's report how many expectations were looked at, and those that did not
    hold.
    """
    found = json.loads(report.read_text(encoding="utf-8"))
    rules = {f"{suite}: {name}": rule for suite, facts in found.items() for name, rule in _rules(facts)}
    failed = {
        name: {"severity": rule.get("severity"), "unexpected": rule.get("unexpected")}
        for name, rule in rules.items()
        if not rule["success"]
    }
    return {"expectations": len(rules), "failed": failed}


def runs(client: "MlflowClient", stages: list[str]) -> dict[str, str]:
    """Return the id of the newest finished run of each stage, those of this pipeline state before
    others.
    """
    found: dict[str, str] = {}
    with mlflow_store.answers():
        experiment = client.get_experiment_by_name(lineage.project())
        if experiment is None:
            return found
        for stage in stages:
            finished = f"attributes.run_name = '{stage}' and attributes.status = 'FINISHED'"
            for wanted in (f"{finished} and tags.dag = '{lineage.dag()}'", finished):
                newest = ["attributes.start_time DESC"]
                hits = client.search_runs([experiment.experiment_id], wanted, max_results=1, order_by=newest)
                if hits:
                    found[stage] = hits[0].info.run_id
                    break
    return found


def patch() -> str | None:
    """Return what tracked files change of the commit, as git applies it; None for more than a
    megabyte.
    """
    text = lineage.difference()
    return text if len(text.encode()) <= PATCH_BYTES else None


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (key, before, after) of every parameter that differs between two params.yaml."""
    old, new = flatten(before), flatten(after)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [(key, old.get(key, "none"), new.get(key, "none")) for key in keys]


def _rules(facts: Any) -> list[tuple[str, Record]]:
    """Return the expectations in a suite's part of the report, at whatever depth."""
    if not isinstance(facts, dict):
        return []
    here = [(name, rule) for name, rule in facts.items() if isinstance(rule, dict) and "success" in rule]
    below = [one for rule in facts.values() if isinstance(rule, dict) and "success" not in rule for one in _rules(rule)]
    return here + below


def _and_above(path: str) -> list[str]:
    return [path, *(parent.as_posix() for parent in Path(path).parents)]


def hashes(entries: list[Record]) -> dict[str, str]:
    """Return the hash of each path among a stage's deps or outs in dvc.lock."""
    return {entry["path"]: str(entry.get("md5", lineage.UNKNOWN)) for entry in entries}


def tags(best: Evaluated, metric: str, record: Record) -> dict[str, str]:
    """Return the tags that say what a version is, for a reviewer to filter by."""
    return {
        "weights_sha256": best.weights_sha256,
        "questions_sha256": best.questions_sha256,
        "test_sha256": best.test_sha256,
        "candidate": best.candidate,
        "prompt": best.prompt,
        "metric": metric,
        "value": f"{best.metrics[metric]:.6g}",
        "git_commit": record["git_commit"],
        "git_dirty": str(record["patch"] != "").lower(),
        "dag": record["dag"],
        "stage": record["stage"],
    }
