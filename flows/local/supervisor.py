"""Keeps services alive: each is a line of infra/Procfile and a process of its own, started again
alone when it ends, until we are asked to stop. What flow runs a dead process left behind is told to
the server.

Command: python -m flows.local.supervisor mlflow prefect worker
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from flows.local import liveness
from stages.common.runtime import process

PROCFILE, LOGS, UP = Path("infra/Procfile"), Path("logs/services"), Path(".lathe/services.up")
LOOK_SECONDS, SWEEP_SECONDS = 0.5, 15.0
FIRST_PAUSE, LONGEST_PAUSE, STEADY_SECONDS = 1.0, 30.0, 60.0
"""A service that ends at once again and again is started after ever longer pauses."""


@dataclass
class Service:
    """One service: its command, its process, when it was started and how long it waits before it is
    started again.
    """

    name: str
    command: str
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    pause: float = FIRST_PAUSE
    due: float = field(default_factory=time.monotonic)
    group: int = 0
    """What it has started is of this group of processes; that may outlive it and hold its port."""

    @property
    def log(self) -> Path:
        """The service's own log."""
        return LOGS / f"{self.name}.log"

    def start(self) -> None:
        """Start it as our child, which the kernel ends when we are killed."""
        with self.log.open("ab") as output:
            command = [sys.executable, "-m", "flows.local.command", "/bin/sh", "-c", f"exec {self.command}"]
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self.started, self.group = time.monotonic(), self.process.pid

    def ended(self) -> int | None:
        """Return its exit code once it has ended, and set when it is to be started again."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        now = time.monotonic()
        self.pause = FIRST_PAUSE if now - self.started > STEADY_SECONDS else min(2 * self.pause, LONGEST_PAUSE)
        self.process, self.due = None, now + self.pause
        self.signal_left(signal.SIGTERM)
        return int(code)

    def signal_left(self, number: signal.Signals) -> None:
        """Send a signal to what it has started and left."""
        if self.group:  # 0 would be our own
            with suppress(ProcessLookupError):
                os.killpg(self.group, number)

    def is_free(self) -> bool:
        """Whether it may be started: it is due, and nobody whom it had started is left. They have
        the time that a stage has to save.
        """
        now = time.monotonic()
        if now < self.due or not self.group or not _alive(self.group):
            return now >= self.due
        if now < self.due + process.longest_stop_seconds():
            return False
        self.signal_left(signal.SIGKILL)
        return True


def _alive(group: int) -> bool:
    """Whether a process of the group lives; one that nobody has waited for does not."""
    import psutil

    for one in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getpgid(one.pid) == group and one.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def read(procfile: Path, names: list[str]) -> list[Service]:
    """Return the services of these names, as `name: command` lines. Raises KeyError for one that is
    not there.
    """
    lines = [line.partition(":") for line in procfile.read_text(encoding="utf-8").splitlines() if ":" in line]
    commands = {name.strip(): command.strip() for name, _, command in lines if not name.startswith("#")}
    return [Service(name, commands[name]) for name in names]


def watch(services: list[Service], stop: threading.Event) -> int:
    """Keep the services alive until `stop`; return 1 when one ends before all were up (`make up`
    says so with the file UP): then it would end again.
    """
    swept = time.monotonic()
    while not stop.is_set():
        for service in services:
            if service.process is None and service.is_free():
                service.start()
                say(f"{service.name} started as process {service.process.pid if service.process else 0}")
            elif (code := service.ended()) is not None:
                if not UP.exists():
                    say(f"{service.name} ended with {code} before it was up: {service.log} says why")
                    return 1
                say(f"{service.name} ended with {code}; started again in {service.pause:.0f} s")
        if time.monotonic() - swept > SWEEP_SECONDS and UP.exists():
            swept = time.monotonic()
            if liveness.dead():
                subprocess.run([sys.executable, "-m", "flows.local.liveness"], stdin=subprocess.DEVNULL, check=False)
        stop.wait(LOOK_SECONDS)
    return 0


def say(line: str) -> None:
    """Write a line with the time to our log."""
    print(time.strftime("%Y-%m-%d %H:%M:%S"), line, flush=True)


def end(services: list[Service]) -> None:
    """Ask every service to leave and wait for it; who asked us kills what hangs."""
    for service in services:
        if service.process is not None and service.process.poll() is None:
            service.process.terminate()
    for service in services:
        if service.process is not None:
            service.process.wait()
            service.signal_left(signal.SIGTERM)


def main(names: list[str]) -> int:
    """Run the named services until SIGTERM or SIGINT."""
    stop = threading.Event()

    def asked(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, asked)
    for folder in (LOGS, UP.parent):
        folder.mkdir(parents=True, exist_ok=True)
    UP.unlink(missing_ok=True)
    say(f"supervisor {os.getpid()} of {', '.join(names)}")
    services = read(PROCFILE, names)
    try:
        return watch(services, stop)
    finally:
        end(services)
        UP.unlink(missing_ok=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
