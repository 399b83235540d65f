"""Tracking with MLflow: every event goes to a local spool first, a background thread sends it on.

The store is `mlflow.db` in the working tree with its files in `mlartifacts/`; MLFLOW_TRACKING_URI overrides.
Nothing MLflow raises reaches a stage: what a store that is away has missed is sent at the next stage's start, or by
    python -m stages.common.tracking replay
"""

import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stages.common import process
from stages.common.errors import StageError, StopRequested, TryAgainError
from stages.common.forwarder import Forwarder, replay
from stages.common.process import log
from stages.common.run import Run, begin, watch_system
from stages.common.spool import Event, Spool

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE, ARTIFACTS = Path("mlflow.db"), Path("mlartifacts")
CLOSE_SECONDS, STOP_SECONDS = 30.0, 8.0
REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")
METRICS_PER_BATCH, PARAMS_PER_BATCH = 1000, 100
ENVIRONMENT = {  # a server that is away must show in seconds, and nobody wants its address in a stage's output
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
NAME = str.maketrans(dict.fromkeys("/:.%\"'", "-"))  # what MLflow does not take in a model's name


@contextmanager
def start(
    stage: str,
    *,
    params: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Path] | None = None,
    fingerprint: str = "",
) -> Iterator[Run]:
    """Track the body as one run named after the stage; an exception marks it FAILED, a stop request KILLED.

    `params` are sections of params.yaml, `inputs` the data it reads. Ranks other than 0 track nothing.
    """
    events = begin(stage, params or {}, inputs or {}, fingerprint) if process.is_main_process() else None
    run = Run(events)
    if events is None:
        yield run
        return
    forwarder, closed = Forwarder(events, Sender), threading.Event()
    forwarder.start()
    threading.Thread(target=watch_system, args=(run, closed), name="system-metrics", daemon=True).start()
    status, tags = "FINISHED", {}
    try:
        yield run
    except BaseException as error:
        status = "KILLED" if isinstance(error, StopRequested) else "FAILED"
        tags = {"error": f"{type(error).__name__}: {error}"[:2000]}
        raise
    finally:
        closed.set()
        run.close(status, tags)
        forwarder.close(STOP_SECONDS if status == "KILLED" else CLOSE_SECONDS)


def client() -> "MlflowClient":
    """Return a client of the store, its schema migrated by one process at a time.

    Raises TryAgainError when the store does not answer.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    uri = store_uri()
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with answers(), _one_at_a_time() if uri.startswith("sqlite") else nullcontext():
        connected = MlflowClient(uri, registry_uri=uri)
        connected.get_experiment_by_name("Default")
    return connected


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Hold a file lock: a fresh database breaks when two processes migrate it at once."""
    process.LOCKS.mkdir(parents=True, exist_ok=True)
    with (process.LOCKS / "mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def store_uri() -> str:
    """Return MLFLOW_TRACKING_URI, or the database in the working tree."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DATABASE.absolute()}"


@contextmanager
def answers() -> Iterator[None]:
    """Turn whatever the store raises inside into a TryAgainError that names the store."""
    try:
        yield
    except StageError:
        raise
    except Exception as error:  # MlflowException, SQLAlchemy's, requests', botocore's: all mean the same to a user
        first = (str(error).splitlines() or [type(error).__name__])[0]
        remedy = "start the store, or set MLFLOW_TRACKING_URI"
        raise TryAgainError(
            f"the MLflow store does not do it: {first[:300]}", where=store_uri(), remedy=remedy
        ) from error


def experiment_id(connected: "MlflowClient", name: str) -> str:
    """Return the id of experiment `name`, made on first use, by one process at a time on this machine."""
    from mlflow import MlflowException

    found = connected.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    # a server chooses the place of its artifacts itself
    place = None if store_uri().startswith(("http:", "https:")) else ARTIFACTS.absolute().as_uri()
    try:
        return str(connected.create_experiment(name, artifact_location=place))
    except MlflowException as error:
        made_meanwhile = connected.get_experiment_by_name(name)
        if made_meanwhile is None:
            raise error
        return str(made_meanwhile.experiment_id)


class Sender:
    """Sends events to the store; sending one twice leaves it there once."""

    def __init__(self) -> None:
        self._client = client()

    def send(self, events: Spool, batch: list[Event]) -> None:
        """Send events of one kind; what the store refuses for good is named and left out, lest it block the rest."""
        from mlflow import MlflowException

        if batch[0]["kind"] != "start" and "run_id" not in events.state:
            return  # the store refused the run itself, and that was said
        try:
            getattr(self, f"_send_{batch[0]['kind']}")(events, batch)
        except MlflowException as error:
            if error.error_code not in REFUSED:
                raise
            log.warning("MLflow refuses an event (%s): %s", batch[0]["kind"], error.message)

    def _send_start(self, events: Spool, batch: list[Event]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        event = batch[0]
        experiment = experiment_id(self._client, event["experiment"])
        known = self._client.search_runs([experiment], f"tags.`spool` = '{events.id}'", max_results=1)
        if known:
            run_id = known[0].info.run_id
        else:
            tags = {**event["tags"], "spool": events.id}
            run_id = self._client.create_run(experiment, event["time"], tags, event["name"]).info.run_id
        events.save_state(run_id=run_id, experiment=experiment)
        parameters = [Param(key, value) for key, value in event["params"].items()]
        for first in range(0, len(parameters), PARAMS_PER_BATCH):
            self._client.log_batch(run_id, params=parameters[first : first + PARAMS_PER_BATCH])
        for name, place in event["inputs"].items():
            source = json.dumps({"uri": place["path"]})
            dataset = Dataset(name, place["hash"][:36], source_type="local", source=source)
            marks = [InputTag("mlflow.data.context", event["name"]), InputTag("dvc_hash", place["hash"])]
            self._client.log_inputs(run_id, [DatasetInput(dataset, marks)])

    def _send_metrics(self, events: Spool, batch: list[Event], model_id: str | None = None) -> None:
        from mlflow.entities import Metric

        run_id = events.state["run_id"]
        metrics = [
            Metric(name, value, event["time"], event["step"], model_id=model_id, run_id=run_id)
            for event in batch
            for name, value in event["values"].items()
        ]
        for first in range(0, len(metrics), METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics=metrics[first : first + METRICS_PER_BATCH])

    def _send_tags(self, events: Spool, batch: list[Event]) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(key, value) for key, value in batch[0]["values"].items()]
        self._client.log_batch(events.state["run_id"], tags=tags)

    def _send_file(self, events: Spool, batch: list[Event]) -> None:
        file = events.files / batch[0]["file"]
        if not file.exists():  # sent before, in a life that ended between sending and saying so
            return
        self._client.log_artifact(events.state["run_id"], str(file), batch[0]["folder"] or None)

    def _send_checkpoint(self, events: Spool, batch: list[Event]) -> None:
        from mlflow.entities import LoggedModelOutput

        event, run_id, experiment = batch[0], events.state["run_id"], events.state["experiment"]
        key = f"{events.id}/{event['name']}/{event['step']}"
        known = self._client.search_logged_models([experiment], f"tags.`spool` = '{key}'", max_results=1)
        if known:
            model = known[0]
        else:
            about = {"sha256": event["sha256"], "path": event["path"], "step": str(event["step"])}
            tags = {**about, "spool": key, "mlflow.model.isExternal": "true"}
            model = self._client.create_logged_model(
                experiment, event["name"].translate(NAME), run_id, tags, about, model_type="checkpoint"
            )
        outputs = self._client.get_run(run_id).outputs
        if not any(output.model_id == model.model_id for output in (outputs.model_outputs if outputs else [])):
            self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, event["step"])])
        self._send_metrics(events, batch, model.model_id)
        self._client.finalize_logged_model(model.model_id, "READY")

    def _send_end(self, events: Spool, batch: list[Event]) -> None:
        if batch[0]["values"]:
            self._send_tags(events, batch)
        self._client.set_terminated(events.state["run_id"], batch[0]["status"], batch[0]["time"])


def main(action: Annotated[Literal["replay"], typer.Argument(help="send what the store has missed")]) -> None:
    """Send the spools of runs that ended while the store was away."""
    with answers():
        sent = replay(Sender())
    process.report(f"{sent} runs sent to {store_uri()}")


if __name__ == "__main__":
    process.run("tracking", main)
