"""Which state a run is of: commit, parameters, raw data; and when a tree is not as committed."""

import subprocess
from pathlib import Path

import pytest

from stages.common.tracking import lineage


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_dag_hash_names_a_state_of_commit_params_and_raw_data(project: Path) -> None:
    Path("dvc.yaml").write_text("stages:\n  demo:\n    cmd: x\n    outs:\n    - data/raw/demo\n")
    Path("params.yaml").write_text("run:\n  name: world\n")
    Path("data/raw/demo").mkdir(parents=True)
    Path("data/raw/own.txt").write_text("mine")
    before = lineage.dag()
    Path("data/raw/demo/documents.jsonl").write_text("what a stage wrote")
    assert lineage.dag() == before
    Path("data/raw/own.txt").write_text("MINE")
    changed = lineage.dag()
    assert changed != before
    Path("params.yaml").write_text("run:\n  name: other\n")
    assert lineage.dag() not in (before, changed)


def test_dvc_lock_alone_does_not_make_a_tree_dirty(project: Path) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for name in ("dvc.lock", "code.py"):
        Path(name).write_text("1")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    assert len(lineage.commit()) == 40
    Path("dvc.lock").write_text("2")
    assert not lineage.is_dirty()
    Path("code.py").write_text("2")
    assert lineage.is_dirty()
