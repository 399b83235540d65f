"""Where a datatrove pipeline runs: processes on this machine, a Ray cluster, or Slurm; the same
pipeline, the same out.

`LATHE_DATATROVE` names a file of infra/datatrove. Whoever runs a task marks it as completed in the
work folder, so a killed run goes on with the tasks that are left.
"""

import multiprocessing
import os
import subprocess
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.core import params
from stages.common.runtime import errors
from stages.common.runtime.errors import ParamsError, StageError
from stages.common.runtime.logs import log

if TYPE_CHECKING:
    from datatrove.executor.base import PipelineExecutor
    from datatrove.pipeline.base import PipelineStep

VARIABLE = "LATHE_DATATROVE"
DEFAULT = Path(__file__).parents[3] / "infra/datatrove/local.yaml"


class Executor:
    """Runs pipelines one after the other; a context manager, because local workers are kept between
    pipelines.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or Path(os.environ.get(VARIABLE, DEFAULT))
        self.settings = params.plain(params.read_yaml(self.file))
        self.kind = self.settings.pop("executor", "")
        if self.kind not in ("local", "ray", "slurm"):
            raise ParamsError(f"executor: {self.kind!r} is none of local, ray, slurm", where=self.file)
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.pool is not None:
            if kind is not None:
                _end_workers()
            self.pool.shutdown(cancel_futures=True)

    def run(self, pipeline: "list[PipelineStep]", tasks: int, work: Path) -> None:
        """Run `pipeline` as `tasks` tasks; logs, statistics and completions go to `work`.

        Raises what a task raised (local), or StageError naming the tasks that did not end well.
        """
        if (work / "completions").exists() and len(list((work / "completions").iterdir())) == tasks:
            return
        getattr(self, f"_{self.kind}")(pipeline, tasks, work)

    def _local(self, pipeline: "list[PipelineStep]", tasks: int, work: Path) -> None:
        from datatrove.executor import LocalPipelineExecutor

        job = LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(work))
        ranks = job.get_incomplete_ranks()
        workers, started = min(self._workers(), len(ranks)), time.monotonic()
        if workers == 1:
            for done, rank in enumerate(ranks, 1):
                _task((job, rank))
                _tell(work, done, len(ranks), started)
            return
        if self.pool is None:
            context = multiprocessing.get_context("forkserver")
            self.pool = ProcessPoolExecutor(self._workers(), context, initializer=_end_with_stage)
        futures = [self.pool.submit(_task, (job, rank)) for rank in ranks]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                _tell(work, done, len(ranks), started)
        except BrokenProcessPool as error:
            what, remedy = "a worker was killed, most likely for want of memory", "lower workers and run it again"
            raise StageError(what, where=self.file, remedy=remedy) from error

    def _workers(self) -> int:
        wanted = int(self.settings.get("workers", -1))
        return wanted if wanted > 0 else os.cpu_count() or 1

    def _ray(self, pipeline: "list[PipelineStep]", tasks: int, work: Path) -> None:
        try:
            import ray
        except ImportError as error:
            raise StageError("Ray is not installed", where=self.file, remedy="make env EXTRAS=dev,ray") from error
        from datatrove.executor import RayPipelineExecutor

        if not ray.is_initialized():
            ray.init(
                log_to_driver=False, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": os.getcwd()}}
            )
        self._finish(
            RayPipelineExecutor(pipeline, tasks=tasks, logging_dir=str(work.absolute()), **self.settings), work
        )

    def _slurm(self, pipeline: "list[PipelineStep]", tasks: int, work: Path) -> None:
        from datatrove.executor import SlurmPipelineExecutor

        job = SlurmPipelineExecutor(
            pipeline, tasks=tasks, logging_dir=str(work.absolute()), job_name=work.name, **self.settings
        )
        try:
            self._finish(job, work)
        except FileNotFoundError as error:
            raise StageError("there is no sbatch here", where=self.file, remedy="run on a login node") from error
        except subprocess.CalledProcessError as error:
            raise StageError(f"sbatch ended with {error.returncode}", where=work / "slurm_logs") from error

    def _finish(self, job: "PipelineExecutor", work: Path) -> None:
        job.run()
        missing = job.get_incomplete_ranks()
        if missing:
            names = ", ".join(map(str, missing[:10]))
            raise StageError(f"{len(missing)} tasks did not end well ({names})", where=work / "logs")


def _tell(work: Path, done: int, tasks: int, started: float) -> None:
    left = (time.monotonic() - started) / done * (tasks - done)
    if tasks > 1:
        log.info("%s: %d of %d tasks, %.0f s left", work.name, done, tasks, left)


def _end_workers() -> None:
    """End the local workers where they are: what their tasks have not completed is done again."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "forkserver" in " ".join(child.cmdline()):
                child.terminate()


def _end_with_stage() -> None:
    """End this worker as soon as the stage's process is gone, however that ended.

    The kernel tells a worker of its own parent's death, but that is the fork server, which lives as
    long as a worker does.
    """
    stage = multiprocessing.parent_process()
    assert stage is not None

    def watch() -> None:
        stage.join()
        os._exit(errors.EXIT_STOPPED)

    threading.Thread(target=watch, name="stage", daemon=True).start()


def _task(work: "tuple[PipelineExecutor, int]") -> None:
    """Run one task here. datatrove's own lines go to the task's log and not to the terminal."""
    from copy import deepcopy

    job, rank = work
    mine = deepcopy(job)  # steps keep state, and in one process several tasks follow each other
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        mine._run_for_rank(rank)
