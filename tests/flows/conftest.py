"""A small real DVC repository, and one real Prefect server for the whole package."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.local import background, server
from tests.support import attacked, project
from tests.support.small_world import SMALL

ROOT = Path(__file__).parents[2]
DVC_YAML = """\
stages:
  raw:
    cmd: printf 'a\\nb\\n' > raw.txt
    outs:
      - raw.txt
  upper:
    cmd: python upper.py
    deps:
      - raw.txt
      - upper.py
    outs:
      - upper.txt
    meta:
      gpu: ${run.gpus}
  count:
    foreach:
      raw:
        file: raw.txt
      upper:
        file: upper.txt
    do:
      cmd: wc -c ${item.file} > count_${key}.txt && echo "cards $CUDA_VISIBLE_DEVICES"
      deps:
        - ${item.file}
      outs:
        - count_${key}.txt
      meta:
        gpu: ${run.gpus}
"""
UPPER = """\
from pathlib import Path
from stages.common.runtime import logs, process

def main() -> None:
    Path("upper.txt").write_text(Path("raw.txt").read_text().upper())
    logs.report("2 lines")

process.run("upper", main)
"""

OFTEN = {  # long enough to be killed at work, with a checkpoint every few seconds
    "pretrain.training.num_train_epochs": 2,
    "pretrain.checkpoint_minutes": 0.05,
    "sft.training.num_train_epochs": 3,
    "sft.checkpoint_minutes": 0.05,
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(url: str, **more: str) -> dict[str, str]:
    """The environment of a flow in a repository elsewhere, against the server at `url`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "PREFECT_API_URL": url,
        "DVC_NO_ANALYTICS": "1",
        **more,
    }


@pytest.fixture(scope="package")
def repository_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True, env=environment(""))
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "params.yaml").write_text("run:\n  name: test\n  gpus: 0\n")
    (folder / "upper.py").write_text(UPPER)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture
def repository(repository_template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(repository_template, tmp_path / "repository")


@pytest.fixture(scope="package")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server started the way `make flow` does, with the settings of pyproject.toml."""
    folder, url = tmp_path_factory.mktemp("prefect"), f"http://127.0.0.1:{free_port()}/api"
    shutil.copy(ROOT / "pyproject.toml", folder)
    start = [sys.executable, "-c", "from flows.local import server; server.ensure()"]
    subprocess.run(start, cwd=folder, check=True, timeout=400, env=environment(url))
    yield url
    assert background.end(folder / server.RECORD)


@pytest.fixture(scope="package")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow as `make up` starts it."""
    with attacked.mlflow_as_started(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture(scope="package")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which one machine has run the pipeline as far as SFT, without a flow; what is
    committed is its beginning.
    """
    folder = project.lay(tmp_path_factory.mktemp("one"), "params.yaml", SMALL | OFTEN)
    done = project.run(folder, "dvc", "repro", "sft")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The server under attack, `mlflow` or `prefect`, by name and address; whatever was sent, it
    answers afterwards.
    """
    name = request.param
    url: str = request.getfixturevalue(f"{name}_url").removesuffix("/api")
    yield name, url
    assert attacked.call(url, attacked.ALIVE[name]).status_code == 200


@pytest.fixture
def flow(prefect_url: str, repository: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run the flow in `repository` as a user does; keyword arguments are environment variables."""

    def run(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "flows.train", *arguments]
        return subprocess.run(
            command, cwd=repository, env=environment(prefect_url, **more), capture_output=True, text=True, timeout=900
        )

    return run
