"""Which state a run is of: commit, parameters, raw data; and when a tree is not as committed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.tracking import lineage

ROOT = Path(__file__).parents[3]
READS = """
import os
from pathlib import Path
from stages.common.runtime import process
from stages.common.tracking import lineage, mlflow_store, run

def main() -> None:
    lineage.check_copy(Path("data/raw"))
    tags = run._identity("sft", "f")
    Path("seen.txt").write_text(f"{mlflow_store.uri()} {tags['dvc_experiment']} {lineage.project()}")

process.run("sft", main)
"""


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


@pytest.fixture
def experiments(project: Path) -> Path:
    """A DVC repository whose stage reads data/raw, of which neither DVC nor git knows a file."""
    (project / "dvc.yaml").write_text(
        "stages:\n  demo:\n    cmd: mkdir -p data/raw/demo && echo 1 > data/raw/demo/a\n    outs: [data/raw/demo]\n"
        "  sft:\n    cmd: python sft.py\n    deps: [data/raw]\n    params: [sft]\n    outs: [seen.txt]\n"
    )
    (project / "params.yaml").write_text("sft:\n  seed: 1\n")
    (project / "sft.py").write_text(READS)
    (project / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    for line in ("git init -q .", "dvc init -q", "git add -A", "git -c user.name=t -c user.email=t@t commit -qm start"):
        assert dvc(project, *line.split()).returncode == 0
    own = project / "data/raw/mine/notes.txt"
    own.parent.mkdir(parents=True)
    own.write_text("my notes")
    return project


def dvc(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    variables = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DVC_NO_ANALYTICS": "1",
        "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t",
    }  # fmt: skip
    variables.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)


def test_an_experiment_in_a_copy_refuses_to_go_without_ones_own_data_and_tracks_where_the_checkout_does(
    experiments: Path,
) -> None:
    run = ["dvc", "exp", "run", "--temp", "-n", "try", "-S", "sft.seed=2"]
    refused = dvc(experiments, *run)
    assert refused.returncode != 0
    assert (
        "the experiment's copy of data/raw lacks 1 files that neither git nor DVC knows, the first is "
        "data/raw/mine/notes.txt; `dvc add data/raw/mine/notes.txt`"
    ) in refused.stdout + refused.stderr
    for line in ("dvc add -q data/raw/mine/notes.txt", "git add data/raw/mine/notes.txt.dvc", "git commit -qm notes"):
        added = dvc(experiments, *line.split())
        assert added.returncode == 0, added.stderr
    done = dvc(experiments, *run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert dvc(experiments, "dvc", "exp", "apply", "try").returncode == 0
    assert (experiments / "seen.txt").read_text() == f"sqlite:///{experiments}/mlflow.db try {experiments.name}"
