"""What goes into the registry, and that nothing else comes out of it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.common.release import registry
from stages.common.runtime.errors import DataError
from stages.common.tracking import mlflow_store
from tests.support.promotion import history, run


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


def test_a_moved_or_copied_checkout_works_and_leaves_the_other_one_alone(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    takes: tuple[Callable[..., Any], ...] = (shutil.copytree, shutil.move)
    for number, take in enumerate(takes):
        there = tmp_path_factory.mktemp("elsewhere") / f"a tree {number}"
        take(str(project), str(there))
        before = sorted(project.rglob("*")) if project.exists() else []
        monkeypatch.chdir(there)
        client = mlflow_store.client()
        _, folder = registry.champion(client, "lathe")
        assert folder.is_relative_to(there)
        made = client.create_run(mlflow_store.experiment_id(client, "world"))
        client.log_text(made.info.run_id, "said here", "said.txt")
        assert list(there.rglob("said.txt")), "what is written goes into the tree that writes it"
        assert run()["decision"] == "promoted"
        assert (sorted(project.rglob("*")) if project.exists() else []) == before
        monkeypatch.chdir(project.parent)


@pytest.mark.parametrize(
    "damage", [shutil.rmtree, change_weights, lambda folder: (folder / "manifest.json").unlink(), add_pickle]
)
def test_the_remedy_for_lost_or_damaged_files_works(project: Path, damage: Callable[[Path], Any]) -> None:
    first = run()
    _, folder = registry.champion(mlflow_store.client(), "lathe")
    damage(folder)
    with pytest.raises(DataError, match=re.escape("make the champion anew with `dvc repro -f promote`")):
        registry.champion(mlflow_store.client(), "lathe")
    assert run()["champion_sha256"] == first["champion_sha256"]
    version, again = registry.champion(mlflow_store.client(), "lathe")
    assert (version.number, again) == ("1", folder)
    assert len(history()) == 1, "nobody became champion"


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
