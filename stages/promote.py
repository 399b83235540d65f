"""Make the best candidate a version in the registry, and champion when it beats the base and the
present champion; before there is one, whoever `promote.against` names.

Reads reports/evaluate/*, models/ and the registry; measures the champion anew when it knows another
test. Writes reports/promote.json, reports/model_card.md, reports/report.html (the candidates' page
below the decision), the registry and, append-only, .lathe/promotions.jsonl. Run: dvc repro promote
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field

from stages import evaluate
from stages.common.core import models, params
from stages.common.evaluation import results
from stages.common.evaluation.results import Evaluated
from stages.common.release import (
    aliases,
    champion_evaluation,
    comparisons,
    gate,
    manual_promotion,
    model_card,
    provenance,
    registry,
    verdict,
)
from stages.common.release.gate import Choice, Decision, Incumbent
from stages.common.release.model_card import Card
from stages.common.release.registry import Version
from stages.common.release.traffic import votes
from stages.common.release.verdict import Verdict
from stages.common.runtime import kill_points, logs, process
from stages.common.runtime.errors import DataError
from stages.common.tracking import mlflow_store, notices, session

if TYPE_CHECKING:
    from stages.common.tracking.mlflow_store import MlflowClient
    from stages.common.tracking.run import Run


class Params(gate.Rules):
    """Section `promote` of params.yaml: the gate's rules, and whom they are for."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    """Name of the registered model."""
    base: str = "pretrain"
    """Candidate that a champion must beat, as it answers best: bare, or after worked examples."""
    against: str | None = "sft_best"
    """Candidate that stands in for the champion before there is one: another one must beat it to be
    the first. null: the first must beat the base alone.
    """


def main(
    evaluations: Annotated[Path, typer.Option(help="folder with one folder of reports a candidate")],
    models: Annotated[Path, typer.Option(help="folder that holds the candidates' models")],
    report: Annotated[Path, typer.Option(help="report to write")],
    card: Annotated[Path | None, typer.Option(help="model card to write")] = None,
    page: Annotated[Path | None, typer.Option(help="page that compares the candidates")] = None,
    out: Annotated[Path | None, typer.Option(help="the same below the decision, to write")] = None,
    questions: Annotated[Path | None, typer.Option(help="validated questions, to measure a champion anew")] = None,
    documents: Annotated[Path | None, typer.Option(help="validated documents, likewise")] = None,
    conversations: Annotated[Path | None, typer.Option(help="validated conversations, likewise")] = None,
    samples: Annotated[Path | None, typer.Option(help="samples of a round, likewise")] = None,
    reward: Annotated[Path | None, typer.Option(help="reward model, likewise")] = None,
    tasks: Annotated[Path | None, typer.Option(help="task files for lm-evaluation-harness, likewise")] = None,
    curation: Annotated[Path | None, typer.Option(help="report of curate, for the card's counts")] = None,
    validation: Annotated[Path | None, typer.Option(help="report of validate, for the card")] = None,
) -> None:
    """Promote the best candidate."""
    settings = params.load(Params, "promote")
    test = champion_evaluation.Test(evaluate.__name__, questions, documents, conversations, samples, reward, tasks)
    with session.start(
        "promote", params={"promote": settings.model_dump()}, inputs={"evaluations": evaluations}
    ) as run:
        candidates = results.read(evaluations)
        client = mlflow_store.client()
        with aliases.one_at_a_time(settings.name):
            manual_promotion.notice(client, settings.name)
            held = registry.with_alias(client, settings.name, registry.CHAMPION)
            standing = incumbent(client, settings, candidates, held, test, evaluations)
            chosen = choose(client, settings, candidates, held, standing)
            best, decision = chosen.best, chosen.decision
            check_weights(best, models)
            known = registry.with_weights(client, settings.name, best.weights_sha256)
            outcome = aliases.verdict(decision, settings.approval, is_champion(known, held))
            told = verdict.of(candidates, chosen, outcome, settings.metric, settings.against, votes.of(known))
            version, text = publish_version(client, settings, candidates, chosen, told, held, curation, validation)
            champion_evaluation.keep(evaluations / best.candidate, best.weights_sha256, test)
        write(report, settings, chosen, told, held)
        write_text(card, text)
        write_text(out, verdict.on_page(page.read_text(encoding="utf-8"), told) if page else "")
        publish(run, version, best, settings.metric, [out, card])
    if outcome == "pending":
        notices.waits(settings.name, version.number, best.weights_sha256, decision.reason)
    low, high = best.intervals.get(settings.metric) or (None, None)
    ends = {f"{settings.metric}/low": low, f"{settings.metric}/high": high, "candidates": len(candidates)}
    figures = {settings.metric: best.metrics[settings.metric]} | ends | {"promoted": outcome == "promoted"}
    logs.report(f"{outcome} {best.candidate}: {decision.reason}", figures)


def check_weights(best: Evaluated, folder: Path) -> None:
    """Raise DataError when the model is not the one that was evaluated."""
    remedy = f"run `dvc repro -f evaluate@{best.candidate}`"
    if not best.model.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{best.candidate}'s model lies outside {folder}", where=best.model, remedy=remedy)
    if models.weights_sha256(best.model) != best.weights_sha256:
        raise DataError("these are not the weights that were evaluated", where=best.model, remedy=remedy)


def choose(
    client: "MlflowClient",
    settings: Params,
    candidates: list[Evaluated],
    held: Version | None,
    incumbent: Incumbent | None,
) -> Choice:
    """Return whom the gate puts forward, by what was decided before about these weights where it
    still holds, else by what it says now.
    """

    def settled(one: Evaluated) -> Decision | None:
        return aliases.settled(registry.with_weights(client, settings.name, one.weights_sha256), held)

    return gate.choose(candidates, settings.base, settings, incumbent, settled)


def incumbent(
    client: "MlflowClient",
    settings: Params,
    candidates: list[Evaluated],
    held: Version | None,
    test: champion_evaluation.Test,
    evaluations: Path,
) -> Incumbent | None:
    """Return the champion as it does on the present test, or before there is one
    `promote.against`; None where neither is.

    Raises DataError for an `against` that is no candidate at all.
    """
    if held:
        return Incumbent(comparisons.CHAMPION, champion_evaluation.of(client, held, candidates, test))
    if settings.against is None:
        return None
    found = next((one for one in candidates if one.candidate == settings.against), None)
    if found is None and not (evaluations / settings.against).is_dir():  # else it was left out
        names = ", ".join(one.candidate for one in candidates)
        what = f"promote.against is '{settings.against}', which was not evaluated; evaluated are: {names}"
        raise DataError(what, where=params.PARAMS_FILE, remedy="set promote.against to one of these, or to null")
    return Incumbent(settings.against, found) if found else None


def is_champion(known: Version | None, held: Version | None) -> bool:
    """Whether the weights put forward are the champion's already."""
    return held is not None and known is not None and held.number == known.number


def publish_version(
    client: "MlflowClient",
    settings: Params,
    candidates: list[Evaluated],
    chosen: Choice,
    told: Verdict,
    held: Version | None,
    curation: Path | None,
    validation: Path | None,
) -> tuple[Version, str]:
    """Register the candidate, move the aliases as decided; return the version and its card.

    Done twice, it changes nothing: weights that are there keep the record they were registered
    with.
    """
    best, decision = chosen.best, chosen.decision
    known = registry.with_weights(client, settings.name, best.weights_sha256)
    record = provenance.of(client, known) or provenance.record(client, best.model, curation, validation)
    about = provenance.tags(best, settings.metric, record)
    version = registry.register(client, settings.name, best.model, about, json.dumps(record))
    crowned = held is not None and held.number == version.number
    if not crowned:
        registry.tag(client, version, about)  # weights that were registered before are measured anew
    compared = predecessor(client, version) if crowned else held
    before = provenance.of(client, compared)
    text = model_card.write(Card(candidates, chosen, told, record, before))
    aliases.release(client, version, decision, settings.approval, text, held)
    return version, text


def predecessor(client: "MlflowClient", version: Version) -> Version | None:
    """Return the champion that `version` was compared with when it became champion."""
    number = version.tags.get("champion_before")
    return registry.numbered(client, version.name, number) if number else None


def write(path: Path, settings: Params, chosen: Choice, told: Verdict, champion: Version | None) -> None:
    """Write the report: what was decided, by content; the same on every machine whose registry
    holds the same.
    """
    best, decision, outcome = chosen.best, chosen.decision, told.outcome
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
        "decision": outcome,
        "reason": decision.reason,
        "passed_over": dict(chosen.passed_over),
        "judged": verdict.as_json(chosen.judged),
        "champion_sha256": best.weights_sha256 if outcome == "promoted" else held,
        "comparisons": [one.model_dump() for one in decision.comparisons],
    } | ({"votes": [one.model_dump() for one in told.votes]} if told.votes else {})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    kill_points.point("promote:report")


def write_text(path: Path | None, text: str) -> None:
    """Write the model card, or the page, where it was asked for."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        kill_points.point("promote:card")


def publish(run: "Run", version: Version, best: Evaluated, metric: str, files: list[Path | None]) -> None:
    """Log which version came of it, its metric, the page and the card."""
    run.tags({"candidate": best.candidate, "weights_sha256": best.weights_sha256, "version": version.number})
    run.metrics({metric: best.metrics[metric]})
    for file in files:
        if file:
            run.artifact(file)


if __name__ == "__main__":
    process.run("promote", main)
