"""The life of a trainer, the same for every method: resume exactly, train, save whole, stop on
request, tell how far.

A stage builds a trainer with `resumable.Resumable` among its bases and calls `fit`.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import checkpoints
from stages.common.memory import preflight
from stages.common.runtime import disk_space, process
from stages.common.runtime.errors import StopRequested
from stages.common.tracking import session, shared_checkpoints
from stages.common.training import data_order, kept_models
from stages.common.training.fit_params import FitParams

if TYPE_CHECKING:
    from stages.common.tracking.run import Run

log = logging.getLogger("lathe")


@contextmanager
def start(
    stage: str, settings: FitParams, inputs: dict[str, Path], others: dict[str, dict[str, Any]] | None = None
) -> Iterator[tuple["Run", str]]:
    """Track the body as the stage's run; give the run, and the fingerprint its checkpoints are kept
    under. `others` are sections of params that shape the training besides the stage's own.

    Where checkpoints are shared, the remote's newest is here then.
    """
    sections = {stage: settings.model_dump()} | (others or {})
    fingerprint = checkpoints.fingerprint(stage, sections, inputs)
    shared_checkpoints.fetch(checkpoints.ROOT / stage / fingerprint)
    with session.start(stage, params=sections, inputs=inputs, fingerprint=fingerprint) as run:
        yield run, fingerprint


def fit(trainer: Any, settings: FitParams, run: "Run", stage: str) -> list[Path]:
    """Train to the end, from the newest whole checkpoint if there is one; return the kept epochs'
    model folders.

    Raises OutOfMemoryError and TryAgainError before the first step when it would not fit into
    memory or its checkpoint onto the disk, AlreadyRunningError when another process trains the
    same, ParamsError when its checkpoints are of processes that shared its state otherwise,
    StopRequested after saving when SIGTERM arrives, and DataError as soon as the loss is not
    a number.
    """
    from transformers import PrinterCallback
    from transformers.utils import logging as transformers_logging

    from stages.common.training.callbacks import Life

    transformers_logging.disable_progress_bar()
    trainer.remove_callback(PrinterCallback)
    folder = Path(trainer.args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    trainer.add_callback(Life(trainer, settings, run, stage))
    with checkpoints.held(folder):
        start = checkpoints.newest(folder, trainer.examine)
        if start and trainer.finished(start):
            log.info("%s is the end of this very training; to train anew: rm -r %s", start, folder)
        else:
            if start:
                data_order.check(start, trainer)
                log.info("resuming from %s", start)
            elif others := checkpoints.others(folder):
                log.info("starting anew: %d in %s are of other params, data or code", len(others), folder.parent)
            preflight.check(trainer, settings, stage)
            disk_space.check(folder, checkpoints.next_size(folder, trainer.model))
            trainer.sender = shared_checkpoints.sender(folder)
            with process.graceful_stop():
                try:
                    trainer.train(resume_from_checkpoint=str(start) if start else None)
                finally:
                    trainer.sealed()
                    if trainer.sender is not None:
                        trainer.sender.finish()
            if process.stop_requested():
                raise StopRequested
    if trainer.is_deepspeed_enabled:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()  # under ZeRO-3 a model that one process loads would wait for the others
    return kept_models.kept_epochs(folder)
