"""A run as its stage sees it: each call becomes one event in the local spool, in microseconds."""

import getpass
import json
import os
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.runtime.logs import log
from stages.common.tracking import event_log, lineage
from stages.common.tracking.event_log import Spool

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SYSTEM_SECONDS = 5.0
MEBIBYTE = 2**20
PARAMETER_NAME = re.compile(r"[\w.: /-]+")
"""What MLflow takes as a part of a parameter's name."""


class Run:
    """The run of one stage execution; without a spool (ranks other than 0) every call does
    nothing.
    """

    def __init__(self, spool: Spool | None) -> None:
        self._spool = spool
        self._tables: list[dict[str, str]] = []
        self._warned = False

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers at `step`; names may hold letters, digits, `_ - . / :` and spaces."""
        self._append("metrics", step=int(step), values={name: float(value) for name, value in values.items()})

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags, as text."""
        self._append("tags", values={name: str(value) for name, value in values.items()})

    def figure(self, name: str, figure: "Figure") -> None:
        """Keep a matplotlib figure as `figures/<name>.png`."""
        self._keep(f"{name}.png", "figures", lambda path: figure.savefig(path, dpi=120, bbox_inches="tight"))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep rows as `tables/<name>.json`, in the form that MLflow's page shows as a table."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        table = {"columns": columns, "data": [[row.get(column) for column in columns] for row in rows]}
        text = json.dumps(table, ensure_ascii=False, default=str)
        self._keep(f"{name}.json", "tables", lambda path: path.write_text(text, encoding="utf-8"))
        self._tables.append({"path": f"tables/{name}.json", "type": "table"})
        self.tags({"mlflow.loggedArtifacts": json.dumps(self._tables)})

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file, or of a folder's files, under `folder` of the run's artifacts."""
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                inside = file.parent.relative_to(path.parent).as_posix() if path.is_dir() else ""
                place = "/".join(part for part in (folder, inside) if part)
                self._keep(file.name, place, partial(shutil.copyfile, file))

    def checkpoint(self, name: str, path: Path, step: int, metrics: Mapping[str, float], sha256: str) -> None:
        """Record a kept checkpoint: where it is, its step, its metrics and the SHA-256 of its
        weights.
        """
        values = {key: float(value) for key, value in metrics.items()}
        self._append("checkpoint", name=name, path=Path(path).as_posix(), step=int(step), values=values, sha256=sha256)

    def close(self, status: str, tags: Mapping[str, str]) -> None:
        """Write the last event."""
        self._append("end", status=status, values=dict(tags))

    def _keep(self, name: str, folder: str, write: Callable[[Path], object]) -> None:
        if self._spool is None:
            return
        try:
            file = self._spool.new_file(name)
            write(file)
        except OSError as error:
            self._warn(error)
            return
        self._append("file", file=file.relative_to(self._spool.files).as_posix(), folder=folder)

    def _append(self, kind: str, **fields: Any) -> None:
        if self._spool is None:
            return
        try:
            self._spool.append(kind, time=int(time.time() * 1000), **fields)
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        """A full disk stops the stage where it saves its work, not where it counts its steps."""
        if not self._warned:
            log.warning("tracking misses events: cannot write the spool: %s", error)
        self._warned = True


def begin(stage: str, sections: Mapping[str, Any], inputs: Mapping[str, Path], fingerprint: str) -> Spool | None:
    """Return a spool that holds the run's first event, or nothing (and a warning) when it cannot be
    written.
    """
    name = os.environ.get("DVC_STAGE", stage)
    places = {
        key: {"path": Path(path).as_posix(), "hash": lineage.content_hash(Path(path))} for key, path in inputs.items()
    }
    try:
        events = event_log.create()
        events.append(
            "start",
            time=int(time.time() * 1000),
            name=name,
            experiment=lineage.project(),
            tags=_identity(stage, fingerprint),
            params=flatten(sections),
            inputs=places,
        )
    except OSError as error:
        log.warning("this run is not tracked: cannot write the spool: %s", error)
        return None
    return events


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested mappings as `section.key.key: text`; lists become JSON, and so does a mapping
    with a key, such as a pattern of files, that is no name of a parameter to MLflow.
    """
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and not all(PARAMETER_NAME.fullmatch(str(name)) for name in value):
            flat[f"{prefix}{key}"] = json.dumps(value, default=str)
        elif isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.dumps(value, default=str) if isinstance(value, list | tuple) else str(value)
    return flat


def _identity(stage: str, fingerprint: str) -> dict[str, str]:
    """Return the tags that say what ran, where and from which state."""
    commit = lineage.commit()
    tags = {
        "stage": stage,
        "fingerprint": fingerprint,
        "dag": lineage.dag(),
        "git_commit": commit,
        "git_dirty": str(lineage.is_dirty()).lower(),
        "flow_run": os.environ.get("PREFECT__FLOW_RUN_ID") or os.environ.get("LATHE_FLOW_RUN_ID", ""),
        "dvc_experiment": os.environ.get("DVC_EXP_NAME", ""),
        "host": socket.gethostname(),
        "launcher": lineage.run_section().get("launcher", "python"),
        "mlflow.user": getpass.getuser(),
        "mlflow.source.name": f"python -m stages.{stage}",
        "mlflow.source.git.commit": commit if commit != lineage.UNKNOWN else "",
    }
    return {key: value for key, value in tags.items() if value}


def watch_system(run: Run, closed: threading.Event) -> None:
    """Log processor, memory and GPU use every SYSTEM_SECONDS until `closed` is set."""
    import psutil

    process, step = psutil.Process(), 0
    psutil.cpu_percent()  # the first call only sets the start of the interval
    while not closed.wait(SYSTEM_SECONDS):
        memory = psutil.virtual_memory()
        values = {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_percentage": memory.percent,
            "system/process_memory_usage_megabytes": process.memory_info().rss / MEBIBYTE,
        }
        torch = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized():
            values["system/gpu_memory_usage_megabytes"] = torch.cuda.memory_reserved() / MEBIBYTE
        run.metrics(values, step=step)
        step += 1
