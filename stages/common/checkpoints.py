"""Checkpoints that are whole or not there: written aside, hashed, renamed; read only when every byte is as written.

Layout: `checkpoints/<stage>/<fingerprint>/checkpoint-<step>/`, outside the outs, which DVC empties before each attempt.
"""

import hashlib
import json
import logging
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.common import OBSERVERS
from stages.common.models import file_sha256

ROOT = Path("checkpoints")
MANIFEST = "manifest.json"
TRAINED_WITH = ("torch", "transformers", "trl", "accelerate")
log = logging.getLogger("lathe")


def fingerprint(stage: str, params: dict[str, Any], inputs: dict[str, Path]) -> str:
    """Return 16 hex digits over params, contents of the inputs, this project's loaded code and the trainer's versions.

    A run resumes only a checkpoint of its own fingerprint, so never one of other params, data or code.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([stage, params], sort_keys=True).encode())
    for name, path in sorted(inputs.items()):
        for file in sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]:
            digest.update(f"{name} {file.relative_to(path)} {file_sha256(file)}\n".encode())
    for file in _loaded_code():
        digest.update(f"{file.name} {file_sha256(file)}\n".encode())
    for library in TRAINED_WITH:
        digest.update(f"{library} {version(library)}\n".encode())
    return digest.hexdigest()[:16]


def _loaded_code() -> list[Path]:
    stages = Path(__file__).parent.parent
    names = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    loaded = {Path(name) for name in names if name}
    return sorted(file for file in loaded if file.is_relative_to(stages) and file.stem not in OBSERVERS)


def seal(temporary: Path, final: Path) -> None:
    """Turn the finished folder `temporary` into the checkpoint `final`: manifest, fsync, rename.

    Both must lie on one file system. Whoever is killed here leaves `final` as it was, or whole.
    """
    hashes = {str(file.relative_to(temporary)): file_sha256(file) for file in _files(temporary)}
    (temporary / MANIFEST).write_text(json.dumps(hashes, indent=1, sort_keys=True), encoding="utf-8")
    for path in [*temporary.rglob("*"), temporary]:
        _fsync(path)
    if final.exists():
        replaced = final.with_name(f".{final.name}.replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        final.rename(replaced)
    temporary.rename(final)
    _fsync(final.parent)
    shutil.rmtree(final.with_name(f".{final.name}.replaced"), ignore_errors=True)


def fault(checkpoint: Path) -> str:
    """Return what is wrong with a checkpoint, naming the file, or "" when every byte is as written."""
    manifest = checkpoint / MANIFEST
    try:
        hashes: dict[str, str] = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"{manifest}: {error}"
    present = {str(file.relative_to(checkpoint)) for file in _files(checkpoint)} - {MANIFEST}
    for name in sorted(present ^ set(hashes)):
        return f"{checkpoint / name}: {'missing' if name in hashes else 'not in the manifest'}"
    for name, expected in hashes.items():
        if file_sha256(checkpoint / name) != expected:
            return f"{checkpoint / name}: content differs from the manifest"
    return ""


def newest(folder: Path) -> Path | None:
    """Return the newest whole checkpoint in `folder`, or None; a broken one is named and passed over."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=step, reverse=True):
        wrong = fault(checkpoint)
        if not wrong:
            return checkpoint
        log.warning("checkpoint not usable, taking the one before: %s", wrong)
    return None


def rotate(folder: Path, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints, and what a killed write left behind."""
    for old in sorted(folder.glob("checkpoint-*"), key=step)[:-keep]:
        shutil.rmtree(old)
    for leftover in folder.glob(".checkpoint-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def step(checkpoint: Path) -> int:
    """Return the optimiser step in a checkpoint's name."""
    return int(checkpoint.name.rpartition("-")[2])


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
