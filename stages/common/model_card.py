"""The model card that a reviewer reads on the version's page."""

from stages.common import lineage
from stages.common.gate import Decision, Evaluation


def card(evaluations: list[Evaluation], best: Evaluation, decision: Decision, metric: str) -> str:
    """Return the model card, in Markdown, that a reviewer reads on the version's page."""
    low, high = best.intervals.get(metric, (best.metrics[metric], best.metrics[metric]))
    changes = " with local changes" if lineage.is_dirty() else ""
    names = sorted({name for evaluation in evaluations for name in evaluation.metrics}, key=lambda name: name != metric)
    rows = [
        f"| {name} | "
        + " | ".join(f"{evaluation.metrics.get(name, float('nan')):.4g}" for evaluation in evaluations)
        + " |"
        for name in names
    ]
    return "\n".join(
        [
            f"# {best.candidate}: {metric} {best.metrics[metric]:.4g} (95 % interval {low:.4g} to {high:.4g})",
            "",
            f"{decision.verdict}: {decision.reason}.",
            "",
            f"- Weights SHA-256 `{best.weights_sha256}`, from `{best.model.as_posix()}`",
            f"- Test questions SHA-256 `{best.questions_sha256}`",
            f"- Git commit `{lineage.commit()}`{changes}, state `{lineage.dag()}`",
            "- To reproduce: check out the commit, then `dvc repro promote`",
            "- Measured on the questions above only; what lies outside them is unknown",
            "",
            "| metric | " + " | ".join(evaluation.candidate for evaluation in evaluations) + " |",
            "|---|" + "---:|" * len(evaluations),
            *rows,
        ]
    )
