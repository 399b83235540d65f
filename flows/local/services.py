"""MLflow, the Prefect server, a worker and the chat in the background, from infra/Procfile, each
kept alive alone.

Commands: python -m flows.local.services up, python -m flows.local.services down
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.local import background, deployments, liveness, server, supervisor
from stages.common.runtime import environment as surroundings
from stages.common.runtime.errors import StageError, TryAgainError

LOG, RECORD, PROMOTION = Path("logs/services.log"), Path(".lathe/services.json"), Path("reports/promote.json")
START_SECONDS = 300.0


def up() -> None:
    """Start the services and wait until each answers; a Prefect server that runs is attached to.

    The chat waits for a first champion. Raises TryAgainError when they run already, a port is taken
    or one of them does not come up.
    """
    if background.find(RECORD):
        raise TryAgainError("the services run already", where=RECORD, remedy="stop them with: make down")
    url = server.api_url()
    names = ["worker"]
    if not os.environ.get("MLFLOW_TRACKING_URI"):  # a store elsewhere has its own page
        names.append("mlflow")
    if not server.answers(url):
        names.append("prefect")
    if has_champion():
        names.append("chat")
    else:
        print("lathe: no champion yet (make demo trains one, make review approves it), so no chat", file=sys.stderr)
    health = {name: address for name, address in healths(url).items() if name in names}
    for name, address in health.items():
        if answers(address):
            variable = "PREFECT_API_URL" if name == "prefect" else f"{name.upper()}_PORT"
            raise TryAgainError(f"no room for {name}: something answers", where=address, remedy=f"set {variable}")
    process = background.start([sys.executable, "-m", "flows.local.supervisor", *names], environment(url), LOG, RECORD)
    for name, address in health.items():
        wait(process, name, address)
    try:
        deployments.apply()
        liveness.end_the_dead()
    except BaseException:
        background.end(RECORD)
        raise
    supervisor.UP.touch()
    print(f"lathe: logs in {LOG} and {supervisor.LOGS}; stop with: make down")


def has_champion() -> bool:
    """Whether there is a model to chat with: the promotion's report names one, or a person has
    approved one since.
    """
    from stages.common.release import registry
    from stages.common.tracking import mlflow_store

    if not PROMOTION.exists():
        return False
    promoted = json.loads(PROMOTION.read_text(encoding="utf-8"))
    named = promoted["champion_sha256"] is not None
    return named or registry.with_alias(mlflow_store.client(), promoted["name"], registry.CHAMPION) is not None


def down() -> None:
    """Stop what `up` and `make flow` have started; what is training saves first."""
    services, prefect_server = background.end(RECORD), background.end(server.RECORD)
    print("lathe: stopped" if services or prefect_server else "lathe: nothing ran")


def healths(prefect_url: str) -> dict[str, str]:
    """Return the address of each service that answers 200 when it is up."""
    return {
        "mlflow": f"http://127.0.0.1:{os.environ.get('MLFLOW_PORT', '5000')}/health",
        "prefect": f"{prefect_url}/health",
        "chat": f"http://127.0.0.1:{os.environ.get('CHAT_PORT', '7860')}/readyz",
    }


def runs_page() -> str:
    """Return MLflow's page of this project's runs, with the columns that matter."""
    from stages.common.tracking import mlflow_store, run_pages

    return run_pages.of_project(mlflow_store.client()) or mlflow_store.page()


def answers(address: str) -> bool:
    """Whether anything speaks HTTP at `address`."""
    import httpx

    try:
        httpx.get(address, timeout=5.0, trust_env=False)
    except httpx.ConnectError:
        return False
    except httpx.HTTPError:
        return True
    return True


def wait(process: "subprocess.Popen[bytes]", name: str, address: str) -> None:
    """Wait until the service answers. Raises TryAgainError, with everything stopped, when one of
    them ends instead.
    """
    print(f"  {name:8}", end="", flush=True)
    started = time.monotonic()
    while not answers(address):
        if process.poll() is not None or time.monotonic() - started > START_SECONDS:
            print()
            background.end(RECORD)
            log = supervisor.LOGS / f"{name}.log"
            said = background.last_line(log) if log.exists() else "it was not started"
            raise TryAgainError(f"{name} did not come up: {said}", where=log, remedy="the log says more")
        print(".", end="", flush=True)
        time.sleep(1)
    page = address.removesuffix("/health").removesuffix("/readyz").removesuffix("/api")
    page = runs_page() if name == "mlflow" else page
    print(f" {page}  ({time.monotonic() - started:.0f} s)", flush=True)


def environment(url: str) -> dict[str, str]:
    """Return the environment of the services: this interpreter first, our server, nothing that
    phones home.
    """
    return {
        **server.environment(url),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "LATHE_ROOT": str(Path.cwd()),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes and 2 GB for features nobody here uses
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
    }


def main(what: Annotated[Literal["up", "down"], typer.Argument(help="start or stop them")]) -> None:
    """Start or stop the services."""
    surroundings.complete()
    try:
        {"up": up, "down": down}[what]()
    except StageError as error:
        print(f"lathe: services failed ({error.code}): {error}", file=sys.stderr)
        raise SystemExit(error.code) from error


if __name__ == "__main__":
    typer.run(main)
