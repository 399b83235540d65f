"""Where a stage's run is to be seen in MLflow."""

import os

from stages.common import lineage, store
from stages.common.errors import TryAgainError
from stages.common.journal import log


def mlflow_run(stage: str, flow_run: str) -> str:
    """Return the page of the run that `stage` made in this flow run; nothing when the store has none or is away."""
    address = store.uri()
    if address.startswith("sqlite") and not store.DATABASE.exists():
        return ""
    try:
        client = store.client()
        with store.answers():
            experiment = client.get_experiment_by_name(lineage.project())
            if experiment is None:
                return ""
            wanted = f"tags.flow_run = '{flow_run}' and attributes.run_name = '{stage}'"
            newest = ["attributes.start_time DESC"]
            runs = client.search_runs([experiment.experiment_id], wanted, max_results=1, order_by=newest)
    except TryAgainError as error:
        log.warning("no link to MLflow: %s", error)
        return ""
    page = address if address.startswith("http") else f"http://127.0.0.1:{os.environ.get('MLFLOW_PORT', '5000')}"
    return f"{page}/#/experiments/{experiment.experiment_id}/runs/{runs[0].info.run_id}" if runs else ""
