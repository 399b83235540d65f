"""The registry: versions of a name in the MLflow store, their files under a manifest of hashes, and
who is champion.

A version's source is always a logged model of this project's experiment. Only weights, settings and
templates go in; a version is loaded only when every byte is as its manifest says and the manifest
is the one it was registered with.
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.release import artifacts
from stages.common.runtime import kill_points
from stages.common.runtime.errors import DataError
from stages.common.runtime.logs import log
from stages.common.tracking import lineage, mlflow_store

if TYPE_CHECKING:
    from stages.common.tracking.mlflow_store import MlflowClient

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
SOURCE = re.compile(r"models:/(m-[0-9a-f]{32})")
DESCRIPTION_CHARACTERS = 5000  # the width of MLflow's column
GOES_ON = "\n\nThe whole card is among the files of the run `promote`."
REMEDY = "make the champion anew with `dvc repro -f promote`"


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    number: str
    source: str
    tags: dict[str, str]


def with_alias(client: "MlflowClient", name: str, alias: str) -> Version | None:
    """Return the version that `alias` of `name` points at, or None."""
    with mlflow_store.answers():
        found = mlflow_store.or_none(lambda: client.get_model_version_by_alias(name, alias))
        return _version(found) if found else None


def with_weights(client: "MlflowClient", name: str, weights_sha256: str) -> Version | None:
    """Return the version of `name` that has these weights, or None."""
    with mlflow_store.answers():
        found = client.search_model_versions(f"name = '{name}' and tags.`weights_sha256` = '{weights_sha256}'")
        return _version(found[0]) if found else None


def register(client: "MlflowClient", name: str, folder: Path, tags: dict[str, str], record: str) -> Version:
    """Return the version of `name` with the weights in `folder`, made unless there is one
    (`tags.weights_sha256`); of one whose files are lost or damaged they are sent again.

    `record` says where they come from; it is kept among the version's files as lineage.json.
    """
    known = with_weights(client, name, tags["weights_sha256"])
    if known:
        return known if _is_whole(client, known) else _restored(client, known, folder, record)
    with mlflow_store.answers():
        model = artifacts.uploaded(client, name, folder, tags["weights_sha256"], record)
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
            kill_points.point("promote:name")
        made = client.create_model_version(
            name,
            source=f"models:/{model.model_id}",
            model_id=model.model_id,
            run_id=model.source_run_id or None,
            tags=tags | {"manifest_sha256": model.tags["manifest_sha256"]},
        )
        kill_points.point("promote:version")
        return _version(made)


def _is_whole(client: "MlflowClient", version: Version) -> bool:
    """Whether a version's files are as they were registered; of a remote one, whether there are
    any: it is not fetched. One that lies elsewhere is not ours to mend.
    """
    try:
        location, _ = _place(client, version)
    except DataError:
        return True
    folder = artifacts.local(location)
    if folder:
        return not artifacts.fault(folder, version.tags)
    with mlflow_store.answers():
        return artifacts.LINEAGE in mlflow_store.listed(location)


def _restored(client: "MlflowClient", version: Version, folder: Path, record: str) -> Version:
    location, model_id = _place(client, version)
    log.warning("the files of %s version %s were lost or damaged: sent again", version.name, version.number)
    with mlflow_store.answers():
        sha256 = artifacts.sent_again(client, model_id, location, folder, record)
    tag(client, version, {"manifest_sha256": sha256})
    return numbered(client, version.name, version.number)


def describe(client: "MlflowClient", version: Version, description: str) -> None:
    """Set a version's description; of one that is too long for MLflow its beginning, with a word
    that it goes on.
    """
    if len(description) > DESCRIPTION_CHARACTERS:
        kept = description[: DESCRIPTION_CHARACTERS - len(GOES_ON)]
        description = kept[: kept.rfind("\n")] + GOES_ON
    with mlflow_store.answers():
        client.update_model_version(version.name, version.number, description)
    kill_points.point("promote:described")


def tag(client: "MlflowClient", version: Version, tags: dict[str, str]) -> None:
    """Set a version's tags, those that differ."""
    with mlflow_store.answers():
        for key, value in tags.items():
            if version.tags.get(key, "") == value:
                continue
            client.set_model_version_tag(version.name, version.number, key, value)
            kill_points.point(f"promote:tag-{key}")


def point(client: "MlflowClient", alias: str, version: Version) -> None:
    """Make `alias` point at `version`."""
    with mlflow_store.answers():
        client.set_registered_model_alias(version.name, alias, version.number)
    kill_points.point(f"promote:alias-{alias}")


def numbered(client: "MlflowClient", name: str, number: str) -> Version:
    """Return version `number` of `name`. Raises DataError, with the versions there are."""
    found = {one.number: one for one in versions(client, name)}
    if number not in found:
        known = ", ".join(sorted(found, key=int)) or "none"
        raise DataError(f"'{name}' has no version {number!r}; there are: {known}", where=mlflow_store.shown())
    return found[number]


def versions(client: "MlflowClient", name: str) -> list[Version]:
    """Return every version of `name`, oldest first."""
    with mlflow_store.answers():
        found, token = [], None
        while True:
            page = client.search_model_versions(f"name = '{name}'", page_token=token)
            found += [_version(one) for one in page]
            token = page.token
            if not token:
                return sorted(found, key=lambda one: int(one.number))


def champion(client: "MlflowClient", name: str) -> tuple[Version, Path]:
    """Return the champion and the local folder of its files, every byte verified.

    Raises DataError when there is no champion, its source is not ours, or a file is not as
    registered.
    """
    version = with_alias(client, name, CHAMPION)
    if version is None:
        raise no_champion(client, name)
    return version, fetch(client, version)


def no_champion(client: "MlflowClient", name: str) -> DataError:
    """Return the error that there is no champion, and what makes one: a person's word where a
    version waits for it.
    """
    found, remedy = with_alias(client, name, CHALLENGER), "run `dvc repro -f promote`"
    if found and found.tags.get("review") == "pending":
        remedy = f"version {found.number} waits for a person: make review, or make approve VERSION={found.number}"
    return DataError(f"'{name}' has no champion", where=mlflow_store.shown(), remedy=remedy)


def fetch(client: "MlflowClient", version: Version) -> Path:
    """Return the local folder of a version's files. Raises DataError naming what is not as it was
    registered.
    """
    location, model_id = _place(client, version)
    folder = artifacts.local(location) or artifacts.downloaded(location, model_id)
    wrong = artifacts.fault(folder, version.tags)
    if wrong:
        raise DataError(wrong, where=f"{version.name} version {version.number}", remedy=REMEDY)
    return folder


def record(client: "MlflowClient", version: Version) -> str:
    """Return the record of where a version comes from, or "" for a version that has none; its model
    is not fetched.
    """
    location, _ = _place(client, version)
    folder = artifacts.local(location)
    if folder:
        return (folder / artifacts.LINEAGE).read_text(encoding="utf-8") if (folder / artifacts.LINEAGE).exists() else ""
    with mlflow_store.answers(), tempfile.TemporaryDirectory() as scratch:
        found = mlflow_store.listed(location)
        if artifacts.LINEAGE not in found:
            return ""
        mlflow_store.download(f"{location}/{artifacts.LINEAGE}", Path(scratch) / artifacts.LINEAGE)
        return (Path(scratch) / artifacts.LINEAGE).read_text(encoding="utf-8")


def _place(client: "MlflowClient", version: Version) -> tuple[str, str]:
    """Return where a version's files lie, and its logged model. Raises DataError when that is not
    in this project.
    """
    where = f"{version.name} version {version.number}"
    match = SOURCE.fullmatch(version.source)
    if match is None:
        raise DataError(f"its source {version.source} is not a model of this registry", where=where, remedy=REMEDY)
    with mlflow_store.answers():
        model = client.get_logged_model(match[1])
        project = client.get_experiment_by_name(lineage.project())
    location, root = model.artifact_location, project.artifact_location.rstrip("/") if project else ""
    if project is None or model.experiment_id != project.experiment_id or not location.startswith(f"{root}/"):
        what = f"its files lie in {location}, outside this project's artifacts ({root or 'there are none'})"
        raise DataError(what, where=where, remedy=REMEDY)
    return location, model.model_id


def _version(found: Any) -> Version:
    return Version(found.name, str(found.version), found.source, dict(found.tags))
