"""`curate` whole, as the pipeline runs it: documents a second, and peak memory at ten times the
data.

Writes random prose (words as frequent as in a natural language, function words between them; some
of it copied, edited, with personal data, or junk), half of it in a trusted source, and runs `python
-m stages.curate` on it with one worker a core. Peak memory is the sum over the stage's whole
process tree, shared pages counted once (PSS).

    python -m bench.curate
    python -m bench.curate --documents 8000 --per-task 2000
"""

import itertools
import json
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

from stages.common.core.records import SHAPES, Record
from stages.common.text.parquet_writer import write

ROOT = Path(__file__).parent.parent
VOCABULARY, SENTENCES, WORDS = 30_000, (6, 16), (6, 18)
FUNCTION_WORDS = ("the", "of", "and", "to", "in", "a", "is", "that", "was", "for", "it", "with", "as", "on", "be", "at")
STAGE = """
import runpy, sys
from stages.common.curate import steps
steps.RECORDS_PER_TASK = int(sys.argv.pop(1))
runpy.run_module("stages.curate", run_name="__main__")
"""
PARAMS = """
curate:
  quality: {trusted: [books/*], sample: 1000}
  splits:
    documents: {validation: 0.01}
    conversations: {validation: 0.01}
    comparisons: {validation: 0.01}
    prompts: {validation: 0.01}
"""


def documents(count: int, seed: int = 1) -> Iterator[Record]:
    """Yield `count` documents; of 100, 5 are copies, 5 near copies, 3 have a mail address, 2 are
    junk.
    """
    rng = random.Random(seed)
    words = ["".join(rng.choices("etaoinshrdlucmfwy", k=rng.randint(3, 9))) for _ in range(VOCABULARY)]
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(VOCABULARY)))
    earlier: list[str] = []
    for number in range(count):
        chance = rng.random()
        if earlier and chance < 0.10:
            text = rng.choice(earlier)
            if chance < 0.05:
                parts = text.split(" ")
                start = rng.randrange(len(parts) * 9 // 10)
                text = " ".join(parts[:start] + parts[start + len(parts) // 20 :])
        elif chance < 0.12:
            text = "BUY NOW!!! Cheap pills $9.99, click here: http://example.com/deal " * rng.randint(2, 6)
        else:
            text = prose(words, weights, rng)
            if chance < 0.15:
                text += f" Write to someone{number}@post.sample."
            if len(earlier) < 2_000:
                earlier.append(text)
        source = ("books/part.jsonl", "crawl/part.jsonl")[number % 2]
        yield {"id": f"{source}:{number + 1}", "source": source, "text": text}


def prose(words: list[str], weights: list[float], rng: random.Random) -> str:
    """Return some sentences in a few paragraphs."""
    sentences = []
    for _ in range(rng.randint(*SENTENCES)):
        content = rng.choices(words, cum_weights=weights, k=rng.randint(*WORDS))
        found = [
            part for word in content for part in ([rng.choice(FUNCTION_WORDS), word] if rng.random() < 0.7 else [word])
        ]
        sentences.append(" ".join(found).capitalize() + ".")
    return " ".join(sentences)


def memory(process: psutil.Process) -> int:
    """Return the bytes that a process and all below it hold, shared pages counted once."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def measure(count: int, folder: Path, records_per_task: int) -> tuple[float, int, dict[str, int]]:
    """Curate `count` documents in `folder`; return seconds, peak bytes and what became of them."""
    for shape in SHAPES:
        write(documents(count) if shape == "documents" else iter(()), folder / "ingested" / shape, shape)
    (folder / "params.yaml").write_text(PARAMS)
    options = {"ingested": "ingested", "out": "out", "dropped": "dropped", "report": "report.json", "tables": "tables"}
    words = (word for name, value in options.items() for word in (f"--{name}", value))
    command = [sys.executable, "-c", STAGE, str(records_per_task), *words]
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
    report = json.loads((folder / "report.json").read_text())["documents"]
    return time.monotonic() - started, peak, {"kept": report["kept"], **report["dropped"]}


def main(
    documents: Annotated[int, typer.Option(help="Documents of the small run; the large one: ten times.")] = 100_000,
    per_task: Annotated[int, typer.Option(help="Records of a task, so that both runs keep every core busy.")] = 20_000,
) -> None:
    """Print a row a run, and the two ratios."""
    rows = []
    with TemporaryDirectory() as folder:
        (Path(folder) / "warm").mkdir()
        measure(200, Path(folder) / "warm", per_task)  # the first touch of a new tracking store takes seconds
        for count in (documents, 10 * documents):
            (Path(folder) / str(count)).mkdir()
            seconds, peak, outcome = measure(count, Path(folder) / str(count), per_task)
            rows.append((count, seconds, peak))
            told = ", ".join(f"{name} {number:,}" for name, number in outcome.items())
            print(
                f"{count:>9,} documents  {count / seconds:>7,.0f} a second  {peak / 2**20:>6,.0f} MiB  {told}",
                flush=True,
            )
    (one, one_seconds, one_peak), (ten, ten_seconds, ten_peak) = rows
    print(
        f"ten times the data: memory x {ten_peak / one_peak:.2f}, speed x {ten / ten_seconds / (one / one_seconds):.2f}"
    )


if __name__ == "__main__":
    typer.run(main)
