"""How a reward model ranks held-out prompts: pair accuracy, tau, calibration, length bias; as JSON
and figures.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.pairs import losses
from stages.common.pairs.losses import Scored
from stages.common.reward import scoring
from stages.common.runtime import logs
from stages.common.text import parquet_writer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stages.common.tracking.run import Run


def write(
    report: Path,
    judged: Sequence[Scored],
    counts: Mapping[str, Any],
    run: "Run",
    heads: Sequence[Sequence[Scored]] = (),
) -> dict[str, Any]:
    """Write the report on what `score` returned and draw its figures."""
    figures = measure(judged)
    if heads:
        figures |= {"heads": agreement(heads)}
        told = {name: value for name, value in figures["heads"].items() if isinstance(value, float)}
        run.metrics({f"heads/{name}": value for name, value in told.items()})
        logs.log.info(
            "%d heads agree on %.1f %% of pairs; their deviation is %.3f on average",
            *(len(heads), 100 * told["agreed"], told["deviation"]),
        )
    parquet_writer.write_json(report, rounded(figures | {"counts": counts}))
    overall = figures["pair_accuracy"]["overall"]
    for name, cell in figures["pair_accuracy"].items():
        run.metrics({f"pair_accuracy/{name}": cell["value"]})
    run.metrics({f"length_correlation/{name}": value for name, value in figures["length_correlation"].items()})
    run.figure("calibration", calibration_figure(figures["calibration"]))
    run.figure("pair_accuracy", accuracy_figure(figures["pair_accuracy"]))
    logs.report(
        f"pair accuracy {overall['value']:.1%} [{overall['low']:.1%}, {overall['high']:.1%}] on {overall['pairs']:,}"
        f" pairs of {overall['prompts']:,} held-out prompts",
        compared(figures),
    )
    return figures


def compared(figures: Mapping[str, Any]) -> dict[str, float | None]:
    """Return what people compare of `measure`'s figures."""
    overall = figures["pair_accuracy"]["overall"]
    told = {"pair_accuracy": overall["value"]} | {f"pair_accuracy/{end}": overall[end] for end in ("low", "high")}
    told |= {"kendall_tau": figures["kendall_tau"].get("value"), "calibration_error": figures["calibration"]["error"]}
    return told | {f"length_correlation/{name}": value for name, value in figures["length_correlation"].items()}


def score(folder: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Scored], list[list[Scored]]]:
    """Return each prompt's answers (`rows` of `ranked_answers.tokenise`) with the scores the model
    in `folder` gives them, and the same with each head's own where it has several; the processes
    share them. Raises DataError for a NaN.
    """
    answers = [answer for row in rows for answer in row["rows"]]
    found = scoring.head_rows(scoring.load(folder), answers, shared=True)

    def judged(scores: Iterator[float]) -> list[Scored]:
        return [
            Scored(row["ranks"], [next(scores) for _ in row["rows"]], row["lengths"], row["source"], row["categories"])
            for row in rows
        ]

    count = len(found[0]) if found else 1
    heads = [judged(one[head] for one in found) for head in range(count)] if count > 1 else []
    return judged(scoring.united(one, 0.0) for one in found), heads


def agreement(heads: Sequence[Sequence[Scored]]) -> dict[str, Any]:
    """Return of several heads each one's pair accuracy, their standard deviation over an answer
    (mean), and on which share of pairs all order alike, with the accuracy there and elsewhere (by
    the majority; a tie is a half).
    """
    orders = list(zip(*([right for row in head for right in losses.outcomes(row)] for head in heads), strict=True))
    alike = [one[0] for one in orders if len(set(one)) == 1]
    apart = [_majority(one) for one in orders if len(set(one)) > 1]
    answers = zip(*([value for row in head for value in row.scores] for head in heads), strict=True)
    deviations = [statistics.stdev(one) for one in answers]
    return {
        "pair_accuracy": [losses.pair_accuracy(head)["value"] for head in heads],
        "deviation": statistics.fmean(deviations),
        "agreed": len(alike) / len(orders),
        "accuracy_agreed": statistics.fmean(alike) if alike else None,
        "accuracy_apart": statistics.fmean(apart) if apart else None,
    }


def _majority(right: Sequence[float]) -> float:
    mean = statistics.fmean(right)
    return 0.5 if mean == 0.5 else float(mean > 0.5)


def measure(judged: Sequence[Scored]) -> dict[str, Any]:
    """Return all figures; pair accuracy overall, by category and by source, and of a score that is
    the length alone.
    """
    cells: dict[str, list[Scored]] = defaultdict(list)
    for row in judged:
        for name in ("overall", f"source/{row.source}", *(f"category/{category}" for category in row.categories)):
            cells[name].append(row)
    by_rank: dict[str, list[float]] = defaultdict(list)
    for row in judged:
        for rank, value in zip(row.ranks, row.scores, strict=True):
            by_rank[str(rank)].append(value)
    return {
        "pair_accuracy": {name: accuracy for name in sorted(cells) if (accuracy := losses.pair_accuracy(cells[name]))},
        "kendall_tau": losses.mean_tau(([-rank for rank in row.ranks], row.scores) for row in judged),
        "calibration": losses.calibration(judged),
        "length_correlation": losses.length_bias(judged),
        "longer_is_better": losses.pair_accuracy(row._replace(scores=row.lengths) for row in judged),
        "mean_score_by_rank": {rank: sum(values) / len(values) for rank, values in sorted(by_rank.items())},
    }


def rounded(value: Any) -> Any:
    """Return `value` with every float at six significant digits: reports compare across
    machines.
    """
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def calibration_figure(calibration: Mapping[str, Any]) -> "Figure":
    """Return observed against predicted preference; the size of a point is its number of pairs."""
    from matplotlib.figure import Figure

    plot = Figure(figsize=(5, 5))
    axes = plot.subplots()
    cells = calibration["bins"]
    most = max((cell["pairs"] for cell in cells), default=1)
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.scatter(
        [cell["predicted"] for cell in cells],
        [cell["observed"] for cell in cells],
        s=[20 + 180 * cell["pairs"] / most for cell in cells],
    )
    title = f"calibration (mean error {calibration['error']:.3f})"
    axes.set(xlabel="predicted: sigmoid(r_i - r_j)", ylabel="observed: i ranked above j", title=title)
    return plot


def accuracy_figure(cells: Mapping[str, Mapping[str, float]]) -> "Figure":
    """Return pair accuracy by category and source, with 95 % intervals and chance."""
    from matplotlib.figure import Figure

    names = sorted(cells, key=lambda name: cells[name]["value"])
    plot = Figure(figsize=(7, 1.5 + 0.25 * len(names)), layout="tight")
    axes = plot.subplots()
    values = [cells[name]["value"] for name in names]
    below = [cells[name]["value"] - cells[name]["low"] for name in names]
    above = [cells[name]["high"] - cells[name]["value"] for name in names]
    axes.errorbar(values, range(len(names)), xerr=[below, above], fmt="o", capsize=2)
    axes.axvline(0.5, linestyle=":", color="grey")
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel="share of pairs in order", title="pair accuracy")
    return plot
