"""Any known raw format -> five shapes; what cannot be read goes to quarantine with file, line and
reason.

Reads every file under --raw (not dot-files, DVC's pointers, READMEs) and the data sets of
`ingest.datasets`. Files may be packed (gzip, Zstandard), in any encoding their bytes prove, as JSON
lines, arrays, CSV, TSV or Parquet. Formats are told apart by content, row by row: plain text,
{"text"}, Alpaca and BELLE, question and answer with history, ChatGLM, ShareGPT, OpenAI messages,
MOSS, transcripts, dialogues, HH-RLHF, DPO, ranked or scored answers, prompts and test questions
(`recognise.py` has the list, a module a family). Writes --out/<shape>/*.parquet,
--quarantine/<file>.jsonl (line, reason, detail and the raw row) and --report. A document of plain
text is several paragraphs (its rows), a dialogue several lines; everywhere else a row is a record.

    python -m stages.ingest --raw data/raw --out data/ingested --quarantine data/quarantine --report
    reports/ingest.json
"""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import PositiveInt

from stages.common.core import params
from stages.common.core.params import StageParams
from stages.common.core.records import SHAPES, Record
from stages.common.ingest.files import hub, raw_files
from stages.common.ingest.files.encodings import UTF_8
from stages.common.ingest.parsing import Kept, Reader, Refused, Source
from stages.common.runtime import logs, process
from stages.common.runtime.errors import DataError
from stages.common.runtime.figures import bars
from stages.common.runtime.progress import Progress
from stages.common.text.parquet_writer import JsonLines, Shards, write_json
from stages.common.tracking import session


class Params(StageParams):
    """The section `ingest` of params.yaml."""

    document_characters: PositiveInt = 4000
    """Paragraphs of a plain text file are joined to documents of about this length."""
    encodings: dict[str, str] = {}
    """Encodings that are known and need no finding out: `<pattern of paths under data/raw>:
    <encoding>`.
    """
    datasets: list[hub.Dataset] = []
    """Hugging Face data sets to read beside the files: name, split, config, revision."""


@dataclass(frozen=True)
class Input:
    """Something to read: its name in ids and reports, its size in bytes and how it is opened."""

    source: str
    size: int
    open: Callable[[], AbstractContextManager[Source]]


@dataclass
class Count:
    """What one file is, and what became of its rows: `rows` = `kept` + the sum of `quarantined`."""

    kind: str = ""
    encoding: str = ""
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


def inputs(raw: Path, settings: Params) -> list[Input]:
    """Return what there is to read. Raises DataError when there is nothing, ParamsError for a wrong
    setting.
    """
    hub.check(settings.datasets)
    found = []
    for path in raw_files.find(raw):
        source = path.relative_to(raw).as_posix()
        encoding = raw_files.stated_encoding(source, settings.encodings)
        found.append(Input(source, path.stat().st_size, partial(raw_files.open_raw, path, encoding)))
    for one in settings.datasets:
        found.append(Input(one.source, 0, partial(_opened, one)))
    if not found:
        raise raw_files.none_found(raw)
    return found


def ingest(raw: Path, out: Path, quarantine: Path, settings: Params) -> dict[str, Count]:
    """Read every input and write shapes and quarantine; return the counts by source.

    Raises DataError when there is nothing to read, or should a source's counts not add up.
    """
    found = inputs(raw, settings)
    progress, behind, counts = Progress(sum(one.size for one in found)), 0, {}
    folders = {shape: out / shape for shape in SHAPES}
    with Shards({folders[shape]: shape for shape in SHAPES}) as shards, JsonLines(quarantine) as refusals:
        for one in found:
            with one.open() as file:
                count = counts[one.source] = Count(file.kind, file.encoding)
                reader = Reader(file, settings.document_characters)
                for outcome in reader.outcomes():
                    count.add(outcome)
                    progress.row(behind + file.position())
                    if isinstance(outcome, Kept):
                        name = {"id": f"{one.source}:{outcome.line}", "source": one.source}
                        shards.add(folders[outcome.shape], name | outcome.record)
                    else:
                        refusals.add(one.source, refusal(one.source, outcome))
            behind, count.rows = behind + one.size, reader.rows
            check(one.source, count)
    logs.log.info("%s outcomes/s", f"{progress.rows_per_second():,.0f}")
    return counts


def check(source: str, count: Count) -> None:
    """Say so when a file's encoding is unusual. Raises DataError should its counts not add up."""
    if count.rows != count.kept + count.quarantined.total():
        raise DataError(f"{count.rows} rows in, but {count.kept} kept and {count.quarantined}", where=source)
    if count.encoding not in ("", UTF_8):
        logs.log.info("%s is %s", source, count.encoding)


def refusal(source: str, outcome: Refused) -> Record:
    """Return the quarantine's line about one row."""
    row = outcome.row
    about = {"file": source, "line": row.line, "reason": outcome.reason, "detail": _encodable(outcome.detail)}
    return about | {"raw": row.text()}


def summary(counts: dict[str, Count]) -> dict[str, Any]:
    """Return the report: rows, kept, formats, records and quarantined, in total and by file, with
    kind and encoding.
    """
    total = Count()
    for count in counts.values():
        total.rows, total.kept = total.rows + count.rows, total.kept + count.kept
        total.formats += count.formats
        total.records += count.records
        total.quarantined += count.quarantined
    totals = {name: value for name, value in vars(total).items() if name not in ("kind", "encoding")}
    return {"total": totals, "files": {source: vars(count) for source, count in counts.items()}}


def _opened(dataset: hub.Dataset) -> AbstractContextManager[Source]:
    return nullcontext(hub.open_dataset(dataset))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def main(
    raw: Annotated[Path, typer.Option(help="Folder of raw files.")],
    out: Annotated[Path, typer.Option(help="Folder for one folder a shape.")],
    quarantine: Annotated[Path, typer.Option(help="Folder for the rows that cannot be read.")],
    report: Annotated[Path, typer.Option(help="JSON file of counts.")],
) -> None:
    """Read, sort, write, count."""
    settings = params.load(Params, "ingest")
    with session.start("ingest", params={"ingest": settings.model_dump()}, inputs={"raw": raw}) as run:
        result = summary(ingest(raw, out, quarantine, settings))
        write_json(report, result)
        total = result["total"]
        run.metrics({"rows": total["rows"], "kept": total["kept"]} | total["records"])
        run.figure("quarantined", bars(total["quarantined"], "rows in quarantine by reason"))
        records, refused = sum(total["records"].values()), sum(total["quarantined"].values())
        logs.report(f"{records:,} records of {total['rows']:,} rows, {refused:,} in quarantine")


if __name__ == "__main__":
    process.run("ingest", main)
