"""`validate` whole, as the pipeline runs it: records a second, and peak memory at ten times the
data.

Writes records of random prose in files of 20,000, as many of each shape but the questions, of which
there are 1,000, and runs `python -m stages.validate` on them with one worker a core. Peak memory is
the sum over the stage's whole process tree, shared pages counted once (PSS).

    python -m bench.validate --records 10000
"""

import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import psutil
import typer

from bench.curate import PARAMS, ROOT, VOCABULARY, memory, prose
from stages.common.core.records import SHAPES, Record, Shape, message
from stages.common.text.parquet_writer import Shards

RECORDS_PER_FILE, QUESTIONS = 20_000, 1_000


def generated(shape: Shape, count: int) -> Iterator[Record]:
    """Yield `count` records of a shape."""
    rng = random.Random(shape)
    words = ["".join(rng.choices("etaoinshrdlucmfwy", k=rng.randint(3, 9))) for _ in range(VOCABULARY)]
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(VOCABULARY)))
    sentences = [sentence for _ in range(500) for sentence in prose(words, weights, rng).split(". ")]

    def said(number: int) -> str:
        return ". ".join(rng.choices(sentences, k=number))

    for number in range(count):
        source = f"{shape}_{number % 4}.jsonl"
        asked = [message("user", f"{said(1)} Number {number}?")]
        own: dict[str, Record] = {
            "documents": {"text": said(16)},
            "conversations": {"messages": [*asked, message("assistant", said(3))]},
            "comparisons": {"prompt": asked, "responses": [said(2) for _ in range(4)], "ranks": [1, 2, 3, 4]},
            "prompts": {"messages": asked},
            "questions": {"messages": asked, "reference": said(1), "group": "iid"},
            "labelled": {"prompt": asked, "response": said(2), "desirable": number % 2 == 0},
        }
        yield {"id": f"{source}:{number + 1}", "source": source, **own[shape]}


def lay(count: int, curated: Path) -> int:
    """Write `count` records a shape; return how many there are in all."""
    total = 0
    for shape in SHAPES:
        records = generated(shape, QUESTIONS if shape == "questions" else count)
        folder = curated / shape if shape == "questions" else curated / shape / "train"
        for part in itertools.count():
            rows = list(itertools.islice(records, RECORDS_PER_FILE))
            if not rows:
                break
            with Shards({folder: shape}, part=part) as shards:
                for row in rows:
                    shards.add(folder, row)
            total += len(rows)
    return total


def measure(count: int, folder: Path) -> tuple[int, float, int]:
    """Validate `count` records a shape in `folder`; return records, seconds and peak bytes."""
    total = lay(count, folder / "curated")
    (folder / "params.yaml").write_text(f"{PARAMS}validate: {{}}\n")
    options = {"curated": "curated", "out": "out", "report": "report.json", "docs": "docs"}
    command = [sys.executable, "-m", "stages.validate", *(word for k, v in options.items() for word in (f"--{k}", v))]
    store = f"sqlite:///{folder.parent}/mlflow.db"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": store}
    started, peak = time.monotonic(), 0
    with (folder / "log.txt").open("wb") as log:
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        watched = psutil.Process(child.pid)
        while child.poll() is None:
            try:
                peak = max(peak, memory(watched))
            except psutil.Error:
                break
            time.sleep(0.2)
    if child.wait():
        raise SystemExit((folder / "log.txt").read_text()[-2000:])
    return total, time.monotonic() - started, peak


def main(
    records: Annotated[int, typer.Option(help="Records a shape of the small run; the large one: ten times.")] = 10_000,
) -> None:
    """Print a row a run, and the two ratios."""
    rows = []
    with TemporaryDirectory() as folder:
        (Path(folder) / "warm").mkdir()
        measure(100, Path(folder) / "warm")  # the first touch of a new tracking store takes seconds
        for count in (records, 10 * records):
            (Path(folder) / str(count)).mkdir()
            total, seconds, peak = measure(count, Path(folder) / str(count))
            rows.append((total / seconds, peak))
            print(f"{total:>9,} records  {total / seconds:>7,.0f} a second  {peak / 2**20:>6,.0f} MiB", flush=True)
    (speed, peak), (ten_speed, ten_peak) = rows
    print(f"ten times the data: memory x {ten_peak / peak:.2f}, speed x {ten_speed / speed:.2f}")


if __name__ == "__main__":
    typer.run(main)
