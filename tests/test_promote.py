"""Promotion against a real registry: what becomes champion, what is refused, and what a killed promotion leaves."""

import json
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages import promote
from stages.common import registry, store
from stages.common.errors import DataError, TryAgainError
from tests.champion import add_candidate, write_project

WRITES = (
    "create_logged_model",
    "log_model_artifact",
    "finalize_logged_model",
    "create_registered_model",
    "create_model_version",
    "update_model_version",
    "set_model_version_tag",
    "set_registered_model_alias",
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project before its first promotion, with an empty store, made once and copied for each test."""
    folder = tmp_path_factory.mktemp("template")
    write_project(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        store.client()
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def run() -> dict[str, Any]:
    report = Path("reports/promote.json")
    promote.main(Path("reports/evaluate"), Path("models"), report)
    return dict(json.loads(report.read_text(encoding="utf-8")))


def state() -> dict[str, Any]:
    """Return the aliases, each with its candidate, and how many versions there are."""
    client = store.client()
    found = {alias: registry.with_alias(client, "lathe", alias) for alias in ("champion", "previous", "challenger")}
    aliases = {alias: (version.number, version.tags["candidate"]) for alias, version in found.items() if version}
    return aliases | {"versions": len(client.search_model_versions("name = 'lathe'"))}


def history() -> list[tuple[str, str]]:
    lines = promote.HISTORY.read_text(encoding="utf-8").splitlines()
    return [(line["candidate"], line["decision"]) for line in map(json.loads, lines)]


def test_the_better_candidate_becomes_champion_once(project: Path) -> None:
    report = run()
    assert report["decision"] == "promoted"
    assert report["reason"] == "accuracy/iid 0.9 beats the base's 0.2; there was no champion"
    assert (report["candidate"], report["value"], report["interval"]) == ("sft", 0.9, [0.8, 1.0])
    assert report["champion_sha256"] == report["weights_sha256"]
    bytes_before = Path("reports/promote.json").read_bytes()
    run()
    assert Path("reports/promote.json").read_bytes() == bytes_before
    assert state() == {"champion": ("1", "sft"), "challenger": ("1", "sft"), "versions": 1}
    assert history() == [("sft", "promoted")]


def test_a_version_carries_its_card_and_tags(project: Path) -> None:
    report = run()
    client = store.client()
    version = client.get_model_version("lathe", "1")
    assert version.description
    assert "# sft: accuracy/iid 0.9 (95 % interval 0.8 to 1)" in version.description
    assert "| accuracy/iid | 0.2 | 0.9 |" in version.description
    assert version.tags["weights_sha256"] == report["weights_sha256"]
    assert (version.tags["metric"], version.tags["value"], version.tags["questions_sha256"]) == (
        "accuracy/iid",
        "0.9",
        "q1",
    )


def test_only_weights_settings_and_templates_go_into_the_registry(project: Path) -> None:
    for name in ("training_args.bin", "optimizer.pt", "state.pkl", "model.pth", "readme.md"):
        (project / "models/sft" / name).write_bytes(b"\x80\x04.")
    run()
    _, folder = registry.champion(store.client(), "lathe")
    assert sorted(file.name for file in folder.rglob("*")) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "manifest.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_better_one_succeeds_and_a_worse_one_is_refused(project: Path) -> None:
    first = run()
    add_candidate(project, "sft", 0.95, seed=2)
    second = run()
    assert second["reason"] == "accuracy/iid 0.95 beats the base's 0.2 and the champion's 0.9"
    assert state() == {"champion": ("2", "sft"), "previous": ("1", "sft"), "challenger": ("2", "sft"), "versions": 2}
    add_candidate(project, "sft", 0.5, seed=3)
    third = run()
    assert (third["decision"], third["champion_sha256"]) == ("refused", second["weights_sha256"])
    assert third["reason"] == "accuracy/iid 0.5 does not beat the champion's 0.95"
    assert state() == {"champion": ("2", "sft"), "previous": ("1", "sft"), "challenger": ("3", "sft"), "versions": 3}
    assert history() == [("sft", "promoted"), ("sft", "promoted"), ("sft", "refused")]
    assert len({report["weights_sha256"] for report in (first, second, third)}) == 3


def test_without_a_champion_a_refusal_leaves_none(project: Path) -> None:
    add_candidate(project, "sft", 0.1, seed=1)
    report = run()
    assert (report["decision"], report["champion_sha256"]) == ("refused", None)
    assert "champion" not in state()
    with pytest.raises(DataError, match="'lathe' has no champion"):
        registry.champion(store.client(), "lathe")


def test_weights_other_than_the_evaluated_ones_are_not_promoted(project: Path) -> None:
    shutil.copyfile("models/pretrain/model.safetensors", "models/sft/model.safetensors")
    with pytest.raises(DataError, match="not the weights that were evaluated") as caught:
        run()
    assert "dvc repro -f evaluate@sft" in str(caught.value)
    assert state() == {"versions": 0}


def test_a_registry_that_is_away_fails_promotion(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{probe.getsockname()[1]}")
    with pytest.raises(TryAgainError, match="the MLflow store fails") as caught:
        run()
    assert "start the store, or set MLFLOW_TRACKING_URI" in str(caught.value)
    assert not Path("reports/promote.json").exists()


def change_weights(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as handle:
        handle.seek(-1, 2)
        handle.write(b"\x01")


def add_pickle(folder: Path) -> None:
    (folder / "extra.bin").write_bytes(b"\x80\x04.")


def add_pickle_with_manifest(folder: Path) -> None:
    from stages.common.models import file_sha256

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
    _, folder = registry.champion(store.client(), "lathe")
    change(folder)
    with pytest.raises(DataError, match=message):
        registry.champion(store.client(), "lathe")


@pytest.mark.parametrize("source", ["s3://strange/bucket", "file:///etc", "models:/lathe/1", "foreign experiment"])
def test_a_version_from_elsewhere_is_not_loaded(project: Path, source: str) -> None:
    run()
    client = store.client()
    if source == "foreign experiment":
        experiment = client.create_experiment("foreign", artifact_location=str(project / "foreign"))
        source = f"models:/{client.create_logged_model(experiment, 'planted').model_id}"
    planted = client.create_model_version("lathe", source)
    client.set_registered_model_alias("lathe", "champion", planted.version)
    with pytest.raises(DataError, match=r"not a model of this registry|outside this project's artifacts"):
        registry.champion(client, "lathe")


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class DyingClient:
    """A real client in a process that dies right after its n-th write to the registry."""

    def __init__(self, client: Any, writes: int) -> None:
        self._client, self._left = client, writes

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if name not in WRITES or threading.current_thread() is not threading.main_thread():
            return attribute

        def call(*arguments: Any, **named: Any) -> Any:
            result = attribute(*arguments, **named)
            self._left -= 1
            if not self._left:
                raise Killed
            return result

        return call


@pytest.mark.slow
@pytest.mark.fault
def test_a_promotion_that_dies_after_any_write_is_completed_by_the_next(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    connect, writes, died = store.client, 0, True
    while died:
        writes += 1
        monkeypatch.chdir(shutil.copytree(template, tmp_path / str(writes)))
        with monkeypatch.context() as patch:
            patch.setattr(store, "client", lambda writes=writes: DyingClient(connect(), writes))
            try:
                run()
                died = False
            except Killed:
                assert not Path("reports/promote.json").exists()
        run()
        assert state() == {"champion": ("1", "sft"), "challenger": ("1", "sft"), "versions": 1}, (
            f"after {writes} writes"
        )
        assert history() == [("sft", "promoted")]
        registry.champion(connect(), "lathe")
    assert writes > 15
