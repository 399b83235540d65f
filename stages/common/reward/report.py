"""How a reward model ranks held-out prompts: pair accuracy, tau, calibration, length bias; as JSON
and figures.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
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


def write(report: Path, judged: Sequence[Scored], counts: Mapping[str, Any], run: "Run") -> dict[str, Any]:
    """Write the report on what `score` returned and draw its figures."""
    figures = measure(judged)
    parquet_writer.write_json(report, rounded(figures | {"counts": counts}))
    overall = figures["pair_accuracy"]["overall"]
    for name, cell in figures["pair_accuracy"].items():
        run.metrics({f"pair_accuracy/{name}": cell["value"]})
    run.metrics({f"length_correlation/{name}": value for name, value in figures["length_correlation"].items()})
    run.figure("calibration", calibration_figure(figures["calibration"]))
    run.figure("pair_accuracy", accuracy_figure(figures["pair_accuracy"]))
    logs.report(
        f"pair accuracy {overall['value']:.1%} [{overall['low']:.1%}, {overall['high']:.1%}] on {overall['pairs']:,}"
        f" pairs of {overall['prompts']:,} held-out prompts"
    )
    return figures


def score(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[Scored]:
    """Return each prompt's answers (`rows` of `ranked_answers.tokenise`) with the scores the model
    in `folder` gives them, the processes sharing them. Raises DataError for a NaN.
    """
    answers = [answer for row in rows for answer in row["rows"]]
    scores = iter(scoring.score_rows(scoring.load(folder), answers, shared=True))
    return [
        Scored(row["ranks"], [next(scores) for _ in row["rows"]], row["lengths"], row["source"], row["categories"])
        for row in rows
    ]


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
