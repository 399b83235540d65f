"""MLflow and Prefect as we start them, and what attackers' tests send them."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from flows.local import services
from tests.support.attacks import raw
from tests.support.mlflow_server import free_port

ROOT = Path(__file__).parents[2]

MLFLOW, FILES = "/api/2.0/mlflow", "/api/2.0/mlflow-artifacts/artifacts"
SECRET = b"root:"
ALIVE = {"mlflow": f"{MLFLOW}/experiments/get?experiment_id=0", "prefect": "/api/admin/version"}
READ = {"mlflow": f"{MLFLOW}/experiments/get?experiment_id=0", "prefect": "/api/csrf-token?client=a"}
WRITE = {"mlflow": f"{MLFLOW}/experiments/create", "prefect": "/api/flows/"}


@contextmanager
def mlflow_as_started(folder: Path) -> Iterator[str]:
    """The address of MLflow, started by the line of infra/Procfile that `make up` runs."""
    port = str(free_port())
    line = re.search(r"^mlflow: (.*)$", (ROOT / "infra/Procfile").read_text(), re.MULTILINE)
    assert line
    variables = services.environment("http://127.0.0.1:1/api") | {"MLFLOW_PORT": port}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            line[1], shell=True, cwd=folder, env=variables, stdout=log, stderr=log, start_new_session=True
        )
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + 180
    try:
        while not services.answers(f"{url}/health"):
            assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def call(url: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    """Send JSON, by GET when there is none."""
    method = "GET" if body is None else "POST"
    return httpx.request(method, url + path, json=body, headers=headers, timeout=30, trust_env=False)


def get(url: str, path: str) -> bytes:
    """Send a path as it is, dots and all."""
    return raw(url, f"GET {path} HTTP/1.1\r\nHost: {url[7:]}\r\nConnection: close\r\n\r\n".encode())
