"""The registry on an MLflow server: files travel over HTTP and are verified here, byte by byte."""

import json
from pathlib import Path

import pytest

from stages import promote
from stages.common.release import aliases, artifacts, registry
from stages.common.runtime.errors import DataError
from stages.common.tracking import mlflow_store
from tests.support.champion import add_candidate, write_project
from tests.support.mlflow_server import free_port, server


@pytest.mark.slow
def test_a_champion_on_a_server_is_fetched_once_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    Path("models/sft/adapter").mkdir()
    Path("models/sft/adapter/adapter_config.json").write_text("{}")
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with server(port):
        promote.main(Path("reports/evaluate"), Path("models"), Path("reports/promote.json"))
        client = mlflow_store.client()
        version, folder = registry.champion(client, "lathe")
        assert folder.is_relative_to(artifacts.CACHE)
        weights = folder / "model.safetensors"
        assert weights.read_bytes() == Path("models/sft/model.safetensors").read_bytes()
        assert (folder / "adapter/adapter_config.json").read_text() == "{}"

        fetched = weights.stat().st_ino
        registry.champion(client, "lathe")
        assert weights.stat().st_ino == fetched, "what is whole is not fetched again"

        weights.write_bytes(b"torn")
        registry.champion(client, "lathe")
        assert weights.read_bytes() == Path("models/sft/model.safetensors").read_bytes()

        (stored,) = Path("server-files").rglob("model.safetensors")
        stored.write_bytes(Path("models/pretrain/model.safetensors").read_bytes())
        weights.unlink()
        with pytest.raises(DataError, match=r"model\.safetensors: content differs from the manifest"):
            registry.champion(client, "lathe")

        add_candidate(tmp_path, "sft", 1.0, seed=2)
        promote.main(Path("reports/evaluate"), Path("models"), Path("reports/promote.json"))
        newer, _ = registry.champion(client, "lathe")
        assert (version.number, newer.number) == ("1", "2")
        kept = json.loads(registry.record(client, newer))
        assert kept["params"]["promote"]["name"] == "lathe", "the record alone is fetched, without the model"
        previous = registry.with_alias(client, "lathe", "previous")
        assert previous
        assert previous.number == "1"
        aliases.rollback(client, "lathe", "rude")
        held = registry.with_alias(client, "lathe", "champion")
        assert held
        assert held.number == "1"
        assert registry.numbered(client, "lathe", "2").tags["rolled_back"].startswith("rude (")
        assert not Path("mlflow.db").exists()
