"""What curation tells: counts by shape and source, tables for plots, figures."""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core.records import Shape
from stages.common.curate.record_counts import Tally, under
from stages.common.runtime.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURES = ("characters", "language", "score")


def summary(counts: Tally, rows: int) -> dict[str, Any]:
    """Return a shape's part of the report; `rows` = `kept` + the sum of `dropped`, also for each
    source.

    Raises DataError should the counts not add up.
    """
    names = sorted({key[1] for key in counts if key[0] in ("kept", "dropped")})
    sources: dict[str, Any] = {
        name: _part(under(counts, "kept", name), under(counts, "dropped", name)) for name in names
    }
    epochs = {name: often for name in names if (often := _epochs(counts, name)) != 1}
    kept = sum(part["kept"] for part in sources.values())
    dropped: Counter[str] = sum((Counter(part["dropped"]) for part in sources.values()), Counter())
    if rows != kept + dropped.total():
        raise DataError(f"{rows} records in, but {kept} kept and {dict(dropped)} dropped")
    splits: Counter[str] = Counter()
    for (what, *place), number in counts.items():
        if what == "written":
            splits[place[-1]] += number
    return {
        "rows": rows,
        "kept": kept,
        "dropped": dict(sorted(dropped.items())),
        "splits": dict(sorted(splits.items())),
        "languages": under(counts, "after", "language"),
        "personal": under(counts, "personal"),
        "epochs": epochs,
        "sources": sources,
    }


def _epochs(counts: Tally, name: str) -> float:
    """Return how often a source's training records were written, those not sampled among them; 1
    without any.
    """
    left_out = under(counts, "dropped", name).get("not_sampled", 0)
    there = counts["kept", name, "train"] + left_out
    return round(counts["written", name, "train"] / there, 3) if there else 1.0


def _part(kept: Mapping[str, int], dropped: Mapping[str, int]) -> dict[str, Any]:
    return {"rows": sum(kept.values()) + sum(dropped.values()), "kept": sum(kept.values()), "dropped": dict(dropped)}


def distributions(counts: Mapping[Shape, Tally], measure: str) -> Iterator[dict[str, Any]]:
    """Yield how many records of a shape have a value, before and after curation, with the name of
    its bar in a plot.
    """
    for shape, tally in counts.items():
        found = {when: under(tally, when, measure) for when in ("before", "after")}
        for value in sorted({*found["before"], *found["after"]}, key=lambda word: (len(word), word)):
            for when, of_value in found.items():
                bar = f"{shape} {value} {when}"
                number = of_value.get(value, 0)
                yield {"shape": shape, "value": value, "when": when, "records": number, "bar": bar}


def write_tables(folder: Path, report: Mapping[Shape, Any], counts: Mapping[Shape, Tally]) -> None:
    """Write `dropped.csv` and, for each measure, `<measure>.csv`, which `dvc plots` draws."""
    folder.mkdir(parents=True, exist_ok=True)
    drops = [
        {"shape": shape, "reason": reason, "records": number}
        for shape in counts
        for reason, number in report[shape]["dropped"].items()
    ]
    _write(folder / "dropped.csv", ["shape", "reason", "records"], drops)
    columns = ["shape", "value", "when", "records", "bar"]
    for measure in MEASURES:
        _write(folder / f"{measure}.csv", columns, list(distributions(counts, measure)))


def _write(file: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def before_and_after(tally: Tally, measure: str, title: str) -> "Figure":
    """Return how many records have each value of `measure`, before and after curation, side by
    side.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = {when: under(tally, when, measure) for when in ("before", "after")}
    values = sorted({*found["before"], *found["after"]}, key=lambda word: (len(word), word))
    figure = Figure(figsize=(8, 4), layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(title=title, xlabel=measure, ylabel="records")
    for offset, (when, counts) in zip((-0.2, 0.2), found.items(), strict=True):
        places = [place + offset for place in range(len(values))]
        axes.bar(places, [counts.get(value, 0) for value in values], width=0.4, label=when)
    axes.set_xticks(range(len(values)), values, rotation=45 if len(values) > 8 else 0)
    axes.legend()
    return figure
