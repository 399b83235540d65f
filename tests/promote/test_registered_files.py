"""What goes into the registry, and that nothing else comes out of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.common.release import registry
from stages.common.runtime.errors import DataError
from stages.common.tracking import mlflow_store
from tests.support.promotion import run


def test_only_weights_settings_and_templates_go_into_the_registry(project: Path) -> None:
    for name in ("training_args.bin", "optimizer.pt", "state.pkl", "model.pth", "readme.md"):
        (project / "models/sft" / name).write_bytes(b"\x80\x04.")
    (project / "models/sft/adapter").mkdir()
    (project / "models/sft/adapter/adapter_config.json").write_text("{}")
    run()
    _, folder = registry.champion(mlflow_store.client(), "lathe")
    assert sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()) == [
        "adapter/adapter_config.json",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "lineage.json",
        "manifest.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def change_weights(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as handle:
        handle.seek(-1, 2)
        handle.write(b"\x01")


def add_pickle(folder: Path) -> None:
    (folder / "extra.bin").write_bytes(b"\x80\x04.")


def add_pickle_with_manifest(folder: Path) -> None:
    from stages.common.core.models import file_sha256

    add_pickle(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"extra.bin": file_sha256(folder / "extra.bin")}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_weights, "model.safetensors: content differs from the manifest"),
        (lambda folder: (folder / "config.json").unlink(), "config.json: missing"),
        (add_pickle, "extra.bin: not in the manifest"),
        (add_pickle_with_manifest, "not the manifest it was registered with"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json"),
    ],
)
def test_files_that_changed_in_the_store_are_not_loaded(
    project: Path, change: Callable[[Path], Any], message: str
) -> None:
    run()
    _, folder = registry.champion(mlflow_store.client(), "lathe")
    change(folder)
    with pytest.raises(DataError, match=message):
        registry.champion(mlflow_store.client(), "lathe")


@pytest.mark.parametrize("source", ["s3://strange/bucket", "file:///etc", "models:/lathe/1", "foreign experiment"])
def test_a_version_from_elsewhere_is_not_loaded(project: Path, source: str) -> None:
    run()
    client = mlflow_store.client()
    if source == "foreign experiment":
        experiment = client.create_experiment("foreign", artifact_location=str(project / "foreign"))
        source = f"models:/{client.create_logged_model(experiment, 'planted').model_id}"
    planted = client.create_model_version("lathe", source)
    client.set_registered_model_alias("lathe", "champion", planted.version)
    with pytest.raises(DataError, match=r"not a model of this registry|outside this project's artifacts"):
        registry.champion(client, "lathe")
