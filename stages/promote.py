"""Make the best candidate a version in the registry, and champion when it beats the base and the present champion.

Reads reports/evaluate/*/metrics.json and models/. Writes reports/promote.json, the registry and, append-only,
.lathe/promotions.jsonl. Run: dvc repro promote
"""

import getpass
import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field

from stages.common import gate, journal, lineage, model_card, models, params, process, registry, store, tracking
from stages.common.errors import DataError
from stages.common.gate import Decision, Evaluation
from stages.common.registry import Version

if TYPE_CHECKING:
    from stages.common.run import Run
    from stages.common.store import MlflowClient

HISTORY = Path(".lathe/promotions.jsonl")


class Params(params.StageParams):
    """Section `promote` of params.yaml."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    """Name of the registered model."""
    metric: str = "accuracy/iid"
    """Metric of the evaluation that ranks the candidates; `perplexity/…` is better when lower."""
    base: str = "pretrain"
    """Candidate that a champion must beat."""


def main(
    evaluations: Annotated[Path, typer.Option(help="folder with one folder of reports a candidate")],
    models: Annotated[Path, typer.Option(help="folder that holds the candidates' models")],
    report: Annotated[Path, typer.Option(help="report to write")],
    page: Annotated[Path | None, typer.Option(help="page that compares the candidates, kept with the run")] = None,
) -> None:
    """Promote the best candidate."""
    settings = params.load(Params, "promote")
    with tracking.start(
        "promote", params={"promote": settings.model_dump()}, inputs={"evaluations": evaluations}
    ) as run:
        candidates = gate.read(evaluations)
        best, base = gate.choose(candidates, settings.metric, settings.base)
        check_weights(best, models)
        client = store.client()
        champion = registry.with_alias(client, settings.name, registry.CHAMPION)
        decision = gate.decide(best, base, champion, settings.metric)
        card = model_card.card(candidates, best, decision, settings.metric)
        version = release(client, settings, best, decision, card)
        write(report, settings, best, decision, champion)
        publish(run, version, best, settings.metric)
        if page:
            run.artifact(page)
    journal.report(f"{decision.verdict} {best.candidate}: {decision.reason}")


def check_weights(best: Evaluation, folder: Path) -> None:
    """Raise DataError when the model is not the one that was evaluated."""
    remedy = f"run `dvc repro -f evaluate@{best.candidate}`"
    if not best.model.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{best.candidate}'s model lies outside {folder}", where=best.model, remedy=remedy)
    if models.weights_sha256(best.model) != best.weights_sha256:
        raise DataError("these are not the weights that were evaluated", where=best.model, remedy=remedy)


def release(
    client: "MlflowClient", settings: Params, best: Evaluation, decision: Decision, description: str
) -> Version:
    """Register the candidate, move the aliases as decided, and return its version; done twice, it changes nothing."""
    tags = {
        "weights_sha256": best.weights_sha256,
        "questions_sha256": best.questions_sha256,
        "candidate": best.candidate,
        "metric": settings.metric,
        "value": f"{best.metrics[settings.metric]:.6g}",
        "metrics": json.dumps(best.metrics, sort_keys=True),
        "git_commit": lineage.commit(),
        "dag": lineage.dag(),
    }
    version = registry.register(client, settings.name, best.model, tags)
    registry.describe(client, version, description, {"decision": decision.verdict, "reason": decision.reason})
    registry.point(client, registry.CHALLENGER, version)
    held = registry.with_alias(client, settings.name, registry.CHAMPION)
    if decision.promoted and (held is None or held.number != version.number):
        registry.describe(client, version, description, {"promoted_because": decision.reason})
        if held is not None:
            registry.point(client, registry.PREVIOUS, held)
        registry.point(client, registry.CHAMPION, version)
    record(version, best, settings.metric, decision, held)
    return version


def record(version: Version, best: Evaluation, metric: str, decision: Decision, held: Version | None) -> None:
    """Append what was decided to the history, unless its last line says it already."""
    HISTORY.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "name": version.name,
        "version": version.number,
        "candidate": best.candidate,
        "weights_sha256": best.weights_sha256,
        "metric": metric,
        "value": best.metrics[metric],
        "decision": decision.verdict,
        "reason": decision.reason,
    }
    lines = HISTORY.read_text(encoding="utf-8").splitlines() if HISTORY.exists() else []
    if lines and facts.items() <= json.loads(lines[-1]).items():
        return
    circumstances = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "who": f"{getpass.getuser()}@{socket.gethostname()}",
        "champion_before": held.number if held else None,
    }
    with HISTORY.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(facts | circumstances, ensure_ascii=False) + "\n")


def write(path: Path, settings: Params, best: Evaluation, decision: Decision, champion: Version | None) -> None:
    """Write the report: what was decided, by content; the same on every machine whose registry holds the same."""
    held = champion.tags.get("weights_sha256") if champion else None
    facts = {
        "name": settings.name,
        "candidate": best.candidate,
        "model": best.model.as_posix(),
        "weights_sha256": best.weights_sha256,
        "questions_sha256": best.questions_sha256,
        "metric": settings.metric,
        "value": best.metrics[settings.metric],
        "interval": best.intervals.get(settings.metric),
        "decision": decision.verdict,
        "reason": decision.reason,
        "champion_sha256": best.weights_sha256 if decision.promoted else held,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def publish(run: "Run", version: Version, best: Evaluation, metric: str) -> None:
    """Log which version came of it, and its metric."""
    run.tags({"candidate": best.candidate, "weights_sha256": best.weights_sha256, "version": version.number})
    run.metrics({metric: best.metrics[metric]})


if __name__ == "__main__":
    process.run("promote", main)
