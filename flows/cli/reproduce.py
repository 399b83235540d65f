"""Make a version of the registry again from what its record says, and compare the weights.

The record's commit goes into a git work tree of its own with an empty DVC cache, so every stage
runs; nothing here is touched. Command: python -m flows.cli.reproduce 3
"""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from flows.local import work_tree
from flows.local.work_tree import git, git_fails
from stages.common.core import models, params
from stages.common.release import provenance, registry
from stages.common.release.provenance import Record
from stages.common.release.registry import Version
from stages.common.runtime import logs, process
from stages.common.runtime.errors import DataError
from stages.common.runtime.logs import log
from stages.common.tracking import lineage, mlflow_store

ROOT = Path(".lathe/reproduce")
DONE = ".reproduced-from"
Number = Annotated[str, typer.Argument(help="number of the version")]
Keep = Annotated[bool, typer.Option(help="leave the work tree when the weights are equal")]


def main(version: Number, keep: Keep = False) -> None:
    """Run a version's pipeline anew and compare the weights with the registered ones."""
    found, record = known(version)
    tree = ROOT / found.number
    check_out(tree, record)
    bring_data(tree, record)
    work_tree.repro(tree, [record["stage"]])
    differing = differences(tree, record)
    weights = models.weights_sha256(tree / record["model"])
    if weights != found.tags["weights_sha256"]:
        what = f"the weights are {weights[:16]}, registered are {found.tags['weights_sha256'][:16]}"
        why = ", ".join(differing) or "the record says not why"
        raise DataError(f"{what}: {why}", where=tree / record["model"], remedy="compare the work tree with the record")
    if not keep:
        git("worktree", "remove", "--force", str(tree))
    logs.report(f"version {found.number} reproduced, weights equal: {weights[:16]} ({len(record['stages'])} stages)")


def known(number: str) -> tuple[Version, Record]:
    """Return the version and its record. Raises DataError when there is none, or it cannot be
    followed.
    """
    client = mlflow_store.client()
    name = str(params.read_yaml(params.PARAMS_FILE)["promote"]["name"])
    version = registry.numbered(client, name, number)
    record, where = provenance.of(client, version), f"{name} version {number}"
    if not record or not record["stage"]:
        raise DataError("it has no record of the stages that made it", where=where, remedy="promote it with DVC")
    if record["patch"] is None:
        raise DataError("its local changes were too large to be kept", where=where, remedy="commit before promoting")
    if git_fails("cat-file", "-e", f"{record['git_commit']}^{{commit}}"):
        remedy = "fetch it: git fetch --all"
        raise DataError(f"its commit {record['git_commit']} is not in this repository", where=where, remedy=remedy)
    return version, record


def check_out(tree: Path, record: Record) -> None:
    """Make `tree` the record's commit with its local changes; one that a call before has made is
    gone on with.
    """
    if (tree / DONE).exists() and (tree / DONE).read_text(encoding="utf-8") == record["git_commit"]:
        log.info("going on in %s", tree)
        return
    work_tree.make(tree, record["git_commit"])
    (tree / "dvc.lock").unlink(missing_ok=True)
    if record["patch"]:
        git("-C", str(tree), "apply", "--whitespace=nowarn", "-", given=record["patch"])
    (tree / params.PARAMS_FILE).write_text(record["params_text"], encoding="utf-8")
    (tree / DONE).write_text(record["git_commit"], encoding="utf-8")


def bring_data(tree: Path, record: Record) -> None:
    """Copy what the ancestors read and none of them writes, and git does not hold: a user's own
    files.
    """
    written = [Path(out) for stage in record["stages"].values() for out in stage["outs"]]
    sources = {Path(dep) for stage in record["stages"].values() for dep in stage["deps"]}
    for source in sorted(sources - set(written)):
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            inside = any(file.is_relative_to(out) for out in written)
            if file.is_file() and not inside and not (tree / file).exists():
                (tree / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, tree / file)


def differences(tree: Path, record: Record) -> list[str]:
    """Return what a difference can come from: data that was read with other content, stages that
    wrote other outs.
    """
    locked, found = lineage.section(tree / provenance.LOCK, "stages"), []
    written = {out for stage in record["stages"].values() for out in stage["outs"]}
    for name, then in record["stages"].items():
        now = {kind: provenance.hashes(locked.get(name, {}).get(kind, [])) for kind in ("deps", "outs")}
        read = [path for path, value in then["deps"].items() if now["deps"].get(path) != value]
        found += [f"{path} is another one than stage {name} read" for path in read if path not in written]
        if not read and now["outs"] != then["outs"]:
            found.append(f"stage {name} wrote something else from the same")
    return found


if __name__ == "__main__":
    process.run("reproduce", main, again="python -m flows.cli.reproduce")
