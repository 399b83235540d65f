"""Tasks of lm-evaluation-harness (EleutherAI, extra `eval`), asked with our model and tokenizer,
into our report.

Metrics are named `lm_eval/<task>/<metric>`, with the answers' filter behind it where a task has
one.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.common.core.params import PARAMS_FILE
from stages.common.evaluation.generate_answers import Candidate
from stages.common.evaluation.metrics import TASKS, Report
from stages.common.runtime.errors import DataError, ParamsError

QUANTILE = 1.959964
"""Standard errors to either side that hold 95 % of a normal distribution."""
BOOTSTRAPS = 1_000
"""Resamples for metrics whose standard error has no formula."""
NO_FILTER = "none"


def run(report: Report, candidate: Candidate, tasks: Sequence[str], folder: Path | None) -> None:
    """Ask the tasks, if any, and add their metrics with 95 % intervals; task files in `folder` go
    before the library's.

    A chat is asked through its template. Raises ParamsError without the library or for a task that
    it does not know, DataError for a task that fails: without a network, one whose data is not on
    this machine.
    """
    if not tasks:
        return
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        what = f"'evaluate.lm_eval' needs a package that is missing: {error.name}"
        raise ParamsError(what, where=PARAMS_FILE, remedy="pip install -e '.[eval]', or set it to []") from error
    known = TaskManager(include_path=str(folder) if folder else None)
    for task in tasks:
        if not known.match_tasks([task]):
            what = f"'evaluate.lm_eval': no task '{task}'"
            raise ParamsError(what, where=PARAMS_FILE, remedy="see `lm-eval ls tasks`, or add its file to data/tasks")
    given = {"pretrained": candidate.policy, "tokenizer": candidate.tokenizer, "batch_size": candidate.batch_size}
    model = HFLM(backend="causal", **given)
    try:
        found = lm_eval.simple_evaluate(
            model=model,
            tasks=list(tasks),
            task_manager=known,
            apply_chat_template=candidate.prompt == "chat",
            bootstrap_iters=BOOTSTRAPS,
            log_samples=False,
        )
    except Exception as error:  # whatever a task's own code or its data set's loader raises
        what = f"lm_eval: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise DataError(what, where=", ".join(tasks), remedy="its data must be on this machine") from error
    add(report, found or {})


def add(report: Report, found: Mapping[str, Any]) -> None:
    """Add what the library measured (`results` and `n-samples` of its answer)."""
    for task, values in found.get("results", {}).items():
        count = int(found.get("n-samples", {}).get(task, {}).get("effective", 0))
        for name, value, error in measured(values):
            half = QUANTILE * error if error is not None else None
            report.add(f"{TASKS}{task}/{name}", value, None if half is None else (value - half, value + half), count)


def measured(values: Mapping[str, Any]) -> Iterator[tuple[str, float, float | None]]:
    """Yield (metric, value, standard error or None) of one task's results: `acc,none`,
    `acc_stderr,none`, …
    """
    for key, value in values.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or not _is_number(value):
            continue
        error = values.get(f"{metric}_stderr,{kind}")
        name = metric if kind == NO_FILTER else f"{metric}/{kind}"
        yield name, float(value), float(error) if error is not None and _is_number(error) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
