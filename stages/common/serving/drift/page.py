"""The daily page on drift: each quantity by day against the champion's own data, what has drifted,
and what to do.

Reads .lathe/drift, writes .lathe/drift/drift.html. Command: lathe drift
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jinja2
import typer
from markupsafe import Markup

from stages.common.core import params
from stages.common.core.statistics import wilson
from stages.common.report import charts
from stages.common.report.charts import Point
from stages.common.runtime import logs, process
from stages.common.runtime.errors import DataError
from stages.common.runtime.whole_files import written_whole
from stages.common.serving.drift import days, distances, histograms, reference
from stages.common.serving.drift.distances import Drift, Level
from stages.common.serving.drift.histograms import LANGUAGES, SHARES, YES, Counts, Profile

PAGE = "drift.html"
COLOURS = charts.colours(["expected", "by day"])
BINS_SHOWN = 8
QUANTITIES = {
    "prompt_language": (
        "Language of the prompts",
        "Add prompts and conversations in the new language to data/raw, and questions to the test; until then say in "
        "deploy.system_prompt in which languages to ask.",
    ),
    "prompt_tokens": (
        "Length of the prompts, tokens",
        "Look whether longer ones lose old turns (dropped_messages in the log); train with a longer max_length.",
    ),
    "prompt_novelty": (
        "Strangeness of the prompts: perplexity under the words of the training prompts",
        "People ask of other things. make feedback brings what they liked and edited into data/raw; write prompts of "
        "the new kind, and questions for the test, before anything is trained.",
    ),
    "prompt_perplexity": (
        "Perplexity of the prompts under the champion",
        "The text itself is strange to the model: another domain, language or form. Add documents of it to pretrain.",
    ),
    "answer_language": (
        "Language of the answers",
        "Compare with the language of the prompts: where that has not moved, the model answers in the wrong one.",
    ),
    "answer_tokens": (
        "Length of the answers, tokens",
        "Compare with cut answers and with the temperature that clients ask for (the evaluation is greedy).",
    ),
    "answer_refused": (
        "Refused",
        "Look at the prompts' novelty first: new topics, or harmful ones? Otherwise more pairs with undue refusals.",
    ),
    "answer_unsure": (
        "Unsure",
        "It is asked what it does not know: add documents on that, or let deploy.tools search them.",
    ),
    "answer_cut": ("Cut at the longest answer", "Raise deploy.max_new_tokens, or look for answers that loop."),
}
"""What each quantity is, and what to do when it has drifted."""


class Shown(NamedTuple):
    """A quantity on the page."""

    name: str
    about: str
    remedy: str
    unit: str
    chart: Markup
    bins: list[tuple[str, float | None, float | None]]
    level: Level | None
    drifted_days: list[str]


def main(
    folder: Annotated[Path, typer.Option(help="where the server keeps its counts")] = Path(".lathe/drift"),
) -> None:
    """Write the page."""
    known = days.read(folder)
    if not known.days:
        raise DataError("nothing was counted yet", where=folder, remedy="make serve, and ask it")
    settings = _settings()
    found = reference.read(folder, known.weights)
    text, drifted = page(known, found.profile if found else {}, settings)
    with written_whole(folder / PAGE) as file:
        file.write_text(text, encoding="utf-8")
    said = f"{len(drifted)} drifted ({', '.join(drifted)})" if drifted else "nothing has drifted"
    logs.report(f"{folder / PAGE}: {said if found else 'no data of the champion to compare with'}")


def page(known: days.Days, expected: Profile, settings: Drift) -> tuple[str, list[str]]:
    """Return the page on the present champion, and the quantities that have drifted."""
    by_day = {
        day: champions[known.weights] for day, champions in sorted(known.days.items()) if known.weights in champions
    }
    window = known.window()
    levels = {one.quantity: one for one in distances.levels(expected, window, settings)}
    shown = [
        _shown(name, by_day, expected.get(name, {}), window.get(name, {}), levels.get(name), settings)
        for name in QUANTITIES
        if any(name in profile for profile in by_day.values())
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drifted = [one.name for one in shown if one.level and one.level.is_drifted]
    questions = {day: sum(profile.get("prompt_language", {}).values()) for day, profile in by_day.items()}
    text = environment.get_template("page.html.jinja").render(
        shown=shown,
        drifted=[one for one in shown if one.name in drifted],
        questions=questions,
        weights=known.weights[:12],
        settings=settings,
        colours=COLOURS,
        has_reference=bool(expected),
    )
    return text, drifted


def measured(name: str, counts: Counts, language: str) -> tuple[float, float, float] | None:
    """Return the one figure of a histogram, with its 95 % interval: a median, or the share of YES
    or of a `language`.
    """
    total = sum(counts.values())
    if not total:
        return None
    if name in SHARES or name in LANGUAGES:
        successes = counts.get(YES if name in SHARES else language, 0)
        return successes / total, *wilson(successes, total)
    return histograms.median(counts)


def _shown(
    name: str, by_day: Mapping[str, Profile], expected: Counts, window: Counts, level: Level | None, settings: Drift
) -> Shown:
    about, remedy = QUANTITIES[name]
    daily = {day: profile[name] for day, profile in by_day.items() if profile.get(name)}
    language = next(iter(histograms.shares(expected or histograms.merged([{name: c} for c in daily.values()])[name])))
    last = list(by_day).index(next(reversed(daily)))
    points = [
        Point(list(by_day).index(day) - last, *found)
        for day, counts in daily.items()
        if (found := measured(name, counts, language))
    ]
    kept = measured(name, expected, language)
    across: Sequence[float] = sorted({float(points[0].at), float(points[-1].at)})
    series = {"expected": [Point(at, *kept) for at in across] if kept else [], "by day": points}
    unit = "share of yes" if name in SHARES else f"share of {language}" if name in LANGUAGES else "median"
    drifted_days = [
        day
        for day, counts in daily.items()
        if expected and distances.level(name, expected, counts, settings).is_drifted
    ]
    bins = _bins(expected, window or histograms.merged([{name: c} for c in daily.values()])[name])
    return Shown(name, about, remedy, unit, charts.lines(series, COLOURS, unit), bins, level, drifted_days)


def _bins(expected: Counts, window: Counts) -> list[tuple[str, float | None, float | None]]:
    """Return the largest bins, with both shares."""
    one, other = (histograms.shares(counts) if counts else {} for counts in (expected, window))
    largest = sorted({**one, **other}, key=lambda name: -max(one.get(name, 0), other.get(name, 0)))[:BINS_SHOWN]
    return [(name, one.get(name, 0.0) if one else None, other.get(name, 0.0) if other else None) for name in largest]


def _settings() -> Drift:
    section: Any = params.plain(params.read_yaml(params.PARAMS_FILE).get("deploy") or {})
    return Drift.model_validate(section.get("drift") or {})


if __name__ == "__main__":
    os.nice(10)  # a server may be at work beside it
    process.run("drift", main, again="lathe drift")
