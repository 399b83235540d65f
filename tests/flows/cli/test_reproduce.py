"""A version made again from its record alone: real git, real DVC, a real registry, weights
compared.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import reproduce
from flows.local import work_tree
from stages import promote
from stages.common.core import models
from stages.common.runtime.errors import DataError
from stages.common.tracking import mlflow_store
from tests.flows.conftest import environment
from tests.support import evaluations

DVC_YAML = """\
stages:
  ingest:
    cmd: python make.py ingest
    deps:
      - data/raw
      - make.py
    outs:
      - data/validated/documents
  sft:
    cmd: python make.py sft
    deps:
      - data/validated/documents
      - make.py
    params:
      - sft
    outs:
      - models/sft
"""
MAKE = """\
import hashlib, json, os, sys
from pathlib import Path
import numpy
from ruamel.yaml import YAML
from safetensors.numpy import save_file

texts = Path("data/validated/documents/part.txt")
if sys.argv[1] == "ingest":
    texts.parent.mkdir(parents=True, exist_ok=True)
    texts.write_text("".join(sorted(file.read_text() for file in Path("data/raw").rglob("*.txt"))))
else:
    seed = YAML(typ="safe").load(Path("params.yaml").read_text())["sft"]["seed"]
    noise = os.urandom(8) if os.environ.get("NOISE") else b""
    digest = hashlib.sha256(texts.read_bytes() + str(seed).encode() + noise).digest()
    Path("models/sft").mkdir(parents=True, exist_ok=True)
    save_file({"w": numpy.frombuffer(digest, dtype=numpy.uint8)}, "models/sft/model.safetensors")
    Path("models/sft/config.json").write_text("{}")
"""
PARAMS = "run: {name: world}\nsft:\n  seed: 1\npromote: {name: lathe, against: null}\n"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def sh(folder: Path, *command: str, **more: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment("", **more), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dvc(folder: Path, *arguments: str) -> str:
    return sh(folder, sys.executable, "-m", "dvc", *arguments)


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with version 1, made from a file of the user's own and a params.yaml that was not
    committed.
    """
    folder = tmp_path_factory.mktemp("reproduce")
    sh(folder, "git", "init", "-q")
    dvc(folder, "init", "-q")
    files = {"dvc.yaml": DVC_YAML, "make.py": MAKE, "params.yaml": PARAMS}
    ignored = "/data/\n/models/\n/reports/\n/.lathe/\n/logs/\n/mlflow.db*\n/mlartifacts/\n"
    for name, text in (files | {".gitignore": ignored}).items():
        (folder / name).write_text(text)
    sh(folder, "git", "add", "-A")
    sh(folder, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "start")
    (folder / "data/raw").mkdir(parents=True)
    (folder / "data/raw/own.txt").write_text("my own text\n")
    (folder / "params.yaml").write_text(PARAMS.replace("seed: 1", "seed: 2"))
    dvc(folder, "repro", "sft")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        weights = models.weights_sha256(Path("models/sft"))
        for name, right in (("pretrain", 20), ("sft", 90)):
            one = evaluations.evaluated(name, evaluations.answers(right, 100), evaluations.losses(4.0), weights=weights)
            evaluations.write(Path("reports/evaluate"), one)
        promote.main(Path("reports/evaluate"), Path("models"), Path("reports/promote.json"), Path("reports/card.md"))
    return folder


@pytest.fixture
def project(promoted: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(promoted)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return promoted


def test_the_record_says_where_the_version_comes_from(project: Path) -> None:
    _, record = reproduce.known("1")
    commit = sh(project, "git", "rev-parse", "HEAD").strip()
    assert (record["git_commit"], record["stage"], list(record["stages"])) == (commit, "sft", ["sft", "ingest"])
    assert set(record["data"]) == {"data/raw", "data/validated/documents"}
    assert record["params"]["sft"]["seed"] == 2
    assert "+  seed: 2" in record["patch"]
    card = Path("reports/card.md").read_text(encoding="utf-8")
    for said in (f"commit `{commit}`, with the changes kept", f"- `data/raw` {record['data']['data/raw']}"):
        assert said in card


def test_a_version_is_made_again_with_equal_weights(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reproduce.main("1")
    said = capfd.readouterr().out
    assert "Running stage 'ingest'" in said
    assert "Running stage 'sft'" in said, "nothing comes from a cache"
    assert not (reproduce.ROOT / "1").exists()
    assert len(sh(project, "git", "worktree", "list").splitlines()) == 1
    assert "seed: 2" in Path("params.yaml").read_text()


def test_other_data_is_named(project: Path) -> None:
    own = Path("data/raw/own.txt")
    own.write_text("another text\n")
    try:
        with pytest.raises(DataError, match="data/raw is another one than stage ingest read"):
            reproduce.main("1")
        status = dvc(project, "status")
        assert status.startswith("ingest:"), "the work tree is none of the project's own stages"
        assert ".lathe" not in status
    finally:
        own.write_text("my own text\n")
        work_tree.git("worktree", "remove", "--force", str(reproduce.ROOT / "1"))


def test_a_stage_that_is_not_deterministic_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOISE", "1")
    with pytest.raises(DataError, match="stage sft wrote something else from the same"):
        reproduce.main("1")
    monkeypatch.delenv("NOISE")
    with pytest.raises(DataError, match="stage sft wrote something else"):
        reproduce.main("1")  # it goes on where it was: nothing is run twice
    work_tree.git("worktree", "remove", "--force", str(reproduce.ROOT / "1"))


def test_what_cannot_be_followed_is_said(project: Path) -> None:
    client = mlflow_store.client()
    with pytest.raises(DataError, match="'lathe' has no version '7'; there are: 1"):
        reproduce.known("7")
    (file,) = Path("mlartifacts").rglob("lineage.json")
    whole = file.read_text()
    for change, said in (
        ({"patch": None}, "its local changes were too large"),
        ({"git_commit": "0" * 40}, "is not in this repository; fetch it: git fetch --all"),
        ({"stage": ""}, "no record of the stages that made it"),
    ):
        file.write_text(json.dumps(json.loads(whole) | change))
        with pytest.raises(DataError, match=said):
            reproduce.known("1")
    file.write_text(whole)
    assert client.get_model_version("lathe", "1").tags["git_dirty"] == "true"
