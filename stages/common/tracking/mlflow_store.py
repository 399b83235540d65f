"""The MLflow store: `mlflow.db` in the working tree with its files in `mlartifacts/`;
MLFLOW_TRACKING_URI overrides.
"""

import json
import logging
import os
import re
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from stages.common.runtime import locks
from stages.common.runtime.environment import checkout
from stages.common.runtime.errors import ParamsError, StageError, TryAgainError
from stages.common.runtime.logs import log
from stages.common.tracking import lineage

if TYPE_CHECKING:
    from mlflow import MlflowClient as MlflowClient  # for the annotations of those who may not import mlflow

DATABASE, ARTIFACTS = Path("mlflow.db"), Path("mlartifacts")
ENVIRONMENT = {  # a server that is away must show at once (our thread tries again), its address not in the output
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
NOTHING_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow says where there is no such model, and where a model has no such alias."""
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""What makes MLflow's page open an experiment on its runs, as does ML in a link."""
ML = "?workflowType=machine_learning"
"""What opens MLflow's pages on runs and models; without it they open on traces and prompts."""
NAME = str.maketrans(dict.fromkeys("/:.%\"'", "-"))  # what MLflow does not take in a model's name

VIEW = "lathe"
"""The view of an experiment's runs that its address can name: which columns they are shown with."""
COLUMNS = (
    "accuracy/iid",
    "refusal/false",
    "unsure/false",
    "reward",
    "perplexity/documents",
    "perplexity/conversations",
    "eval_loss",
    "tokens_per_second",
)
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
"""Tables and columns in which MLflow keeps where files lie, with the whole path."""

T = TypeVar("T")
_environment = threading.Lock()


def client() -> "MlflowClient":
    """Return a client of the store, its schema migrated by one process at a time.

    Raises TryAgainError when the store does not answer.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    address = uri()
    _make_global(address)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    alone = locks.waiting(checkout() / locks.FOLDER / "mlflow.lock")  # two that migrate a fresh one break it
    with answers(), alone if address.startswith("sqlite") else nullcontext():
        connected = MlflowClient(address, registry_uri=address)
        connected.get_experiment_by_name("Default")
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            _follow_a_move()
    return connected


def _follow_a_move() -> None:
    """Where the working tree was moved or copied with its store, let the store's places begin with
    where it lies now: MLflow would read from, and write to, where it lay before.
    """
    with closing(sqlite3.connect(checkout() / DATABASE, timeout=60)) as database:
        named = "SELECT artifact_location FROM experiments WHERE name = ?"
        (location,) = database.execute(named, [lineage.project()]).fetchone() or ("",)
        now, parts = (checkout() / ARTIFACTS).absolute(), urlsplit(location)
        before = Path(url2pathname(parts.path) if parts.scheme else location)
        if parts.scheme not in ("", "file") or before.name != now.name or before == now or not now.is_dir():
            return
        moves = [(before.parent.as_uri(), now.parent.as_uri()), (str(before.parent), str(now.parent))]
        with database:
            for table, column in PLACES:
                for old, new in moves:
                    database.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                        [new, len(old) + 1, len(old) + 1, f"{old}/"],
                    )
    log.info("this tree lay in %s: the places in %s now begin with %s", before.parent, DATABASE, now.parent)


def _make_global(address: str) -> None:
    """Tell MLflow the address: its SQL registry resolves models:/ with a client of its own.

    MLflow also writes it to the environment, where it would outlive a change of the working folder:
    that is undone.
    """
    import mlflow

    with _environment:
        given = os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(address)
        if given is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        else:
            os.environ["MLFLOW_TRACKING_URI"] = given


def uri() -> str:
    """Return MLFLOW_TRACKING_URI, or the database in the checkout."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(checkout() / DATABASE).absolute()}"


def shown(text: str = "") -> str:
    """Return `text`, or the store's address, without the password that an address may carry."""
    return re.sub(r"//[^/@\s]*@", "//", text or uri())


@contextmanager
def answers() -> Iterator[None]:
    """Turn whatever the store raises inside into a TryAgainError that names the store, or into a
    ParamsError where it knows us not.
    """
    try:
        yield
    except StageError:
        raise
    except Exception as error:  # MlflowException, SQLAlchemy's, requests', botocore's: all mean the same to a user
        first = shown((str(error).splitlines() or [type(error).__name__])[0][:300])
        if _status(error) in (401, 403):
            remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or ask for the permission"
            raise ParamsError(f"the MLflow store lets us not in: {first}", where=shown(), remedy=remedy) from error
        remedy = "start the store, or set MLFLOW_TRACKING_URI"
        if "out-of-date database schema" in str(error) or "Can't locate revision" in str(error):
            remedy = f"it is of another MLflow's version: copy it, then `mlflow db upgrade {shown()}`, or install that"
        raise TryAgainError(f"the MLflow store fails: {first}", where=shown(), remedy=remedy) from error


def _status(error: Exception) -> int:
    """Return the HTTP status that an error of MLflow's came with, 0 where there is none."""
    ask = getattr(error, "get_http_status_code", None)
    code = int(ask()) if ask else 0
    found = re.search(r"failed with error code (\d{3})", str(error))  # a page instead of MLflow's own answer
    return int(found[1]) if found else code


def or_none(ask: Callable[[], T]) -> T | None:
    """Return what `ask` finds, or None where MLflow says that there is no such thing."""
    from mlflow import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code in NOTHING_THERE and "not found" in str(error):  # the second code has other causes too
            return None
        raise


def experiment_id(connected: "MlflowClient", name: str) -> str:
    """Return the id of experiment `name`, made on first use."""
    found, tag = connected.get_experiment_by_name(name), f"mlflow.sharedViewState.{VIEW}"
    known = str(found.experiment_id) if found else _made(connected, name)
    if found is None or tag not in found.tags:
        connected.set_experiment_tag(known, tag, json.dumps(view()))
    return known


def view() -> dict[str, object]:
    """Return the state of MLflow's page that shows the columns that matter, newest run first."""
    columns = ["attributes.`Duration`", *(f"metrics.`{name}`" for name in COLUMNS)]
    return {"selectedColumns": columns, "orderByKey": "attributes.start_time", "orderByAsc": False}


def _made(connected: "MlflowClient", name: str) -> str:
    from mlflow import MlflowException

    # a server chooses the place of its artifacts itself
    place = None if uri().startswith(("http:", "https:")) else (checkout() / ARTIFACTS).absolute().as_uri()
    try:
        return str(connected.create_experiment(name, artifact_location=place, tags=KIND))
    except MlflowException as error:
        made_meanwhile = connected.get_experiment_by_name(name)
        if made_meanwhile is None:
            raise error
        return str(made_meanwhile.experiment_id)


def page(path: str = "") -> str:
    """Return the address of a page of MLflow's: `experiments/3/runs/…`."""
    address = uri()
    server = address if address.startswith("http") else f"http://127.0.0.1:{os.environ.get('MLFLOW_PORT', '5000')}"
    return f"{shown(server).rstrip('/')}/#/{path}{ML}"


def listed(location: str) -> list[str]:
    """Return the names of the files directly at a remote location."""
    from mlflow.artifacts import list_artifacts

    return [Path(one.path).name for one in list_artifacts(artifact_uri=location, tracking_uri=uri())]


def download(location: str, folder: Path) -> None:
    """Copy the artifacts at a remote location to `folder`, which is there whole or not at all."""
    from mlflow.artifacts import download_artifacts

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as scratch:
        fetched = download_artifacts(artifact_uri=location, dst_path=scratch, tracking_uri=uri())
        Path(fetched).rename(folder)
