"""What became of a file's rows and of their keys, counted, and what of it is worth a warning."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from stages.common.ingest.files.encodings import UTF_8
from stages.common.ingest.layouts.meaning import METADATA
from stages.common.ingest.parsing import UNKNOWN, Kept, Refused
from stages.common.runtime import logs
from stages.common.runtime.errors import DataError

UNKNOWN_SHARE, UNUSED_SHARE = 0.2, 0.05
"""Of a file's rows: more that are unknown, or that have a key which goes nowhere, are worth a
warning.
"""


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
    fields_not_used: Counter[str] = field(default_factory=Counter)
    """Keys of kept rows that went into no record, and in how many rows."""
    nearest: Counter[str] = field(default_factory=Counter)
    """What unknown rows come nearest to, and what they lack of it."""

    def add(self, outcome: Kept | Refused) -> None:
        """Count one outcome."""
        if isinstance(outcome, Refused):
            self.quarantined[outcome.reason] += 1
            if outcome.reason == UNKNOWN:
                self.nearest[outcome.nearest] += 1
            return
        self.kept += outcome.rows
        self.formats[outcome.format] += outcome.rows
        self.records.update(shape for shape, _ in outcome.records)
        self.fields_not_used.update(outcome.unused)


@dataclass
class Names:
    """Names records `<file>:<line>`, and the next ones of one shape and line `<file>:<line>.2`,
    …; `#2` marks the copies that curation's mixture takes.
    """

    source: str
    line: int = 0
    given: Counter[str] = field(default_factory=Counter)

    def next(self, shape: str, line: int) -> str:
        """Return the name of a record."""
        if line != self.line:
            self.line, self.given = line, Counter()
        self.given[shape] += 1
        return f"{self.source}:{line}" + (f".{self.given[shape]}" if self.given[shape] > 1 else "")


def check(source: str, count: Count) -> None:
    """Say so when a file's encoding is unusual. Raises DataError should its counts not add up."""
    if count.rows != count.kept + count.quarantined.total():
        raise DataError(f"{count.rows} rows in, but {count.kept} kept and {count.quarantined}", where=source)
    if count.encoding not in ("", UTF_8):
        logs.log.info("%s is %s", source, count.encoding)
    for warning in warnings(source, count):
        logs.log.warning("%s", warning)


def warnings(source: str, count: Count) -> list[str]:
    """Return what a reader of the report should know of one file: that much of it is unknown, and
    which keys went nowhere.
    """
    found = []
    unknown = count.quarantined[UNKNOWN]
    if unknown > UNKNOWN_SHARE * count.rows:
        near = [name for name, _ in count.nearest.most_common() if name][:1]
        known = f"nearest known layout: {near[0]}" if near else "no known layout has a key of it"
        found.append(f"{source}: {unknown:,} of {count.rows:,} rows are of an unknown format; {known}")
    names = [
        f"{path} {rows:,}"
        for path, rows in count.fields_not_used.most_common()
        if rows > UNUSED_SHARE * count.kept and path.rpartition(".")[2].lower() not in METADATA
    ]
    if names:
        found.append(f"{source}: fields not used, of {count.kept:,} rows: {', '.join(names)}")
    return found


def summary(counts: dict[str, Count]) -> dict[str, Any]:
    """Return the report: rows, kept, formats, records, quarantined and unused keys, in total and by
    file, with kind, encoding and warnings.
    """
    total = Count()
    files = {}
    for source, count in counts.items():
        total.rows, total.kept = total.rows + count.rows, total.kept + count.kept
        total.formats += count.formats
        total.records += count.records
        total.quarantined += count.quarantined
        total.fields_not_used += count.fields_not_used
        files[source] = {name: value for name, value in vars(count).items() if name != "nearest"}
        files[source]["warnings"] = warnings(source, count)
    totals = {name: value for name, value in vars(total).items() if name not in ("kind", "encoding", "nearest")}
    return {"total": totals, "files": files}


def figure(result: dict[str, Any]) -> str:
    """Return the stage's key figure; files that are largely unknown stand before the counts."""
    total = result["total"]
    unknown = [line for file in result["files"].values() for line in file["warnings"] if "unknown format" in line]
    records, refused = sum(total["records"].values()), sum(total["quarantined"].values())
    counts = f"{records:,} records of {total['rows']:,} rows, {refused:,} in quarantine"
    return "; ".join([*unknown, counts])
