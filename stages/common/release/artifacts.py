"""The files of a version: sent to the MLflow store under a manifest of hashes, fetched, and
compared with it.

Only weights, settings and templates go in.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from stages.common.core import checkpoints, models
from stages.common.runtime import kill_points
from stages.common.runtime.logs import log
from stages.common.tracking import lineage, mlflow_store

if TYPE_CHECKING:
    from stages.common.tracking.mlflow_store import MlflowClient

KINDS = frozenset({".safetensors", ".json", ".jinja"})  # no pickle (.bin, .pt, .pkl, …) goes in or comes out
CACHE = Path(".lathe/models")
LINEAGE = "lineage.json"


def fault(folder: Path, tags: dict[str, str]) -> str:
    """Return what keeps a folder from being loaded as the version with these tags, or ""."""
    wrong = checkpoints.fault(folder)
    if wrong:
        return wrong
    if models.file_sha256(folder / checkpoints.MANIFEST) != tags.get("manifest_sha256"):
        return f"{folder / checkpoints.MANIFEST}: not the manifest it was registered with"
    for file in folder.rglob("*"):
        if file.is_file() and file.suffix not in KINDS:
            return f"{file}: only {', '.join(sorted(KINDS))} are loaded"
    if models.weights_sha256(folder) != tags.get("weights_sha256"):
        return f"{folder}: not the weights that were evaluated"
    return ""


def local(location: str) -> Path | None:
    """Return the folder that a `file:` location or a plain path names; None for a remote one."""
    parts = urlsplit(location)
    if parts.scheme not in ("", "file"):
        return None
    return Path(url2pathname(parts.path)) if parts.scheme else Path(location)


def downloaded(location: str, model_id: str) -> Path:
    """Return the local copy of a remote folder; one that is whole is not fetched again."""
    folder = CACHE / model_id
    if folder.exists() and not checkpoints.fault(folder):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    with mlflow_store.answers():
        mlflow_store.download(location, folder)
    return folder


def uploaded(client: "MlflowClient", name: str, folder: Path, weights_sha256: str, record: str) -> Any:
    """Return a logged model that holds the files of `folder` and their manifest, sent unless it is
    there whole.
    """
    experiment = mlflow_store.experiment_id(client, lineage.project())
    release = f"{name}/{weights_sha256}"
    known = client.search_logged_models([experiment], f"tags.`release` = '{release}' and status = 'READY'")
    if known:
        return known[0]
    trained = client.search_logged_models([experiment], f"tags.`sha256` = '{weights_sha256}'", max_results=1)
    with _packed(folder, record) as packed:
        sha256 = models.file_sha256(packed[checkpoints.MANIFEST])
        about = {"release": release, "weights_sha256": weights_sha256, "manifest_sha256": sha256}
        source_run = trained[0].source_run_id if trained else None
        model = client.create_logged_model(
            experiment, name.translate(mlflow_store.NAME), source_run, about, model_type="release"
        )
        kill_points.point("promote:model")
        _send(client, model.model_id, packed)
    ready = client.finalize_logged_model(model.model_id, "READY")
    kill_points.point("promote:ready")
    return ready


def sent_again(client: "MlflowClient", model_id: str, location: str, folder: Path, record: str) -> str:
    """Send the files of `folder` to a logged model whose own are lost or damaged; return the hash
    of their manifest.
    """
    place = local(location)
    if place:
        shutil.rmtree(place, ignore_errors=True)  # a file that is not in the manifest would be a fault too
    shutil.rmtree(CACHE / model_id, ignore_errors=True)
    with _packed(folder, record) as packed:
        sha256 = models.file_sha256(packed[checkpoints.MANIFEST])
        _send(client, model_id, packed)
    client.set_logged_model_tags(model_id, {"manifest_sha256": sha256})
    return sha256


@contextmanager
def _packed(folder: Path, record: str) -> Iterator[dict[str, Path]]:
    """Give the files of a version by their places: those of `folder` that go in, the record, and
    last the manifest.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in files:
        if file.suffix not in KINDS:
            log.warning("%s stays out of the registry: only %s go in", file, ", ".join(sorted(KINDS)))
    kept = {file.relative_to(folder).as_posix(): file for file in files if file.suffix in KINDS}
    kept.pop(checkpoints.MANIFEST, None)
    with tempfile.TemporaryDirectory() as scratch:
        manifest, kept[LINEAGE] = Path(scratch) / checkpoints.MANIFEST, Path(scratch) / LINEAGE
        kept[LINEAGE].write_text(record, encoding="utf-8")
        hashes = {place: models.file_sha256(file) for place, file in kept.items()}
        manifest.write_text(json.dumps(hashes, indent=1, sort_keys=True), encoding="utf-8")
        yield kept | {checkpoints.MANIFEST: manifest}


def _send(client: "MlflowClient", model_id: str, packed: dict[str, Path]) -> None:
    for place, file in packed.items():
        client.log_model_artifact(model_id, str(file), str(Path(place).parent) if "/" in place else None)
        kill_points.point(f"promote:file-{place}")
