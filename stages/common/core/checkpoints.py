"""Checkpoints that are whole or not there: written aside, hashed, renamed; read only when every
byte is as written.

Layout: `checkpoints/<stage>/<fingerprint>/checkpoint-<step>/`, outside the outs, which DVC empties
before each attempt.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.common.core import code_closure
from stages.common.core.models import file_sha256
from stages.common.runtime import disk_space, kill_points, locks, process

ROOT = Path("checkpoints")
MANIFEST = "manifest.json"
TRAINED_WITH = ("torch", "transformers", "trl", "accelerate")
PLACE = "."
"""The manifest's own entry: folder and name it was sealed under, so that one copied from elsewhere
is found.
"""
READERS = 4
"""Files hashed at once by a process."""
log = logging.getLogger("lathe")


def fingerprint(stage: str, params: dict[str, Any], inputs: dict[str, Path], root: Path = code_closure.ROOT) -> str:
    """Return 16 hex digits over params, contents of the inputs, the stage's code and the trainer's
    versions.

    A run resumes only a checkpoint of its own fingerprint, so never one of other params, data or
    code.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([stage, params], sort_keys=True).encode())
    for name, path in sorted(inputs.items()):
        for file in sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]:
            digest.update(f"{name} {file.relative_to(path)} {file_sha256(file)}\n".encode())
    digest.update(code_closure.digest(stage, root).encode())
    for library in TRAINED_WITH:
        digest.update(f"{library} {version(library)}\n".encode())
    return digest.hexdigest()[:16]


def seal(temporary: Path, final: Path, known: dict[str, str] | None = None) -> None:
    """Turn the finished folder `temporary` into the checkpoint `final`: manifest, fsync, rename;
    `known` are the `hashes` of its files where they have been made.

    Both must lie on one file system. Whoever is killed here leaves `final` as it was, or whole; or,
    where it replaces an older one, for a moment not there.
    """
    kind = final.name.partition("-")[0]
    kill_points.point(f"{kind}:before_manifest")
    sealed = (hashes(temporary) if known is None else known) | {PLACE: _place(final)}
    (temporary / MANIFEST).write_text(json.dumps(sealed, indent=1, sort_keys=True), encoding="utf-8")
    kill_points.point(f"{kind}:after_manifest")
    for path in [*temporary.rglob("*"), temporary]:
        _fsync(path)
    if final.exists():
        replaced = final.with_name(f".{final.name}.replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        final.rename(replaced)
    kill_points.point(f"{kind}:before_rename")
    temporary.rename(final)
    kill_points.point(f"{kind}:after_rename")
    _fsync(final.parent)
    shutil.rmtree(final.with_name(f".{final.name}.replaced"), ignore_errors=True)


def hashes(folder: Path, rank: int = 0, world: int = 1) -> dict[str, str]:
    """Return name -> SHA-256 of the files in `folder` that are the share of a process, several read
    at once.
    """
    mine = [folder / name for name in shared(folder, rank, world)]
    with ThreadPoolExecutor(READERS) as pool:
        return {
            str(file.relative_to(folder)): found for file, found in zip(mine, pool.map(file_sha256, mine), strict=True)
        }


def shared(folder: Path, rank: int, world: int) -> list[str]:
    """Return the names of a process's share of the files in `folder`; shares have nearly as many
    bytes.
    """
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in _files(folder)}
    loads = [0] * world
    shares: list[list[str]] = [[] for _ in range(world)]
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        least = loads.index(min(loads))
        loads[least] += sizes[name] + 1
        shares[least].append(name)
    return shares[rank]


def fault(checkpoint: Path, rank: int = 0, world: int = 1) -> str:
    """Return what is wrong with a checkpoint, naming the file, or "" when every byte is as written;
    of several processes each reads its share.
    """
    manifest = checkpoint / MANIFEST
    try:
        written: dict[str, str] = dict(json.loads(manifest.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        return f"{manifest}: {error}"
    place = written.pop(PLACE, _place(checkpoint))
    if place != _place(checkpoint):
        return f"{manifest}: written for {place}"
    present = {str(file.relative_to(checkpoint)) for file in _files(checkpoint)} - {MANIFEST}
    for name in sorted(present ^ set(written)):
        return f"{checkpoint / name}: {'missing' if name in written else 'not in the manifest'}"
    try:
        found = hashes(checkpoint, rank, world)
    except OSError as error:
        return f"{getattr(error, 'filename', None) or checkpoint}: {error}"
    for name in sorted(set(found) - {MANIFEST}):
        if found[name] != written[name]:
            return f"{checkpoint / name}: content differs from the manifest"
    return ""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep `folder` to this process (rank 0 for all ranks): two trainings that write it would tear
    each other's files.

    The stage's own lock goes by its name; the same work under two names (a round's item, a command
    by hand) meets here. The kernel frees the lock however the process ends. Raises
    AlreadyRunningError.
    """
    if not process.is_main_process():
        yield
        return
    with locks.exclusive(folder / "lock"):
        yield


def newest(folder: Path, examine: Callable[[Path], str] = fault) -> Path | None:
    """Return the newest whole checkpoint in `folder`, or None; one that is broken, as `examine`
    says, is named and passed over.
    """
    for checkpoint in reversed(in_order(folder)):
        wrong = examine(checkpoint)
        if not wrong:
            return checkpoint
        log.warning("checkpoint not usable, taking the one before: %s", wrong)
    return None


def rotate(folder: Path, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints, and what a killed write left behind."""
    for old in in_order(folder)[:-keep]:
        shutil.rmtree(old)
    for leftover in folder.glob(".checkpoint-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def in_order(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, whole or not, the newest last."""
    return sorted((path for path in folder.glob("checkpoint-*") if path.name[11:].isdecimal()), key=step)


def next_size(folder: Path, model: Any) -> int:
    """Return the bytes of the next checkpoint in `folder`: the last one's, else weights and AdamW's
    two moments.
    """
    written = in_order(folder)
    if written:
        return disk_space.size(written[-1])
    return sum(one.nbytes * (3 if one.requires_grad else 1) for one in model.parameters())


def others(folder: Path) -> list[Path]:
    """Return the folders beside `folder` that hold checkpoints: the same stage with other params,
    data or code.
    """
    found = {path.parent for path in folder.parent.glob("*/checkpoint-*")}
    return sorted(found - {folder})


def step(checkpoint: Path) -> int:
    """Return the optimiser step in a checkpoint's name."""
    return int(checkpoint.name.rpartition("-")[2])


def _place(checkpoint: Path) -> str:
    return f"{checkpoint.parent.name}/{checkpoint.name}"


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
