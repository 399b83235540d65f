"""Who is champion, decided by people: a flow that waits for an answer, one that first brings the
candidates as far as the gate, and the same by command.

Commands: python -m flows.release review | approve 3 --reason … | reject 3 --reason … | rollback
--reason … | challenge 3
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal
from uuid import UUID

import typer
from prefect import flow, get_run_logger, runtime
from prefect.client.orchestration import get_client
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from flows import checkout
from flows.local import liveness, server
from flows.train import within
from stages.common.core import params
from stages.common.release import aliases, manual_promotion, promotion_history, registry
from stages.common.release.registry import Version
from stages.common.release.traffic import challenge as traffic
from stages.common.release.traffic import votes
from stages.common.runtime import libraries, logs, process
from stages.common.runtime.errors import ParamsError
from stages.common.runtime.logs import log
from stages.common.tracking import mlflow_store, notices

POLL_SECONDS = 5.0
WEEK_SECONDS = 7 * 24 * 3600
Seconds = Annotated[int, Field(ge=1, le=52 * WEEK_SECONDS)]
Why = Annotated[str, typer.Option(help="why, for the record")]
Anyway = Annotated[bool, typer.Option("--anyway", help="though a person decided against it before")]
Number = Annotated[str, typer.Argument(help="number of the version")]


class Answer(RunInput):
    """The form a reviewer fills in."""

    decision: Literal["approve", "reject"]
    reason: str = Field(min_length=1, description="Why, for the record")
    who: str = Field(min_length=1, description="Your name")


def named() -> str:
    """Return what a run is called."""
    return f"review of version {(runtime.flow_run.parameters or {}).get('version') or 'that waits'}"


@flow(name="review", flow_run_name=named, persist_result=False)
def wait_for_review(
    version: Annotated[str, Field(pattern="^[0-9]+$")] | None = None,
    wait_seconds: Seconds = WEEK_SECONDS,
) -> str:
    """Show the version that waits for a person and pause until one has answered, here or by moving
    the alias in MLflow.

    Returns what was done. Fails when nobody answers in time.

    Args:
        version: Number of the version. Empty: the one with alias challenger.
        wait_seconds: How long to wait for an answer, in seconds (604800 is a week).
    """
    with liveness.held(str(runtime.flow_run.id)):
        return ask(version, wait_seconds)


def ask(version: str | None, wait_seconds: int) -> str:
    """Pause the flow run until a person has answered for the version, and return what was done."""
    name = registered_name()
    found = waiting(name, version)
    if found is None:
        return "no version waits for a review"
    get_run_logger().info("version %s of %s waits for a review", found.number, name)
    form = Answer.with_initial_data(description=shown(found))
    with answered_elsewhere(found):
        answer = pause_flow_run(wait_for_input=form, timeout=wait_seconds, poll_interval=2)
    settle = aliases.approve if answer.decision == "approve" else aliases.reject
    if waiting(name, found.number) is None:
        return f"version {found.number} was decided elsewhere: {answer.reason}"
    return settle(mlflow_store.client(), name, found.number, answer.reason, by=answer.who)


def release_named() -> str:
    """Return what a run of the whole way to the gate is called."""
    return f"release at {checkout.commit()}"


@flow(name="release", flow_run_name=release_named, persist_result=False)
def release(wait_seconds: Seconds = WEEK_SECONDS) -> str:
    """Bring the pipeline up to date as far as the gate, and where a version then waits for a person
    ask as `review` does.

    Returns what was done. Fails as `train` does, and when nobody answers in time.

    Args:
        wait_seconds: How long to wait for an answer, in seconds (604800 is a week).
    """
    with liveness.held(str(runtime.flow_run.id)):
        within(until="promote")
        return ask(None, wait_seconds)


def waiting(name: str, number: str | None) -> Version | None:
    """Return the version that waits for a person, or None when it was decided."""
    client = mlflow_store.client()
    found = registry.numbered(client, name, number) if number else registry.with_alias(client, name, "challenger")
    return found if found and found.tags.get("review") == "pending" else None


def shown(version: Version) -> str:
    """Return the text above the form: the version's model card."""
    with mlflow_store.answers():
        card = mlflow_store.client().get_model_version(version.name, version.number).description or ""
    return f"Version {version.number} of {version.name} ({mlflow_store.shown()}): make it champion?\n\n{card}"


@contextmanager
def answered_elsewhere(version: Version) -> Iterator[None]:
    """Inside, resume this flow run as soon as the version is decided in MLflow's page or by
    command.
    """
    over, flow_run = threading.Event(), UUID(str(runtime.flow_run.id))

    def watch() -> None:
        while not over.wait(POLL_SECONDS):
            try:
                how = decided(version)
                if how:
                    with get_client(sync_client=True) as client:
                        client.resume_flow_run(flow_run, run_input=how)
                    return
            except Exception as error:  # a store or server that is away for a while: the next look may find it
                log.warning("cannot look for an answer: %s", error)

    watcher = threading.Thread(target=watch, name="review-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join(POLL_SECONDS)


def decided(version: Version) -> dict[str, str] | None:
    """Return how a version was decided other than by the form, as the form's answer; None while it
    waits.
    """
    client = mlflow_store.client()
    with aliases.one_at_a_time(version.name):
        manual_promotion.notice(client, version.name)
        now = registry.numbered(client, version.name, version.number).tags
    if now.get("review") == "pending":
        return None
    decision = "approve" if now.get("review") == "approved" else "reject"
    reason, who = now.get("review_reason") or "judged anew", now.get("review_by") or "the gate"
    return {"decision": decision, "reason": reason, "who": who}


def registered_name() -> str:
    """Return `promote.name` of params.yaml. Raises ParamsError."""
    name = (params.read_yaml(params.PARAMS_FILE).get("promote") or {}).get("name")
    if not name:
        raise ParamsError("missing key 'promote.name'", where=params.PARAMS_FILE)
    return str(name)


def approve(version: Number, reason: Why = "approved by command", anyway: Anyway = False) -> None:
    """Make a version that passed the gate champion; one that was rejected or rolled back asks
    first.
    """

    def ask(what: str) -> bool:
        return anyway or (sys.stdin.isatty() and typer.confirm(f"{what}\nMake it champion all the same?"))

    client, name = mlflow_store.client(), registered_name()
    told = [str(one) for one in votes.of(registry.numbered(client, name, version))]
    for one in told or ["nobody has compared it with the champion side by side (/annotate)"]:
        log.info("version %s: %s", version, one)
    logs.report(aliases.approve(client, name, version, reason, ask=ask))


def reject(version: Number, reason: Why = "rejected by command") -> None:
    """Record that a version is not wanted; it is not judged again."""
    logs.report(aliases.reject(mlflow_store.client(), registered_name(), version, reason))


def rollback(reason: Why = "rolled back by command") -> None:
    """Make the champion before this one champion again; the chat follows within seconds."""
    done = aliases.rollback(mlflow_store.client(), registered_name(), reason)
    logs.report(done)
    if not done.startswith("nothing to do"):
        last = promotion_history.read()[-1]
        notices.send(f"{done} ({last['time']})", done, f"{reason} ({last['who']})")


def challenge(version: Number) -> None:
    """Have a version that passed the gate tried in traffic, beside the champion."""
    logs.report(traffic.challenge(mlflow_store.client(), registered_name(), version))


def review() -> None:
    """Start the review as a flow run and wait for its answer in Prefect's page."""
    print(f"lathe: answer at {server.ui_url(server.ensure())} (Runs, review, Resume)", file=sys.stderr)
    libraries.without_run_log()
    logs.report(str(wait_for_review()))


if __name__ == "__main__":
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "release")
    process.run(command, approve, reject, rollback, challenge, review, again="python -m flows.release")
