"""Any known raw format -> five shapes; what cannot be read goes to quarantine with file, line and reason.

Reads every file under --raw (not dot-files, DVC's pointers, READMEs), telling formats apart by content, row by row.
Writes --out/<shape>/*.parquet, --quarantine/<file>.jsonl (line, reason, detail and the raw row) and --report.
A document of plain text is several paragraphs (its rows); everywhere else a row is a record.

    python -m stages.ingest --raw data/raw --out data/ingested --quarantine data/quarantine --report reports/ingest.json
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import PositiveInt

from stages.common import journal, params, process, raw_files, tracking
from stages.common.errors import DataError
from stages.common.figures import bars
from stages.common.params import StageParams
from stages.common.parsing import Kept, Reader, Refused
from stages.common.progress import Progress
from stages.common.records import SHAPES, Record
from stages.common.shards import JsonLines, Shards, write_json


class Params(StageParams):
    """The section `ingest` of params.yaml."""

    document_characters: PositiveInt = 4000
    """Paragraphs of a plain text file are joined to documents of about this length."""


@dataclass
class Count:
    """What became of one file's rows: `rows` = `kept` + the sum of `quarantined`."""

    rows: int = 0
    kept: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Kept | Refused) -> None:
        """Count one outcome."""
        if isinstance(outcome, Refused):
            self.quarantined[outcome.reason] += 1
            return
        self.kept += outcome.rows
        self.formats[outcome.format] += outcome.rows
        self.records[outcome.shape] += 1


def ingest(raw: Path, out: Path, quarantine: Path, characters: int) -> dict[str, Count]:
    """Read every raw file and write shapes and quarantine; return the counts by file.

    Raises DataError when there is nothing to read, or should a file's counts not add up.
    """
    paths = raw_files.find(raw)
    progress, behind, counts = Progress(sum(path.stat().st_size for path in paths)), 0, {}
    folders = {shape: out / shape for shape in SHAPES}
    with Shards({folders[shape]: shape for shape in SHAPES}) as shards, JsonLines(quarantine) as refusals:
        for path in paths:
            source = path.relative_to(raw).as_posix()
            count = counts[source] = Count()
            with raw_files.open_raw(path) as file:
                reader = Reader(file, characters)
                for outcome in reader.outcomes():
                    count.add(outcome)
                    progress.row(behind + file.position())
                    if isinstance(outcome, Kept):
                        name = {"id": f"{source}:{outcome.line}", "source": source}
                        shards.add(folders[outcome.shape], name | outcome.record)
                    else:
                        refusals.add(source, refusal(source, outcome))
            behind, count.rows = behind + path.stat().st_size, reader.rows
            if count.rows != count.kept + count.quarantined.total():
                raise DataError(f"{count.rows} rows in, but {count.kept} kept and {count.quarantined}", where=path)
    journal.log.info("%s outcomes/s", f"{progress.rows_per_second():,.0f}")
    return counts


def refusal(source: str, outcome: Refused) -> Record:
    """Return the quarantine's line about one row; a byte that is not UTF-8 is written as \\x.."""
    text = outcome.row.data.decode("utf-8", "backslashreplace")
    return {
        "file": source,
        "line": outcome.row.line,
        "reason": outcome.reason,
        "detail": outcome.detail,
        "raw": text,
    }


def summary(counts: dict[str, Count]) -> dict[str, Any]:
    """Return the report: rows, kept, formats, records and quarantined, by file and in total."""
    total = Count()
    for count in counts.values():
        total.rows, total.kept = total.rows + count.rows, total.kept + count.kept
        total.formats += count.formats
        total.records += count.records
        total.quarantined += count.quarantined
    return {"total": vars(total), "files": {source: vars(count) for source, count in counts.items()}}


def main(
    raw: Annotated[Path, typer.Option(help="Folder of raw files.")],
    out: Annotated[Path, typer.Option(help="Folder for one folder a shape.")],
    quarantine: Annotated[Path, typer.Option(help="Folder for the rows that cannot be read.")],
    report: Annotated[Path, typer.Option(help="JSON file of counts.")],
) -> None:
    """Read, sort, write, count."""
    settings = params.load(Params, "ingest")
    with tracking.start("ingest", params={"ingest": settings.model_dump()}, inputs={"raw": raw}) as run:
        result = summary(ingest(raw, out, quarantine, settings.document_characters))
        write_json(report, result)
        total = result["total"]
        run.metrics({"rows": total["rows"], "kept": total["kept"]} | total["records"])
        run.figure("quarantined", bars(total["quarantined"], "rows in quarantine by reason"))
        records, refused = sum(total["records"].values()), sum(total["quarantined"].values())
        journal.report(f"{records:,} records of {total['rows']:,} rows, {refused:,} in quarantine")


if __name__ == "__main__":
    process.run("ingest", main)
