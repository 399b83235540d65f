"""`make up` and `make down`, for real."""

import http.server
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import psutil
import pytest

from tests.flows.conftest import ROOT, environment, free_port


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the services need of the project, with nothing that a run leaves."""
    for name in ("pyproject.toml", "params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "infra", tmp_path / "infra")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "flows").symlink_to(ROOT / "flows")
    (tmp_path / "stages").symlink_to(ROOT / "stages")
    return tmp_path


def services(checkout: Path, what: str, url: str, **more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "flows.local.services", what]
    return subprocess.run(
        command, cwd=checkout, env=environment(url, **more), capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_up_starts_everything_and_down_leaves_nobody(checkout: Path) -> None:
    mlflow, prefect = free_port(), free_port()
    url, ports = f"http://127.0.0.1:{prefect}/api", {"MLFLOW_PORT": str(mlflow), "CHAT_PORT": str(free_port())}
    try:
        up = services(checkout, "up", url, **ports)
        assert up.returncode == 0, up.stderr + "".join(log.read_text() for log in (checkout / "logs").rglob("*.log"))
        assert f"http://127.0.0.1:{mlflow}/#/" in up.stdout and "no champion yet" in up.stderr
        assert httpx.get(f"http://127.0.0.1:{mlflow}/health", trust_env=False).text == "OK"
        assert httpx.get(f"http://127.0.0.1:{mlflow}/", headers={"Host": "evil.example"}, trust_env=False).is_error
        listed = subprocess.run(
            [sys.executable, "-m", "prefect", "deployment", "ls"],
            cwd=checkout, env=environment(url), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "train/train" in listed.stdout and "train/nightly" in listed.stdout
        again = services(checkout, "up", url, **ports)
        assert again.returncode == 75 and "run already" in again.stderr
    finally:
        down = services(checkout, "down", url)
    assert down.stdout == "lathe: stopped\n"
    left = [process.cmdline() for process in psutil.process_iter() if _works_in(process, checkout)]
    assert left == []
    assert services(checkout, "down", url).stdout == "lathe: nothing ran\n"


def test_a_taken_port_is_one_line_and_starts_nothing(checkout: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        port = web.server_address[1]
        done = services(checkout, "up", f"http://127.0.0.1:{free_port()}/api", MLFLOW_PORT=str(port))
        web.shutdown()
    assert done.returncode == 75
    assert done.stderr.splitlines()[-1] == (
        f"lathe: services failed (75): http://127.0.0.1:{port}/health: no room for mlflow: something answers; "
        "set MLFLOW_PORT"
    )
    assert not (checkout / ".lathe/services.json").exists()


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.cwd() == str(folder)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False
