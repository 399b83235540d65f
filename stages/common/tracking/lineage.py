"""Where a run comes from: commit, working tree, and the content hashes that DVC knows."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.common.core import params
from stages.common.runtime.environment import checkout
from stages.common.runtime.errors import DataError

RAW = Path("data/raw")
SAMPLE_BYTES = 64 * 1024
UNKNOWN = "none"


def run_section() -> dict[str, str]:
    """Return section `run` of params.yaml (name, launcher), empty where there is none."""
    return dict(section(params.PARAMS_FILE, "run"))


def project() -> str:
    """Return the project's name, that of its MLflow experiment: `run.name`, or the folder's."""
    return str(run_section().get("name") or checkout().absolute().name)


def commit() -> str:
    """Return the hash of the checked-out git commit, or "none" outside a repository."""
    return _git("rev-parse", "HEAD").strip() or UNKNOWN


def is_dirty() -> bool:
    """Whether tracked files differ from the commit; dvc.lock does not count, for every run rewrites
    it.
    """
    return bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock").strip())


def difference() -> str:
    """Return what tracked files change of the commit, dvc.lock left out, in the form that `git
    apply` takes.
    """
    return _git("diff", "--binary", "HEAD", "--", ".", ":!dvc.lock")


def dag() -> str:
    """Return the hash that groups the runs of one pipeline state: commit, params.yaml and the
    user's own raw data.

    Raw files that a stage writes follow from commit and params and are left out, so that the hash
    is the same before and after that stage. A file counts with its path, its size and its first and
    last 64 KiB: cheap on any corpus.
    """
    digest = hashlib.sha256(commit().encode())
    if params.PARAMS_FILE.exists():
        digest.update(params.PARAMS_FILE.read_bytes())
    written = _written_paths()
    for file in sorted(RAW.rglob("*")):
        if file.is_file() and not written & {file.as_posix(), *(parent.as_posix() for parent in file.parents)}:
            digest.update(f"{file.as_posix()}\0{file.stat().st_size}\0".encode())
            digest.update(_sample(file))
    return digest.hexdigest()[:16]


def content_hash(path: Path) -> str:
    """Return the hash that dvc.lock holds for `path` or for the nearest folder above it, or
    "none".
    """
    known: dict[str, str] = {}
    for stage in section(Path("dvc.lock"), "stages").values():
        for entry in [*stage.get("deps", []), *stage.get("outs", [])]:  # outs last: the writer knows best
            known[entry["path"]] = str(entry.get("md5", UNKNOWN))
    for place in (path, *path.parents):
        if place.as_posix() in known:
            return known[place.as_posix()]
    return UNKNOWN


def check_copy(folder: Path) -> None:
    """Raise DataError where an experiment works in a copy of the checkout that lacks files of
    people's own `folder`: DVC takes along what git or DVC know, and says nothing of the rest.
    """
    root = checkout() / folder
    if not checkout().name:
        return
    written = _written_paths()
    missing = [
        path.relative_to(checkout()).as_posix()
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and path.suffix != ".dvc"
        and path.name != ".gitignore"
        and not (folder / path.relative_to(root)).exists()
    ]
    missing = [name for name in missing if not any(name == out or name.startswith(f"{out}/") for out in written)]
    if missing:
        what = f"the experiment's copy of {folder} lacks {len(missing):,} files that neither git nor DVC knows"
        remedy = f"`dvc add {missing[0]}` (or its folder) and commit the .dvc file, or leave out --queue and --temp"
        raise DataError(f"{what}, the first is {missing[0]}", where=folder, remedy=remedy)


def known_hashes() -> set[str]:
    """Return every content hash that dvc.lock holds."""
    stages = section(Path("dvc.lock"), "stages").values()
    return {str(entry.get("md5")) for stage in stages for entry in [*stage.get("deps", []), *stage.get("outs", [])]}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _written_paths() -> set[str]:
    """Return the outs of dvc.yaml's stages; an out is a path, or a mapping with the path as its
    key.
    """
    stages = section(Path("dvc.yaml"), "stages").values()
    outs = [out for stage in stages for out in stage.get("do", stage).get("outs", [])]
    return {out if isinstance(out, str) else next(iter(out)) for out in outs}


def section(path: Path, key: str) -> dict[str, Any]:
    """Return the mapping under `key` of a YAML file, empty where there is none."""
    if not path.exists():
        return {}
    document = YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}
    return dict(document.get(key) or {})


def _sample(file: Path) -> bytes:
    with file.open("rb") as handle:
        head = handle.read(SAMPLE_BYTES)
        handle.seek(max(file.stat().st_size - SAMPLE_BYTES, len(head)))
        return head + handle.read(SAMPLE_BYTES)
