"""The flow: one task per stage of dvc.yaml, each one call of DVC, which alone judges what is done.

Command: python -m flows.train [--until sft] [--force] [--set sft.training.num_train_epochs=3]
"""

import re
import sys
import threading
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Annotated, Any, cast

import typer
from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Failed
from pydantic import Field

from flows import checkout, pipeline
from flows.cli import parameters, summary
from flows.local import devices, liveness, server
from flows.pipeline import Stage
from flows.repro import RESUMES, Outcome, StageFailed, outcome, repro, stage_environment
from stages.common.runtime import environment as surroundings
from stages.common.runtime.errors import StageError
from stages.common.tracking import run_pages

RETRY_SECONDS = 10.0
Repro = Callable[[Stage], Outcome]
AtOnce = Annotated[int, Field(ge=1, le=64)]
Hours = Annotated[float, Field(gt=0, le=8760)]


def named() -> str:
    """Return what a run is called: what it brings up to date, and from which commit."""
    given = runtime.flow_run.parameters or {}
    what = " ".join(filter(None, ["forced:" if given.get("force") else "", given.get("until") or "everything"]))
    changed = f" with {', '.join(given['set'])}" if given.get("set") else ""
    return f"{what} at {checkout.commit()}{changed}"[:120]


@flow(name="train", flow_run_name=named, persist_result=False)
def train(
    until: str | None = None,
    force: bool = False,
    set: list[str] | None = None,
    stages_at_once: AtOnce = 2,
    stage_hours: Hours | None = None,
) -> list[dict[str, Any]] | State[Any]:
    """Bring the pipeline up to date, or a stage with its ancestors; returns each stage's outcome.

    One run works in a checkout at a time: another one waits. Fails with the lines of every stage
    that failed (StageFailed to a caller); what does not depend on one of them has run.

    Args:
        until: Stage to end with, its ancestors included. Empty: the whole pipeline.
        force: Run every stage of this run anew, changed or not, as `dvc repro --force` does.
        set: Keys of params.yaml to change first, one a line, in the form of `dvc exp run
            --set-param`, for example sft.training.num_train_epochs=3. The file keeps them.
        stages_at_once: Most stages side by side (1 to 64).
        stage_hours: Longest time for one stage, in hours (above 0). Empty: as long as it takes, or
            what `meta.hours` in dvc.yaml says.
    """
    cancel, flow_run = threading.Event(), str(runtime.flow_run.id)
    say = get_run_logger().info
    try:
        with liveness.held(flow_run), checkout.alone(say), set_when_left(cancel):
            parameters.change(set or [])
            stages = pipeline.until(pipeline.load(), until) if until else pipeline.load()
            plan = planned(stages, force, stage_environment(flow_run), cancel, say)
            room = threading.BoundedSemaphore(stages_at_once)
            futures = submit(stages, lambda stage: plan.carry_out(stage, room, stage_hours), flow_run, cancel)
            found = wait_for(futures)
            create_markdown_artifact(summary.closing(found), "summary", f"what became of {len(found)} stages")
            return outcomes(futures)
    except (StageFailed, StageError) as error:
        return Failed(message=str(error), data=error)  # raised, it would only add a traceback of this file


within = train.with_options(name="train within a run")
"""The same as a part of another flow, which people are told of when it fails: not of both."""


@contextmanager
def set_when_left(cancel: threading.Event) -> Iterator[None]:
    """Set `cancel` when the body raises, a cancelled flow's too: what still runs gets time to save,
    then ends.
    """
    try:
        yield
    except BaseException:
        cancel.set()
        raise


@dataclass(frozen=True)
class Plan:
    """What a run has to do: which stages DVC has to look at, with what."""

    changed: Set[str]
    fetched: Set[str]
    gpus: list[str]
    remote: str
    reached: bool
    force: bool
    environment: dict[str, str]
    cancel: threading.Event

    def carry_out(self, stage: Stage, room: threading.BoundedSemaphore, hours: float | None) -> Outcome:
        """Bring a stage up to date, in `room` for it, and hand it to the remote. Raises
        StageFailed.
        """
        if stage.name not in self.changed:
            return outcome(stage, "restored" if stage.name in self.fetched else "cached", 0.0)
        longest = min(filter(None, [hours, stage.hours]), default=None)
        options = ["--force"] if self.force else ["--pull"] if self.reached else []
        say = get_run_logger().info
        with devices.slots(stage, self.cancel), room:
            done = repro(
                stage,
                follow=say,
                cancel=self.cancel,
                environment=self.environment,
                gpus=self.gpus,
                timeout_seconds=longest * 3600 if longest else None,
                options=options,
            )
        if self.remote and done.state == "ran":
            checkout.push(stage, self.environment, self.cancel, say)
        return done


def planned(
    stages: list[Stage], force: bool, environment: dict[str, str], cancel: threading.Event, say: Callable[[str], None]
) -> Plan:
    """Return what there is to do, once what the remote has is here. Raises ParamsError when a stage
    wants more GPUs than there are.
    """
    remote = pipeline.remote()
    changed = before = {stage.name for stage in stages} if force else checkout.outdated(stages, environment)
    reached = False
    if remote and changed and not force:
        say(f"{len(changed)} of {len(stages)} stages are not up to date here; asking the remote '{remote}'")
        reached = checkout.pull(stages, environment, cancel, say)
        changed = checkout.outdated(stages, environment)
    gpus = devices.reserve([stage for stage in stages if stage.name in changed])
    return Plan(changed, before - changed, gpus, remote, reached, force, environment, cancel)


def submit(
    stages: list[Stage], work: Repro, flow_run: str, cancel: threading.Event
) -> dict[str, PrefectFuture[dict[str, Any]]]:
    """Submit one task a stage, after its parents' tasks, and return their futures by the stages'
    names.
    """

    def resumes(_task: Any, _run: Any, state: State[Any]) -> bool:
        error = state.result(raise_on_failure=False)
        return isinstance(error, StageFailed) and error.code in RESUMES and not cancel.is_set()

    @task(
        retry_delay_seconds=RETRY_SECONDS,
        retry_condition_fn=resumes,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    def run(name: str) -> dict[str, Any]:
        done = work(by_name[name])
        link = pages.of(name, anew=done.state == "ran")
        create_markdown_artifact(summary.artifact(done, link), artifact_key(name), f"{name}: {done.state}")
        return asdict(done) | {"link": link}

    by_name, pages = {stage.name: stage for stage in stages}, run_pages.Pages(flow_run)
    futures: dict[str, PrefectFuture[dict[str, Any]]] = {}
    for stage in stages:
        parents = [futures[parent] for parent in stage.parents if parent in futures]
        own = run.with_options(name=stage.name, task_run_name=stage.name, retries=stage.retries)
        futures[stage.name] = own.submit(stage.name, return_state=False, wait_for=parents)
    return futures


def wait_for(futures: dict[str, PrefectFuture[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Wait for every task and return what became of each stage, of one that failed its line."""
    for future in futures.values():
        future.wait()
    found = []
    for name, future in futures.items():
        if future.state.is_completed():
            found.append(future.state.result())
        elif future.state.is_failed() or future.state.is_crashed():
            line = str(future.state.result(raise_on_failure=False))
            found.append({"stage": name, "state": "failed", "seconds": None, "figure": line, "link": ""})
        else:
            found.append({"stage": name, "state": "not run", "seconds": None, "figure": "", "link": ""})
    return found


def outcomes(futures: dict[str, PrefectFuture[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return what the tasks did, which have ended. Raises StageFailed when one of them failed."""
    states = [future.state for future in futures.values()]
    errors = [state.result(raise_on_failure=False) for state in states if state.is_failed() or state.is_crashed()]
    if errors:
        first = next((error for error in errors if isinstance(error, StageFailed)), StageFailed("", 1))
        raise StageFailed("\n".join(str(error) for error in errors), first.code)
    return [state.result() for state in states]


def artifact_key(name: str) -> str:
    """Return the stage's name in the letters Prefect takes in a key."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def main(
    until: Annotated[str | None, typer.Option(help="run this stage and what it needs, nothing else")] = None,
    force: Annotated[bool, typer.Option("--force", help="run every stage of it anew, changed or not")] = False,
    set: Annotated[list[str] | None, typer.Option(help="KEY=VALUE of params.yaml to change first")] = None,
) -> None:
    """Run the flow on the local Prefect server, and close with the table; a failed stage's exit
    code is ours.
    """
    surroundings.complete()
    try:
        print(f"lathe: Prefect at {server.ui_url(server.ensure())}", file=sys.stderr)
        liveness.end_the_dead()
        done = cast(list[dict[str, Any]], train(until=until, force=force, set=set))
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
