"""The page of MLflow that shows how a stage's present outs came about: that of the run that made
them, in this flow or in an earlier one.
"""

import threading
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from stages.common.core import params
from stages.common.runtime.environment import checkout
from stages.common.runtime.errors import StageError
from stages.common.runtime.logs import log
from stages.common.tracking import lineage, mlflow_store
from stages.common.tracking.run import flatten

MOST_RUNS = 1000
"""As many of the newest runs are looked at."""


class Pages:
    """Finds the pages of a flow's stages; the store is asked once for those that were not run."""

    def __init__(self, flow_run: str) -> None:
        self._flow_run = flow_run
        self._lock = threading.Lock()

    def of(self, stage: str, *, anew: bool) -> str:
        """Return the page of the run that made the stage's outs, `anew` in this flow; nothing where
        the store has none or is away.
        """
        if mlflow_store.uri().startswith("sqlite") and not (checkout() / mlflow_store.DATABASE).exists():
            return ""
        try:
            with mlflow_store.answers():
                return self._of_this_flow(stage) if anew else self._of_before(stage)
        except StageError as error:
            log.warning("no link to MLflow: %s", error)
            return ""

    def _of_this_flow(self, stage: str) -> str:
        wanted = f"tags.flow_run = '{self._flow_run}' and attributes.run_name = '{stage}'"
        return next((_page(run) for run in _newest(wanted, 1)), "")

    def _of_before(self, stage: str) -> str:
        with self._lock:
            runs, (hashes, given) = self._finished.get(stage, []), self._present
        section = stage.partition("@")[0]
        wanted = flatten({section: given.get(section) or {}})
        return next((_page(run) for run in runs if made_what_is_there(run, hashes, wanted)), "")

    @cached_property
    def _present(self) -> tuple[set[str], dict[str, Any]]:
        """What dvc.lock and params.yaml hold."""
        return lineage.known_hashes(), params.plain(params.read_yaml(params.PARAMS_FILE))

    @cached_property
    def _finished(self) -> Mapping[str, list[Any]]:
        """The newest finished runs by stage, newest first."""
        found: dict[str, list[Any]] = {}
        for run in _newest("attributes.status = 'FINISHED'", MOST_RUNS):
            found.setdefault(run.info.run_name, []).append(run)
        return found


def of_project(connected: "mlflow_store.MlflowClient") -> str:
    """Return MLflow's page of this project's runs, with the columns that matter; "" with none."""
    found = connected.get_experiment_by_name(lineage.project())
    shared = f"&viewStateShareKey={mlflow_store.VIEW}"
    return mlflow_store.page(f"experiments/{found.experiment_id}/runs") + shared if found else ""


def made_what_is_there(run: Any, hashes: set[str], given: Mapping[str, str]) -> bool:
    """Whether a run read only data of these hashes, and worked by the params given."""
    read = {tag.value for one in run.inputs.dataset_inputs for tag in one.tags if tag.key == "dvc_hash"}
    known = run.data.params
    return read - {lineage.UNKNOWN} <= hashes and all(_alike(known.get(key, text), text) for key, text in given.items())


def _alike(one: str, other: str) -> bool:
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False


def _newest(wanted: str, most: int) -> Iterator[Any]:
    connected = mlflow_store.client()
    experiment = connected.get_experiment_by_name(lineage.project())
    if experiment is not None:
        ids, newest = [experiment.experiment_id], ["attributes.start_time DESC"]
        yield from connected.search_runs(ids, wanted, max_results=most, order_by=newest)


def _page(run: Any) -> str:
    return mlflow_store.page(f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}")
