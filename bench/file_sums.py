"""What becomes of every row of some files in ingest, curate and validate, a table row a file.

A path is read by itself, so a row that stands in two files is no duplicate; the files of a folder
are read together (a corpus of several files, a data set that was saved as a folder). The sums are
checked: rows are kept or in quarantine, records of them are kept or dropped, and validation lets
through what was kept. Parameters are the defaults, with nothing held out.

    python -m bench.file_sums ../shared/data/real/*/* ../shared/cases/data/11-cornell/raw
"""

import os
import shutil
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from stages import curate as curation
from stages import ingest as ingestion
from stages import validate as validation
from stages.common.core.records import SHAPES
from stages.common.curate.executors import VARIABLE, Executor
from stages.common.validate.great_expectations import Door

SPLITS = {shape: {"validation": 0.0} for shape in SHAPES if shape not in ("questions", "labelled")}
HEAD = ("file", "rows", "quarantine", "records", "kept", "dropped", "validation")


def curated(folder: Path) -> dict[str, Counter[str]]:
    """Curate what was ingested, and return by file what became of its records; the report checks
    its sums.
    """
    settings = curation.Params.model_validate({"splits": SPLITS})
    counts, parts = curation.counted(folder / "ingested", folder / "work", settings)
    curation.publish(folder / "work", folder / "curated", folder / "dropped")
    found: dict[str, Counter[str]] = {}
    for shape in counts:
        for name, part in parts[shape]["sources"].items():
            one = found.setdefault(name, Counter())
            one.update({"kept": part["kept"], **{f"- {why}": number for why, number in part["dropped"].items()}})
    return found


def validated(folder: Path) -> str:
    """Return how many records validation lets through, or which critical expectations fail."""
    promised = validation.Promised.model_validate({"splits": SPLITS})
    with Executor() as executor:
        door = Door(folder / "docs", folder / "checked")
        findings = validation.check(folder / "curated", folder / "checked", promised, door, executor)
    failing = [one for one in findings if not one.success and one.severity == "critical"]
    if failing:
        return "refused: " + ", ".join(sorted({f"{one.suite}/{one.expectation}" for one in failing}))
    return f"{validation.hand_over(folder / 'curated', folder / 'validated'):,}"


def rows(path: Path, folder: Path) -> list[list[str]]:
    """Return the table's rows of a file, or of the files of a folder."""
    copy = folder / "raw" / "/".join([name for name in path.parts if name != "raw"][-2:])
    copy.parent.mkdir(parents=True)
    shutil.copytree(path, copy) if path.is_dir() else shutil.copyfile(path, copy)
    counts = ingestion.ingest(folder / "raw", folder / "ingested", folder / "quarantine", ingestion.Params())
    becomes = curated(folder)
    passed = validated(folder)
    kept = sum(one["kept"] for one in becomes.values())
    table: list[list[str]] = []
    for name, count in counts.items():
        ingested, last = sum(count.records.values()), becomes.get(name, Counter[str]())
        if count.rows != count.kept + sum(count.quarantined.values()) or ingested != last.total():
            raise SystemExit(f"{path}: {name}: {count}: {last}")
        refused, dropped = told(count.quarantined), told({k[2:]: n for k, n in last.items() if k[0] == "-"})
        numbers = [f"{number:,}" for number in (count.rows, ingested, last["kept"])]
        after = passed if not table else "as above"
        table.append([name, numbers[0], refused, *numbers[1:], dropped, after])
    if passed[0].isdigit() and passed != f"{kept:,}":
        raise SystemExit(f"{path}: {kept:,} records kept, and {passed} let through")
    return table


def told(counts: Any) -> str:
    """Return reasons with their counts, the most frequent first."""
    return ", ".join(f"{why} {number:,}" for why, number in Counter(counts).most_common())


def main(paths: Annotated[list[Path], typer.Argument(help="Files, or folders of files that belong together.")]) -> None:
    """Print the table; a sum that is wrong ends it."""
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for path in paths:
        with TemporaryDirectory() as place:
            folder = Path(place)
            one = folder / "one.yaml"
            one.write_text("executor: local\nworkers: 1\n")
            os.environ[VARIABLE] = str(one)
            for cells in rows(path.resolve(), folder):
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
