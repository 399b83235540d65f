"""The model card that a reviewer reads on the version's page, and beside the reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.common.core import records
from stages.common.evaluation import paired_bootstrap
from stages.common.evaluation.results import Evaluated
from stages.common.release import comparisons, provenance, verdict
from stages.common.release.gate import Choice
from stages.common.release.provenance import Record
from stages.common.release.traffic import votes
from stages.common.release.verdict import Verdict

PARAMS_SHOWN = 40


@dataclass(frozen=True)
class Card:
    """What a card is made of; `before` is the record of the champion it was compared with, empty
    without one.
    """

    candidates: Sequence[Evaluated]
    chosen: Choice
    verdict: Verdict
    record: Record
    before: Record


def write(card: Card) -> str:
    """Return the card in Markdown, as model_card.md.jinja sets it."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown, in which &#39; would be read as it stands
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": _cell, "measured": verdict.measured}
    environment.filters |= {"value": comparisons.value, "moved": comparisons.moved}
    environment.tests["ratio"] = paired_bootstrap.is_ratio
    best, metric = card.chosen.best, card.verdict.metric
    names = [name for name in best.metrics if name.count("/") <= 1 and not name.startswith("shots-")]
    text = environment.get_template("model_card.md.jinja").render(
        vars(card) | vars(card.chosen),
        names=sorted(names, key=lambda name: name != metric),
        small=_small(best),
        shapes=records.SHAPES,
        changed=provenance.changed(card.before["params"], card.record["params"]) if card.before else [],
        shown=PARAMS_SHOWN,
    )
    return votes.on_card(text, card.verdict.votes)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _small(best: Evaluated) -> list[str]:
    return [
        f"{name} ({count})"
        for name, count in best.counts.items()
        if count < 100 and name.startswith("accuracy/") and name.count("/") == 1
    ]
