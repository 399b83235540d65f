"""The page docs/experiments.md: a table of verdicts, and each experiment with its effects and
plot.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flows.experiments.plan import Arm, Experiment, Measured, Values
from flows.experiments.verdicts import Result, Verdict, whole

PAGE = Path("docs/experiments.md")
PLOTS = Path("docs/experiments")
HEAD = """# Experiments

What the literature claims of this recipe, tried on the demo's small world by `make experiments`,
which writes this page. Each is a file in `experiments/`. An effect is the mean difference with its
95 % interval: seeds and questions are drawn anew together; one number a run has Student's interval
over the seeds. A claim "holds" where the whole interval lies on its side, "does not hold" where it
lies on the other, else it is "not shown". A world of facts and a model of a few million weights
show a mechanism, not its size elsewhere.
"""
COLOURS = {"holds": "#059669", "does not hold": "#dc2626", "not shown": "#6b7280"}


class Tried(NamedTuple):
    """An experiment and what came of it; no results: not run."""

    name: str
    experiment: Experiment
    results: Sequence[Result]
    measured: Mapping[tuple[str, int], Measured]


def write(tried: Sequence[Tried], facts: str) -> None:
    """Write the page and its plots; `facts` says when, on what and of which commit."""
    rows = [f"| [{one.name}](#{one.name.replace('_', '-')}) | {one.experiment.claim} | {said(one)} |" for one in tried]
    head = "\n".join(["| experiment | claim | verdict |", "|---|---|---|", *rows])
    parts = [HEAD, facts + "\n", head + "\n", *(section(one) for one in tried)]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(parts), encoding="utf-8")
    for one in tried:
        if one.results:
            draw(one, PLOTS / f"{one.name}.svg")


def said(one: Tried) -> Verdict | str:
    """Return the verdict on an experiment's claim."""
    return whole(one.results) if one.results else "not run"


def changes(arm: Arm) -> list[str]:
    """Return what an arm has otherwise than params.yaml."""
    found = [f"`{key}: {value}`" for key, value in arm.params.items()]
    found += [f"{len(text.splitlines()):,} rows in `data/raw/{name}`" for name, text in arm.raw.items()]
    return found + ([f"{arm.rounds} rounds"] if arm.rounds > 1 else [])


def section(one: Tried) -> str:
    """Return one experiment's part of the page."""
    experiment = one.experiment
    arms = [
        f"- {name}: " + (", ".join(changes(arm)) or "as params.yaml has it") for name, arm in experiment.arms.items()
    ]
    about = f"Source: {experiment.source}. Seeds: {', '.join(map(str, experiment.seeds))}."
    lines = [f"## {one.name.replace('_', '-')}", "", f"{experiment.claim}", "", about, "", *arms, ""]
    if one.results:
        lines += ["| test | effect | 95 % interval | by seed | questions | verdict |", "|---|---|---|---|---|---|"]
        lines += [row(result) for result in one.results]
        lines += ["", f"![effects of {one.name}]({PLOTS.name}/{one.name}.svg)", ""]
    return "\n".join(lines)


def row(result: Result) -> str:
    """Return a test's line."""
    test, found = result.test, result.effect
    asked = f"> {test.margin:g}" if test.expects == "more" else f"within ±{test.margin:g}"
    seeds = " ".join(f"{value:+.3g}" for value in found.by_seed)
    interval = f"[{found.low:+.3g}, {found.high:+.3g}]"
    claim = f"{test.claim} ({asked})"
    return f"| {claim} | {found.value:+.3g} | {interval} | {seeds} | {found.units} | {result.verdict} |"


def draw(one: Tried, file: Path) -> None:
    """Draw the effects with their intervals, and each curve, a line an arm (mean of the seeds)."""
    import matplotlib
    from matplotlib.figure import Figure

    curves, count = one.experiment.curves, len(one.results)
    rows = 2 if curves else 1
    with matplotlib.rc_context({"svg.hashsalt": "lathe", "font.size": 8, "figure.constrained_layout.use": True}):
        figure = Figure(figsize=(8.0, 0.7 + 0.3 * count + (2.2 if curves else 0.0)))
        grid = figure.add_gridspec(rows, max(1, len(curves)), height_ratios=[count + 1, 6][:rows])
        _effects(figure.add_subplot(grid[0, :]), one.results)
        for position, name in enumerate(curves):
            axes = figure.add_subplot(grid[1, position])
            axes.set(title=name, xlabel=one.experiment.curve_axis)
            for arm in one.experiment.arms:
                across, values = curve([one.measured[arm, seed].get(name, {}) for seed in one.experiment.seeds])
                if across:
                    axes.plot(across, values, "o-", ms=3, label=arm)
            axes.legend()
        file.parent.mkdir(parents=True, exist_ok=True)
        metadata: dict[str, Any] = {"Date": None, "Creator": None}
        figure.savefig(file, format="svg", metadata=metadata)


def _effects(axes: Any, results: Sequence[Result]) -> None:
    """Draw a line a test: the effect, its interval, and black bars where the claim begins to
    hold.
    """
    for at, result in enumerate(results):
        found, margin = result.effect, result.test.margin
        spread = [[found.value - found.low], [found.high - found.value]]
        axes.errorbar([found.value], [at], xerr=spread, fmt="o", color=COLOURS[result.verdict])
        for edge in {margin, -margin if result.test.expects == "near" else margin}:
            axes.plot([edge, edge], [at - 0.3, at + 0.3], color="black", lw=1)
    axes.set_yticks(range(len(results)), [result.test.claim for result in results], parse_math=False)
    axes.set_ylim(len(results) - 0.5, -0.5)


def curve(seeds: Sequence[Values]) -> tuple[list[float], list[float]]:
    """Return where and how high the mean of the seeds' curves is, at the places that all have."""
    shared = sorted(set.intersection(*(set(values) for values in seeds)), key=float) if seeds else []
    return [float(at) for at in shared], [sum(values[at] for values in seeds) / len(seeds) for at in shared]
