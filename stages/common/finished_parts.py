"""Finished parts of a long piece of work that writes records: kept whole or not at all, and taken after a stop."""

import json
import shutil
from pathlib import Path

import pyarrow as pa

from stages.common import checkpoints, records
from stages.common.journal import log
from stages.common.records import Record
from stages.common.shards import Shards

COUNTS = "counts.json"


def write(folder: Path, number: int, rows: list[Record], counts: dict[str, int], schema: pa.Schema) -> None:
    """Keep part `number` with what it adds to the report's counts; killed here, there is no such part."""
    temporary = folder / f".part-{number}"
    shutil.rmtree(temporary, ignore_errors=True)
    with Shards({temporary / "rows": schema}) as shards:
        for row in rows:
            shards.add(temporary / "rows", row)
    (temporary / COUNTS).write_text(json.dumps(counts), encoding="utf-8")
    checkpoints.seal(temporary, folder / f"part-{number}")


def read(folder: Path, number: int) -> tuple[list[Record], dict[str, int]] | None:
    """Return the rows and counts of part `number`, or None when it is not there whole: then it is to be made again."""
    part = folder / f"part-{number}"
    if not part.exists():
        return None
    if wrong := checkpoints.fault(part):
        log.warning("a finished part is not usable and is made again: %s", wrong)
        return None
    log.info("taking %s, finished before", part)
    return list(records.read(part / "rows")), json.loads((part / COUNTS).read_text(encoding="utf-8"))
