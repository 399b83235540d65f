"""Evaluations made up for tests: answers and losses as `evaluate` files them."""

from pathlib import Path
from typing import Any

from stages.common.evaluation import metrics, results
from stages.common.evaluation.results import Evaluated

RIGHT, WRONG = "Paris.", "Rome."


def evaluated(
    candidate: str,
    answers: dict[str, dict[str, Any]],
    losses: dict[str, list[tuple[float, int]]] | None = None,
    *,
    prompt: str = "chat",
    weights: str = "",
    test: str = "t1",
) -> Evaluated:
    """Return an evaluation with the metrics that follow from its answers and losses."""
    report = measured(answers, losses or {}, prompt)
    return Evaluated.model_validate(
        {
            **identity(candidate, Path("models") / candidate, weights or f"weights of {candidate}", prompt, test),
            "metrics": report.metrics,
            "intervals": report.intervals,
            "counts": report.counts,
            "answers": answers,
            "losses": losses or {},
        }
    )


def measured(
    answers: dict[str, dict[str, Any]], losses: dict[str, list[tuple[float, int]]], prompt: str = "chat"
) -> metrics.Report:
    """Return the report of answers and losses."""
    report, rows = metrics.Report(), [{"language": "en"} | row for row in answers.values()]
    metrics.accuracy(report, rows)
    metrics.behaviour(report, rows, prompt)
    metrics.perplexities(report, losses)
    return report


def identity(candidate: str, model: Path, weights: str, prompt: str, test: str) -> dict[str, Any]:
    """Return what metrics.json says beside the numbers."""
    return {
        "candidate": candidate,
        "before": candidate,
        "model": model.as_posix(),
        "prompt": prompt,
        "weights_sha256": weights,
        "questions_sha256": f"questions of {test}",
        "test_sha256": test,
    }


def answers(right: int, count: int, group: str = "iid", *, wrong: str = WRONG) -> dict[str, dict[str, Any]]:
    """Return `count` answers of a group, the first `right` of them right."""
    return {
        f"{group}:{number}": {
            "id": f"{group}:{number}",
            "group": group,
            "category": "capital/en",
            "language": "en",
            "question": f"What is the capital of land {number}?",
            "reference": RIGHT,
            "answer": RIGHT if number < right else wrong,
            "correct": number < right,
        }
        for number in range(count)
    }


def losses(perplexity: float, count: int = 40, tokens: int = 10) -> dict[str, list[tuple[float, int]]]:
    """Return documents that are all read with one perplexity."""
    import math

    return {"documents": [(tokens * math.log(perplexity), tokens)] * count}


def write(folder: Path, one: Evaluated) -> None:
    """File an evaluation as `evaluate` does."""
    report = measured(one.answers, one.losses, one.prompt)
    facts = identity(one.candidate, one.model, one.weights_sha256, one.prompt, one.test_sha256)
    results.write(report, list(one.answers.values()), [], one.losses, folder / one.candidate, facts)
