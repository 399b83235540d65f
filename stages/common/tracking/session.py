"""One execution of a stage, tracked as one run of MLflow.

Every event goes to a local file first, a background thread sends it on. The store is `mlflow.db` in
the working tree with its files in `mlartifacts/`; MLFLOW_TRACKING_URI overrides.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.common.runtime import process
from stages.common.runtime.errors import StopRequested
from stages.common.tracking.forwarder import Forwarder
from stages.common.tracking.mlflow_sender import Sender
from stages.common.tracking.run import Run, begin, watch_system

CLOSE_SECONDS, STOP_SECONDS = 30.0, 8.0


@contextmanager
def start(
    stage: str,
    *,
    params: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Path] | None = None,
    fingerprint: str = "",
) -> Iterator[Run]:
    """Track the body as one run named after the stage; an exception marks it FAILED, a stop request
    KILLED.

    `params` are sections of params.yaml, `inputs` the data it reads. Ranks other than 0 track
    nothing.
    """
    events = begin(stage, params or {}, inputs or {}, fingerprint) if process.is_main_process() else None
    run = Run(events)
    if events is None:
        yield run
        return
    forwarder, closed = Forwarder(events, Sender), threading.Event()
    forwarder.start()
    watcher = threading.Thread(target=watch_system, args=(run, closed), name="system-metrics", daemon=True)
    watcher.start()
    status, tags = "FINISHED", {}
    try:
        yield run
    except BaseException as error:
        status = "KILLED" if isinstance(error, StopRequested) else "FAILED"
        tags = {"error": f"{type(error).__name__}: {error}"[:2000]}
        raise
    finally:
        closed.set()
        watcher.join(1)
        run.close(status, tags)
        forwarder.close(STOP_SECONDS if status == "KILLED" else CLOSE_SECONDS)
