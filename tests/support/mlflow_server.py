"""A real MLflow server on loopback, for tests that need a store in another process."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(port: int, *options: str, **environment: str) -> Iterator[None]:
    """A real MLflow server on `server.db`, killed with its workers at the end; the last of two
    equal options counts.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", "sqlite:///server.db", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--artifacts-destination", "server-files", *options]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    variables = os.environ | quiet | environment
    with Path("server.log").open("a") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)

    def is_up() -> bool:
        assert process.poll() is None, Path("server.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(is_up, 120)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
