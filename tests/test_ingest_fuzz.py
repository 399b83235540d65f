"""Whatever is done to rows, `ingest` does not crash and every row ends as part of a record or in
quarantine.

A few hundred rows always; with the slow tests LATHE_FUZZ_ROWS of each kind (10,000 unless set).
"""

import gzip
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.common.core import records
from stages.common.core.records import SCHEMAS
from stages.common.ingest.counts import summary
from stages.ingest import Params, ingest
from tests.support.damage import (
    CHANGED,
    CONTAINERS,
    DAMAGED,
    KINDS,
    MORE,
    SAMPLES,
    VALUES,
    WHOLE,
    damaged,
    unpacked,
)
from tests.support.real_data import REAL, needs_real_data

MANY = int(os.environ.get("LATHE_FUZZ_ROWS", "10000"))
AMOUNTS = [
    pytest.param(300, id="few"),
    pytest.param(MANY, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
]
ROWS_OF_A_FILE = 50


def check(data: bytes, name: str, text: bytes = b"") -> int:
    """Ingest one file, hold the books against what was written, and return how many rows there
    were.

    With `text`, what the file says unpacked, every line that is not blank has to be met again.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "raw").mkdir()
        (folder / "raw" / name).write_bytes(data)
        report = summary(ingest(folder / "raw", folder / "out", folder / "aside", Params()))
        total = report["total"]
        by_shape = [(shape, record) for shape in SCHEMAS for record in records.read(folder / "out" / shape)]
        kept = [record for _, record in by_shape]
        refused = [json.loads(line) for file in (folder / "aside").rglob("*.jsonl") for line in file.open("rb")]
    assert total["rows"] == total["kept"] + sum(total["quarantined"].values())
    assert len(kept) == sum(total["records"].values())
    assert len(refused) == sum(total["quarantined"].values())
    assert all(row["file"] == name and row["line"] >= 1 and row["reason"] for row in refused)
    joined = {"utterances", "tree messages"} & set(total["formats"])
    if text and report["files"][name]["kind"] == "rows" and not joined:
        written = {str(number) for number, line in enumerate(text.split(b"\n"), 1) if line.strip()}
        found = {record["id"].rpartition(":")[2].partition(".")[0] for record in kept}
        assert found | {str(row["line"]) for row in refused} == written
        assert not found & {str(row["line"]) for row in refused} or total["rows"] > len(written)
    ids = [(shape, record["id"]) for shape, record in by_shape]
    assert len(set(ids)) == len(ids)
    return int(total["rows"])


@pytest.mark.parametrize("rows", AMOUNTS)
def test_no_change_of_values_or_bytes_crashes_or_loses_a_row(rows: int) -> None:
    done = 0
    lists = st.lists(WHOLE | MORE | CHANGED | DAMAGED | VALUES, min_size=ROWS_OF_A_FILE, max_size=ROWS_OF_A_FILE)

    @settings(
        max_examples=rows // ROWS_OF_A_FILE,
        deadline=None,
        database=None,
        derandomize=rows < MANY,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(sorted(CONTAINERS)), lists)
    def every(name: str, found: list[Any]) -> None:
        nonlocal done
        data = CONTAINERS[name]([SAMPLES[0], *found])
        check(data, name, unpacked(data) if name.endswith(("gz", "zst")) else data)
        done += len(found)

    every()
    assert done >= rows


@pytest.mark.parametrize("rows", AMOUNTS)
@needs_real_data
def test_no_damage_to_real_files_crashes_or_loses_a_row(rows: int) -> None:
    chance = random.Random(rows)
    files = sorted(file for file in REAL.rglob("*") if file.suffix in (".jsonl", ".gz", ".txt"))
    done = 0
    while done < rows:
        for file in files:
            whole = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
            lines = whole.split(b"\n")
            start = chance.randrange(max(1, len(lines) - ROWS_OF_A_FILE))
            hit = [
                damaged(line, chance.choice(KINDS), chance.randrange(10**6), chance.randrange(256))
                if line and chance.random() < 0.7
                else line
                for line in lines[start : start + ROWS_OF_A_FILE]
            ]
            data = b"\n".join([lines[0], *hit])
            packed = gzip.compress(data) if chance.random() < 0.3 else data
            done += check(packed, file.name.removesuffix(".gz"), data)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_damage_to_the_bytes_of_a_container_is_found_and_counted(name: str) -> None:
    chance = random.Random(name)
    whole = CONTAINERS[name](SAMPLES[:21] * 20)
    for _ in range(30):
        kind = chance.choice(["set", "insert", "delete", "cut"])
        data = damaged(whole, kind, chance.randrange(5, 10**6), chance.randrange(256))
        check(data, name if data.startswith(whole[:4]) else "a.jsonl")
