"""Any known raw format -> shapes; what cannot be read goes to quarantine with file, line and
reason.

Reads every file under --raw (not dot-files, DVC's pointers, READMEs) and the data sets of
`ingest.datasets`. Files may be packed (gzip, Zstandard), in any encoding their bytes prove, as JSON
lines, arrays, CSV, TSV or Parquet. Formats are told apart by content, row by row: plain text,
{"text"}, Alpaca and BELLE, question and answer with history, ChatGLM, ShareGPT, OpenAI messages,
MOSS, transcripts, dialogues, HH-RLHF, DPO, ranked or scored answers, prompts and test questions
(docs/data.md has the list). A key of a kept row that goes nowhere is counted, and one that changes
what the row means is understood, or the row is refused. Writes --out/<shape>/*.parquet,
--quarantine/<file>.jsonl (line, reason, detail and the raw row) and --report. A document of plain
text is several paragraphs (its rows), a dialogue several lines; everywhere else a row is a record.

    python -m stages.ingest --raw data/raw --out data/ingested --quarantine data/quarantine --report
    reports/ingest.json
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from pydantic import PositiveInt

from stages.common.core import params
from stages.common.core.params import StageParams
from stages.common.core.records import SCHEMAS, Record
from stages.common.ingest.counts import Count, Names, check, figure, summary
from stages.common.ingest.files import hub, raw_files
from stages.common.ingest.parsing import Kept, Refused
from stages.common.ingest.reading import Reader, Source
from stages.common.runtime import logs, process
from stages.common.runtime.progress import Progress
from stages.common.text.parquet_writer import JsonLines, Shards, write_json
from stages.common.tracking import lineage, session
from stages.common.tracking.figures import bars


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


def inputs(raw: Path, settings: Params) -> list[Input]:
    """Return what there is to read. Raises DataError when there is nothing, ParamsError for a wrong
    setting.
    """
    hub.check(settings.datasets)
    raw_files.check_all_here(raw)
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
    folders = {shape: out / shape for shape in SCHEMAS}
    with (
        Shards({folder: SCHEMAS[shape] for shape, folder in folders.items()}) as shards,
        JsonLines(quarantine) as refusals,
    ):
        for one in found:
            with one.open() as file:
                count = counts[one.source] = Count(file.kind, file.encoding)
                reader, names = Reader(file, settings.document_characters), Names(one.source)
                for outcome in reader.outcomes():
                    count.add(outcome)
                    progress.row(behind + file.position())
                    if isinstance(outcome, Kept):
                        for shape, record in outcome.records:
                            shards.add(
                                folders[shape], {"id": names.next(shape, outcome.line), "source": one.source} | record
                            )
                    else:
                        refusals.add(one.source, refusal(one.source, outcome))
            behind, count.rows = behind + one.size, reader.rows
            check(one.source, count)
    logs.log.info("%s outcomes/s", f"{progress.rows_per_second():,.0f}")
    return counts


def refusal(source: str, outcome: Refused) -> Record:
    """Return the quarantine's line about one row."""
    row = outcome.row
    about = {"file": source, "line": row.line, "reason": outcome.reason, "detail": _encodable(outcome.detail)}
    return about | {"raw": row.text()}


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
        lineage.check_copy(raw)
        result = summary(ingest(raw, out, quarantine, settings))
        write_json(report, result)
        total = result["total"]
        run.metrics({"rows": total["rows"], "kept": total["kept"]} | total["records"])
        run.figure("quarantined", bars(total["quarantined"], "rows in quarantine by reason"))
        quarantined = {"quarantined": sum(total["quarantined"].values())}
        logs.report(figure(result), {"rows": total["rows"]} | quarantined | total["records"])


if __name__ == "__main__":
    process.run("ingest", main)
