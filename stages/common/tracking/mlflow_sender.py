"""What brings a run's events to the MLflow store; sending one twice leaves it there once.

Nothing MLflow raises reaches a stage: what a store that is away has missed is sent at the next
stage's start, or by
    python -m stages.common.tracking.mlflow_sender replay
"""

import json
from typing import Annotated, Literal

import typer

from stages.common.runtime import logs, process
from stages.common.runtime.logs import log
from stages.common.tracking import mlflow_store
from stages.common.tracking.event_log import Event, Spool
from stages.common.tracking.forwarder import REPLAY, replay

REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")
METRICS_PER_BATCH, PARAMS_PER_BATCH = 1000, 100


class Sender:
    """Sends events to the store; sending one twice leaves it there once."""

    def __init__(self) -> None:
        self._client = mlflow_store.client()

    def send(self, events: Spool, batch: list[Event]) -> None:
        """Send events of one kind; what the store refuses for good is named and left out, lest it
        block the rest.
        """
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
        experiment = mlflow_store.experiment_id(self._client, event["experiment"])
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
                experiment, event["name"].translate(mlflow_store.NAME), run_id, tags, about, model_type="checkpoint"
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
    with mlflow_store.answers():
        sent = replay(Sender())
    logs.report(f"{sent} runs sent to {mlflow_store.shown()}")


if __name__ == "__main__":
    process.run("tracking", main, again=REPLAY.removesuffix(" replay"))
