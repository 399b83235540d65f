"""infra/prefect.yaml on the Prefect server: what is missing there is made, what has changed in the
file since is changed there, and nothing else. Schedules, pauses and whatever else people set in the
page stay.

Command: python -m flows.local.deployments
"""

import hashlib
import importlib
import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flows import pipeline
from flows.local import server
from stages.common.core import params
from stages.common.runtime import environment
from stages.common.runtime.errors import StageError, TryAgainError

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient

FILE, POOL = Path("infra/prefect.yaml"), "lathe"
SILENT_SECONDS = 90
"""A run whose process has not been heard of for so long has crashed; it is heard of each 30 s."""
ZOMBIES = "a run whose process is gone"
ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")


def apply() -> list[str]:
    """Bring the server to the file's state; return the names of what was made or changed. Raises
    TryAgainError when it does not answer.
    """
    server.api_url()  # before the first import of Prefect: it makes its home
    import httpx
    from prefect.client.orchestration import get_client

    asked = params.plain(params.read_yaml(FILE))
    try:
        with get_client(sync_client=True) as client:
            _pool(client)
            done = [name for entry in asked["deployments"] if (name := _deployment(client, entry, asked["pull"]))]
            return done + _zombies_end(client)
    except httpx.HTTPError as error:
        what = f"the Prefect server refuses the deployments: {str(error).splitlines()[0]}"
        raise TryAgainError(what, where=server.api_url()) from error


def form(flow: "Flow[..., Any]") -> dict[str, Any]:
    """Return the schema that the page's form is made of and that the server checks: no unknown
    field, `until` one of the stages there are.
    """
    schema: dict[str, Any] = flow.parameters.model_dump_for_openapi()
    schema["additionalProperties"] = False
    if "until" in schema["properties"]:
        names = [stage.name for stage in pipeline.load()]
        groups = {name.partition("@")[0] for name in names if "@" in name}
        choice = {"type": "string", "enum": sorted(groups) + names, "title": "stage"}
        schema["properties"]["until"] |= {"anyOf": [choice, {"type": "null", "title": "all"}]}
    return schema


def _pool(client: "SyncPrefectClient") -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))


def _deployment(client: "SyncPrefectClient", entry: dict[str, Any], pull: list[dict[str, Any]]) -> str:
    """Make or change one deployment; return its name, or nothing where it is as the file says."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
    from prefect.client.schemas.objects import ConcurrencyOptions
    from prefect.exceptions import ObjectNotFound

    module, _, function = str(entry["entrypoint"]).partition(":")
    flow = getattr(importlib.import_module(module.removesuffix(".py").replace("/", ".")), function)
    limit = entry.get("concurrency_limit") or {}
    strategy = ConcurrencyOptions(collision_strategy=limit["collision_strategy"]) if limit else None
    root = os.environ.get("LATHE_ROOT") or str(Path.cwd())
    wanted: dict[str, Any] = {
        "description": entry.get("description"),
        "entrypoint": entry["entrypoint"],
        "path": ".",
        "parameters": entry.get("parameters") or {},
        "parameter_openapi_schema": form(flow),
        "enforce_parameter_schema": True,
        "pull_steps": json.loads(json.dumps(pull).replace("{{ $LATHE_ROOT }}", root)),
        "work_pool_name": entry["work_pool"]["name"],
        "tags": entry.get("tags") or [],
        "job_variables": entry.get("job_variables") or {},
        "concurrency_limit": limit.get("limit"),
        "concurrency_options": strategy,
    }
    text = json.dumps(wanted, sort_keys=True, default=lambda one: one.model_dump(mode="json"))
    wanted["version"] = f"file-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    name = f"{flow.name}/{entry['name']}"
    try:
        there = client.read_deployment_by_name(name)
    except ObjectNotFound:
        schedules = [DeploymentScheduleCreate.model_validate(one) for one in entry.get("schedules") or []]
        client.create_deployment(client.create_flow(flow), entry["name"], schedules=schedules, **wanted)
        return name
    if there.version == wanted["version"]:
        return ""
    client.update_deployment(there.id, DeploymentUpdate(**wanted))
    return name


def _zombies_end(client: "SyncPrefectClient") -> list[str]:
    """Make the automation by which a run that is not heard of any more becomes Crashed, unless it
    is there.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    if client.read_automations_by_name(ZOMBIES):
        return []
    heard = "prefect.flow-run.heartbeat"
    silent = EventTrigger(
        after={heard},
        expect={heard, *(f"prefect.flow-run.{state}" for state in ENDS)},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=SILENT_SECONDS),
    )
    message = f"nothing was heard of its process for {SILENT_SECONDS} s; run it again to go on"
    crashed = ChangeFlowRunState(name=None, state=StateType.CRASHED, message=message, force=False)
    client.create_automation(AutomationCore(name=ZOMBIES, trigger=silent, actions=[crashed]))
    return [f"automation '{ZOMBIES}'"]


def main() -> None:
    """Apply the file and say what was done."""
    environment.complete()
    try:
        print(f"lathe: deployed {', '.join(apply()) or 'nothing: all as in ' + str(FILE)}")
    except StageError as error:
        print(f"lathe: deployments failed ({error.code}): {error}", file=sys.stderr)
        raise SystemExit(error.code) from error


if __name__ == "__main__":
    typer.run(main)
