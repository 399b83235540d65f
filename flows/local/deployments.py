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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flows import pipeline
from flows.local import automations, server
from stages.common.core import params
from stages.common.runtime import environment
from stages.common.runtime.errors import StageError, TryAgainError

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient

FILE, POOL = Path("infra/prefect.yaml"), "lathe"
GPU_POOL = "LATHE_GPU_POOL"
"""Environment variable that names the pool of machines with GPUs."""


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
            for pool in sorted({_pool_name(entry) for entry in asked["deployments"]}):
                _make_pool(client, pool)
            done = [name for entry in asked["deployments"] if (name := _deployment(client, entry, asked["pull"]))]
            return done + automations.apply(client)
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


def _pool_name(entry: dict[str, Any]) -> str:
    """Return the work pool of a deployment, by the environment where the file names a variable."""
    name = str(entry["work_pool"]["name"])
    return os.environ.get(GPU_POOL) or f"{POOL}-gpu" if GPU_POOL in name else name


def _make_pool(client: "SyncPrefectClient", name: str) -> None:
    """Make a pool of processes unless there is a pool of that name, of whichever kind."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))


def _deployment(client: "SyncPrefectClient", entry: dict[str, Any], pull: list[dict[str, Any]]) -> str:
    """Make or change one deployment; return its name, or nothing where it is as the file says."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
    from prefect.client.schemas.objects import ConcurrencyOptions
    from prefect.exceptions import ObjectNotFound

    module, _, function = str(entry["entrypoint"]).partition(":")
    flow = getattr(importlib.import_module(module.removesuffix(".py").replace("/", ".")), function)
    limit = entry.get("concurrency_limit") or {}
    strategy = ConcurrencyOptions(collision_strategy=limit["collision_strategy"]) if limit else None
    steps, pool = json.dumps(pull), _pool_name(entry)
    ours = os.environ.get("LATHE_POOL", POOL) == POOL
    if pool == POOL and ours:  # elsewhere the worker's own LATHE_ROOT says where its checkout is
        steps = steps.replace("{{ $LATHE_ROOT }}", os.environ.get("LATHE_ROOT") or str(Path.cwd()))
    wanted: dict[str, Any] = {
        "description": entry.get("description"),
        "entrypoint": entry["entrypoint"],
        "path": ".",
        "parameters": entry.get("parameters") or {},
        "parameter_openapi_schema": form(flow),
        "enforce_parameter_schema": True,
        "pull_steps": json.loads(steps),
        "work_pool_name": pool,
        "tags": entry.get("tags") or [],
        "job_variables": entry["work_pool"].get("job_variables") or {},
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
    if there.version == wanted["version"] or (pool == POOL and not ours):  # these run in another machine's checkout
        return ""
    client.update_deployment(there.id, DeploymentUpdate(**wanted))
    return name


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
