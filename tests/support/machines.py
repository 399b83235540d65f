"""Checkouts that stand in for machines: their services as `make up` starts them, runs that are
started by the server's API, and all that works in one killed at once.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.flows.test_train import post, read, still_running

SECONDS = 900.0
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
QUIET = {"OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def until(condition: Callable[[], Any], seconds: float = SECONDS, say: Callable[[], str] = str) -> float:
    """Wait for a condition; return the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, say()
        time.sleep(0.2)
    return time.monotonic() - began


@dataclass(frozen=True, eq=False)
class Machine:
    """A checkout and the environment of all that is started in it."""

    folder: Path
    url: str
    environment: dict[str, str]

    def call(self, *command: str) -> str:
        """Run a command of the environment in the checkout, which has to succeed; return what it
        printed.
        """
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        variables = os.environ | QUIET | {"PATH": path, "PYTHONPATH": str(self.folder), "PREFECT_API_URL": self.url}
        done = subprocess.run(
            command, cwd=self.folder, env=variables | self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return done.stdout

    def logs(self) -> str:
        """Return what services and stages have said lately."""
        files = sorted(self.folder.glob("logs/**/*.log"), key=lambda file: file.stat().st_mtime)
        return "\n".join(f"--- {file}\n{file.read_text(errors='replace')[-3000:]}" for file in files)

    def run(self, deployment: str, **parameters: Any) -> str:
        """Start a run of a deployment; return its id."""
        (found,) = read(self.url, "/deployments/filter", deployments={"name": {"any_": [deployment]}})
        made = post(self.url, f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
        return str(made["id"])

    def state(self, run: str) -> str:
        """Return the type of a run's state."""
        (found,) = read(self.url, "/flow_runs/filter", flow_runs={"id": {"any_": [run]}})
        return str(found["state_type"])

    def completed(self, run: str) -> None:
        """Wait for a run's end, which has to be a good one."""
        until(lambda: self.state(run) in ENDED, say=self.logs)
        assert self.state(run) == "COMPLETED", self.logs()

    def service(self, name: str) -> int:
        """Return the process id of a service, by the supervisor's last word of it."""
        said = (self.folder / "logs/services.log").read_text()
        return int(re.findall(rf" {name} started as process (\d+)", said)[-1])

    def is_well(self, *names: str) -> bool:
        """Whether each of these services answers as one that is well."""
        places = {"mlflow": "MLFLOW_PORT", "chat": "CHAT_PORT"}
        ports = {name: self.environment.get(variable, "") for name, variable in places.items()}
        health = {"mlflow": "/health", "chat": "/readyz"}
        for name in names:
            place = f"http://127.0.0.1:{ports[name]}{health[name]}" if name in ports else f"{self.url}/health"
            try:
                if httpx.get(place, timeout=5, trust_env=False).status_code != httpx.codes.OK:
                    return False
            except httpx.HTTPError:
                return False
        return True

    def kill(self) -> None:
        """Kill all that works in the checkout, as the end of a machine would."""
        while still_running(self.folder):
            for process in psutil.process_iter():
                try:
                    if process.cwd() == str(self.folder):
                        os.kill(process.pid, signal.SIGKILL)
                except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, ProcessLookupError):
                    continue
