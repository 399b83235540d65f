"""The gate: which candidate is best, whether it becomes champion, and why, as pure functions of reports."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.common import params
from stages.common.errors import DataError
from stages.common.registry import Version


class Evaluation(BaseModel):
    """What `evaluate` wrote about one candidate."""

    model_config = ConfigDict(frozen=True)

    candidate: str
    model: Path
    weights_sha256: str
    questions_sha256: str
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]


class Decision(BaseModel):
    """Whether the candidate becomes champion, and why, with the numbers."""

    promoted: bool
    reason: str

    @property
    def verdict(self) -> str:
        """The decision as a word."""
        return "promoted" if self.promoted else "refused"


def read(folder: Path) -> list[Evaluation]:
    """Return every candidate's evaluation, in name order. Raises DataError for none, or a malformed one."""
    found = []
    for file in sorted(folder.glob("*/metrics.json")):
        try:
            found.append(Evaluation.model_validate_json(file.read_text(encoding="utf-8")))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise DataError(f"{place}: {first['msg']}", where=file, remedy="run `dvc repro -f evaluate`") from error
    if not found:
        raise DataError("no */metrics.json here", where=folder, remedy="run `dvc repro evaluate`")
    return found


def choose(evaluations: list[Evaluation], metric: str, base: str) -> tuple[Evaluation, Evaluation]:
    """Return the best candidate that is not the base, and the base.

    Raises DataError when one was not evaluated, or an evaluation lacks the metric.
    """
    for evaluation in evaluations:
        if metric not in evaluation.metrics:
            known = ", ".join(sorted(evaluation.metrics)) or "none"
            what = f"{evaluation.candidate} has no metric '{metric}'; there are: {known}"
            raise DataError(what, where=params.PARAMS_FILE, remedy="set promote.metric to one of these")
    bases = [evaluation for evaluation in evaluations if evaluation.candidate == base]
    others = [evaluation for evaluation in evaluations if evaluation.candidate != base]
    if not bases or not others:
        names = ", ".join(evaluation.candidate for evaluation in evaluations)
        what = f"needs the base '{base}' and another candidate; evaluated are: {names}"
        raise DataError(what, where=params.PARAMS_FILE, remedy="set promote.base, or evaluate more in dvc.yaml")
    sign = -1 if lower_is_better(metric) else 1
    return max(others, key=lambda evaluation: sign * evaluation.metrics[metric]), bases[0]


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of `metric` is the better one."""
    return metric.startswith("perplexity/")


def better(value: float, than: float, metric: str) -> bool:
    """Whether `value` is strictly better than another of the same metric."""
    return value < than if lower_is_better(metric) else value > than


def decide(best: Evaluation, base: Evaluation, champion: Version | None, metric: str) -> Decision:
    """Return the decision: strictly better than the base, and than the champion on the same questions.

    A champion that was asked other questions, or not measured by `metric`, cannot be compared and does not hold a
    candidate back; the reason says so. Weights that are champion already keep the reason they were promoted for.
    """
    value, bar = best.metrics[metric], base.metrics[metric]
    if champion and champion.tags.get("weights_sha256") == best.weights_sha256:
        return Decision(promoted=True, reason=champion.tags.get("promoted_because", "it was made champion by hand"))
    if not better(value, bar, metric):
        return Decision(promoted=False, reason=f"{metric} {value:.6g} does not beat the base's {bar:.6g}")
    beaten = f"{metric} {value:.6g} beats the base's {bar:.6g}"
    if champion is None:
        return Decision(promoted=True, reason=f"{beaten}; there was no champion")
    held = json.loads(champion.tags.get("metrics", "{}")).get(metric)
    if held is None:
        return Decision(promoted=True, reason=f"{beaten}; the champion was not measured by this metric")
    if champion.tags.get("questions_sha256") != best.questions_sha256:
        return Decision(promoted=True, reason=f"{beaten}; the champion was asked other questions")
    if not better(value, held, metric):
        return Decision(promoted=False, reason=f"{metric} {value:.6g} does not beat the champion's {held:.6g}")
    return Decision(promoted=True, reason=f"{beaten} and the champion's {held:.6g}")
