"""Compare the candidates and write one page that a reviewer can judge them by.

Reads reports/evaluate/* and the trainers' curves. Writes reports/candidates.html (self-contained),
which `promote` puts below its decision as reports/report.html, and reports/report.json: win rates
against one candidate, and what each stage gained and forgot, with 95 % intervals. Run: dvc repro
report
"""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from pydantic import NonNegativeInt

from stages.common.core import params
from stages.common.evaluation import compare, results
from stages.common.evaluation.compare import Wins
from stages.common.evaluation.paired_bootstrap import Change
from stages.common.evaluation.results import Evaluated
from stages.common.ranking.llm_judge import Judge, JudgeParams
from stages.common.report import sections, training_charts
from stages.common.runtime import logs, process
from stages.common.runtime.errors import ParamsError
from stages.common.tracking import session

if TYPE_CHECKING:
    from stages.common.tracking.run import Run

Changes = dict[tuple[str, str], dict[str, Change]]


class Drawings(NamedTuple):
    """What the page draws: loss curves, a folder of PPO's rounds, SFT by epoch."""

    curves: list[Path]
    rounds: Path | None = None
    selection: Path | None = None


class Params(params.StageParams):
    """Section `report` of params.yaml."""

    examples_per_group: NonNegativeInt = 6
    """Questions shown of each group at which the candidates differ."""
    judge: JudgeParams | None = None
    """An endpoint that compares answers too, beside the rules and the reward model; null: none is
    asked.
    """


def main(
    evaluations: Annotated[Path, typer.Option(help="folder with one folder of reports a candidate")],
    against: Annotated[str, typer.Option(help="candidate that the others are compared with")],
    curves: Annotated[list[Path], typer.Option(help="CSV of a loss curve; several times")],
    out: Annotated[Path, typer.Option(help="page to write")],
    report: Annotated[Path, typer.Option(help="JSON of the comparisons to write")],
    rounds: Annotated[Path | None, typer.Option(help="folder with a CSV of reward and KL a round")] = None,
    selection: Annotated[Path | None, typer.Option(help="CSV of validation loss and reward by SFT epoch")] = None,
) -> None:
    """Compare the candidates."""
    settings = params.load(Params, "report")
    with session.start("report", params={"report": settings.model_dump()}, inputs={"evaluations": evaluations}) as run:
        found = {one.candidate: one for one in results.read(evaluations)}
        with Judge(settings.judge, key="report.judge") if settings.judge else nullcontext() as endpoint:
            wins = win_rates(found, against, endpoint)
            asked = endpoint.summary() if endpoint else {}
        changes = since(found)
        drawn = Drawings(curves, rounds, selection)
        page = render(in_order(found), against, wins, changes, drawn, settings)
        write(page, against, wins, changes, out, report, asked)
        publish(run, wins, out)
    logs.report(headline(against, wins), rates(wins))


def win_rates(found: dict[str, Evaluated], against: str, endpoint: Judge | None = None) -> dict[str, dict[str, Wins]]:
    """Return every other candidate's win rates against one, on the questions both were asked."""
    theirs = _known(found, against, "--against")
    pairs = {name: compare.compared(ours, theirs) for name, ours in found.items() if name != against}
    return {name: compare.win_rates(asked, endpoint) for name, asked in pairs.items() if asked}


def since(found: dict[str, Evaluated]) -> Changes:
    """Return what changed by (candidate, candidate before). Raises ParamsError for a name that was
    not evaluated.
    """
    return {
        (name, one.before): compare.changes(one, _known(found, one.before, f"before of {name}"))
        for name, one in found.items()
        if one.before != name
    }


def in_order(found: dict[str, Evaluated]) -> list[Evaluated]:
    """Return the candidates as trained: each after the one it came from."""

    def depth(name: str) -> int:
        seen: list[str] = []
        while name in found and name not in seen:
            seen, name = [*seen, name], found[name].before
        return len(seen)

    return sorted(found.values(), key=lambda one: (depth(one.candidate), one.candidate))


def render(
    candidates: list[Evaluated],
    against: str,
    wins: dict[str, dict[str, Wins]],
    changes: Changes,
    drawn: Drawings,
    settings: Params,
) -> str:
    """Return the page."""
    return sections.page(
        candidates,
        wins,
        settings.examples_per_group,
        against=against,
        changes=changes,
        selected=training_charts.selected(drawn.selection) if drawn.selection else [],
        rounds=training_charts.learnt(drawn.rounds) if drawn.rounds else {"charts": []},
        trained=training_charts.trained(drawn.curves),
    )


def write(
    page: str,
    against: str,
    wins: dict[str, dict[str, Wins]],
    changes: Changes,
    out: Path,
    report: Path,
    asked: dict[str, float],
) -> None:
    """Write the page and the comparisons as JSON, with what was `asked` of a judge."""
    document = {
        "against": against,
        "wins": {name: compare.as_metrics(found) for name, found in wins.items()},
        "changes": {f"{name} since {earlier}": compare.as_metrics(c) for (name, earlier), c in changes.items()},
    } | ({"judge": asked} if asked else {})
    for path, content in ((out, page), (report, json.dumps(document, indent=1) + "\n")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def publish(run: "Run", wins: dict[str, dict[str, Wins]], out: Path) -> None:
    """Log the win rates, and the page as an artifact."""
    run.metrics(rates(wins))
    run.artifact(out)


def rates(wins: dict[str, dict[str, Wins]]) -> dict[str, float]:
    """Return every win rate by candidate and judge."""
    return {f"{name}/{judge}": one.rate for name, found in wins.items() for judge, one in found.items()}


def headline(against: str, wins: dict[str, dict[str, Wins]]) -> str:
    """Return the one figure the closing table shows."""
    best = max(wins.items(), key=lambda item: item[1]["rules"].rate, default=None)
    if best is None:
        return "no two candidates were asked the same questions"
    one = best[1]["rules"]
    return f"{best[0]} wins {one.rate:.1%} [{one.low:.1%}, {one.high:.1%}] against {against}"


def _known(found: dict[str, Evaluated], name: str, option: str) -> Evaluated:
    if name not in found:
        what = f"'{name}' was not evaluated{params.suggestion(name, list(found))}; there are: {', '.join(found)}"
        raise ParamsError(what, where=option, remedy="add it to `candidates` in dvc.yaml")
    return found[name]


if __name__ == "__main__":
    process.run("report", main)
