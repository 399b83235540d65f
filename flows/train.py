"""The flow: one task per stage of dvc.yaml, each one call of DVC, which alone judges what is done.

Command: python -m flows.train [--until sft]
"""

import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Annotated, Any, cast

import typer
from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.futures import PrefectFuture
from prefect.states import Failed

from flows import pipeline
from flows.cli import summary
from flows.local import devices, server
from flows.pipeline import Stage
from flows.repro import RESUMES, Outcome, StageFailed, repro, stage_environment
from stages.common.runtime.errors import ParamsError, StageError
from stages.common.tracking import mlflow_store

RETRIES, RETRY_SECONDS = 2, 10.0
WAIT_SECONDS, LEASE_SECONDS = 30.0, 60.0
SLOTS = f"gpu:{socket.gethostname()}"
Repro = Callable[[Stage], Outcome]


@flow(name="train", persist_result=False)
def train(
    until: str | None = None, stages_at_once: int = 2, stage_hours: float | None = None
) -> list[dict[str, Any]] | State[Any]:
    """Bring the pipeline up to date, or `until` with its ancestors; returns each stage's outcome.

    At most `stages_at_once` run side by side, each for at most `stage_hours`. Fails with the lines
    of every stage that failed (StageFailed to a caller); what does not depend on one of them has
    run.
    """
    cancel, slots = threading.Event(), threading.BoundedSemaphore(stages_at_once)
    flow_run, timeout_seconds = str(runtime.flow_run.id), stage_hours * 3600 if stage_hours else None
    environment = stage_environment(flow_run)
    try:
        stages = pipeline.until(pipeline.load(), until) if until else pipeline.load()
        gpus = reserve(stages)

        def bring_up_to_date(stage: Stage) -> Outcome:
            follow = get_run_logger().info
            with gpu_slots(stage, cancel), slots:
                return repro(
                    stage,
                    follow=follow,
                    cancel=cancel,
                    environment=environment,
                    gpus=gpus,
                    timeout_seconds=timeout_seconds,
                )

        return outcomes(submit(stages, bring_up_to_date, flow_run, cancel))
    except (StageFailed, StageError) as error:
        return Failed(message=str(error), data=error)  # raised, it would only add a traceback of this file
    except BaseException:  # a cancelled flow too: what still runs gets time to save, then ends
        cancel.set()
        raise


def submit(
    stages: list[Stage], work: Repro, flow_run: str, cancel: threading.Event
) -> dict[str, PrefectFuture[dict[str, str]]]:
    """Submit one task a stage, after its parents' tasks, and return their futures by the stages'
    names.
    """

    def resumes(_task: Any, _run: Any, state: State[Any]) -> bool:
        error = state.result(raise_on_failure=False)
        return isinstance(error, StageFailed) and error.code in RESUMES and not cancel.is_set()

    @task(
        retries=RETRIES,
        retry_delay_seconds=RETRY_SECONDS,
        retry_condition_fn=resumes,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    def run(name: str) -> dict[str, Any]:
        outcome = work(by_name[name])
        link = mlflow_store.run_page(name, flow_run) if outcome.state == "ran" else ""
        create_markdown_artifact(summary.artifact(outcome, link), artifact_key(name), f"{name}: {outcome.state}")
        return asdict(outcome)

    by_name = {stage.name: stage for stage in stages}
    futures: dict[str, PrefectFuture[dict[str, Any]]] = {}
    for stage in stages:
        parents = [futures[parent] for parent in stage.parents if parent in futures]
        named = run.with_options(name=stage.name, task_run_name=stage.name)
        futures[stage.name] = named.submit(stage.name, return_state=False, wait_for=parents)
    return futures


def outcomes(futures: dict[str, PrefectFuture[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Wait for every task and return what they did. Raises StageFailed when one of them failed."""
    for future in futures.values():
        future.wait()
    ended = {name: future.state for name, future in futures.items()}
    errors = [
        state.result(raise_on_failure=False) for state in ended.values() if state.is_failed() or state.is_crashed()
    ]
    if errors:
        first = next((error for error in errors if isinstance(error, StageFailed)), StageFailed("", 1))
        raise StageFailed("\n".join(str(error) for error in errors), first.code)
    return [state.result() for state in ended.values()]


def reserve(stages: list[Stage]) -> list[str]:
    """Return this host's GPUs, declared as slots to the server; none are looked for when no stage
    wants one.

    Raises ParamsError when a stage wants more than there are.
    """
    greediest = max(stages, key=lambda stage: stage.gpus)
    if greediest.gpus == 0:
        return []
    gpus = devices.visible()
    if greediest.gpus > len(gpus):
        what = f"stage '{greediest.name}' wants {greediest.gpus} GPUs, {socket.gethostname()} has {len(gpus)}"
        raise ParamsError(what, where="params.yaml", remedy="lower run.gpus")
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(SLOTS, limit=len(gpus))
    return gpus


@contextmanager
def gpu_slots(stage: Stage, cancel: threading.Event) -> Iterator[None]:
    """Hold the stage's GPU slots; a server that is away for a while does not stop the training.

    Raises TimeoutError when `cancel` is set while it waits.
    """
    with ExitStack() as held:
        while stage.gpus:
            slots = concurrency(
                SLOTS,
                occupy=stage.gpus,
                timeout_seconds=WAIT_SECONDS,
                lease_duration=LEASE_SECONDS,
                strict=True,
                raise_on_lease_renewal_failure=False,
            )
            try:
                held.enter_context(slots)
                break
            except TimeoutError:
                if cancel.is_set():
                    raise
        yield


def artifact_key(name: str) -> str:
    """Return the stage's name in the letters Prefect takes in a key."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def main(
    until: Annotated[str | None, typer.Option(help="run this stage and what it needs, nothing else")] = None,
) -> None:
    """Run the flow on the local Prefect server, and close with the table; a failed stage's exit
    code is ours.
    """
    try:
        print(f"lathe: Prefect at {server.ui_url(server.ensure())}", file=sys.stderr)
        done = cast(list[dict[str, Any]], train(until=until))
    except StageError as error:
        raise SystemExit(_say(f"lathe: flow failed ({error.code}): {error}", error.code)) from error
    except StageFailed as error:
        raise SystemExit(_say(str(error), error.code)) from error
    print(summary.show([one["stage"] for one in done], {one["stage"]: one["state"] for one in done}))


def _say(line: str, code: int) -> int:
    print(line, file=sys.stderr, flush=True)
    return code if 0 < code < 256 else 1


if __name__ == "__main__":
    typer.run(main)
